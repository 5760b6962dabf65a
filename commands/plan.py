"""`headwater plan`: how many machines so many users take, from what was measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.report import machine
from commands.plan_tables import print_plan
from commands.process import Json, print_json
from config.errors import SettingsError
from config.settings import Settings, load_settings
from planning.capacity import ASSUMED, Configured, Plan, make_plan, money
from planning.costs_file import costs_path, read_costs
from planning.demand import KNOWN_FACTOR, Demand, Machines, Prices
from planning.limits import Growth, Limit, find_limits, grow
from planning.unit_costs import Input

__all__ = ["plan"]


def plan(
    *,
    daily_users: float,
    actions_per_user: float,
    items: float = 1e6,
    peak: float = 3.0,
    known_users: float | None = None,
    events_per_action: float = 1.0,
    requests_per_action: float = 1.0,
    retention_days: float | None = None,
    replication: float = 3,
    broker_disk_gb: float = 4000.0,
    broker_mb_s: float = 100.0,
    redis_node_gb: float = 64.0,
    redis_replicas: float = 1,
    core_price: float | None = None,
    memory_gb_price: float | None = None,
    disk_gb_price: float | None = None,
    costs: Path | None = None,
    json: Json = False,
) -> None:
    """Rates, Kafka, Redis, workers and servers for so many users, and what breaks first at ten and
    a hundred times as many. Numbers may be written as 100e6.

    Parameters
    ----------
    daily_users
        Users of a day.
    actions_per_user
        What one does in a day: each is an event and a request for recommendations.
    items
        Items of the catalogue.
    peak
        The busiest second against the average one.
    known_users
        Users with an event within store.user_days; three times those of a day by default.
    events_per_action
        Events of an action.
    requests_per_action
        Recommendation requests of an action.
    retention_days
        How long events stay in the log; kafka.retention_hours by default.
    replication
        Copies of the log.
    broker_disk_gb
        Disk of a Kafka broker, GB.
    broker_mb_s
        What a Kafka broker's network and disks carry, MB/s each way.
    redis_node_gb
        Memory of a Redis node, GB.
    redis_replicas
        Replicas of each Redis primary.
    core_price
        Price of a core for a month, for the bill.
    memory_gb_price
        Price of a GB of Redis's memory for a month.
    disk_gb_price
        Price of a GB of Kafka's disks for a month.
    costs
        File of unit costs; by default the one that `headwater bench` writes here, and what is not
        in it is taken from docs/performance.md.
    """
    settings = load_settings()
    kept = settings.kafka.retention_hours / 24 if retention_days is None else retention_days
    demand = Demand(
        daily_users=daily_users,
        actions_per_user=actions_per_user,
        items=items,
        peak=peak,
        known_users=known_users,
        events_per_action=events_per_action,
        requests_per_action=requests_per_action,
    ).check()
    machines = Machines(
        retention_days=kept,
        replication=replication,
        broker_disk_gb=broker_disk_gb,
        broker_mb_s=broker_mb_s,
        redis_node_gb=redis_node_gb,
        redis_replicas=redis_replicas,
    ).check()
    prices = Prices(
        core_price=core_price, memory_gb_price=memory_gb_price, disk_gb_price=disk_gb_price
    ).check()
    unit_costs = read_costs(_costs_file(costs, settings), machine())
    configured = Configured.by(settings)
    made = make_plan(demand, machines, configured, unit_costs)
    limits = find_limits(made, demand, machines, unit_costs)
    growth = grow(demand, machines, configured, unit_costs, limits)
    inputs = _inputs(demand, machines, retention_days is not None, settings, unit_costs)
    bill = money(made, machines, prices)
    if json:
        print_json({**_told(made, limits, growth, inputs, bill), "notes": _notes(made)})
    else:
        print_plan(made, limits, growth, inputs, bill, _notes(made))


def _costs_file(given: Path | None, settings: Settings) -> Path | None:
    if given is not None:
        if not given.is_file():
            raise SettingsError(f"--costs {given} is no file; `headwater bench ingest` writes one")
        return given
    path = costs_path(settings)
    return path if path.is_file() else None


def _inputs(
    demand: Demand,
    machines: Machines,
    retention_given: bool,
    settings: Settings,
    unit_costs: dict[str, Input],
) -> list[Input]:
    """Everything that the plan is made of, in the order in which it is asked for."""

    def given(name: str, value: float, unit: str, meaning: str) -> Input:
        option = f"--{name.replace('_', '-')}"
        return Input(name, value, unit, "given", option, meaning)

    known = given("known_users", demand.known, "", "users with an event within store.user_days")
    if demand.known_users is None:
        source = f"{KNOWN_FACTOR:g} times those of a day; --known-users says otherwise"
        known = replace(known, kind="assumed", source=source)
    kept = given("retention_days", machines.retention_days, "days", "how long events are kept")
    if not retention_given:
        kept = replace(kept, kind="setting", source="kafka.retention_hours")
    store = settings.store
    return [
        given("daily_users", demand.daily_users, "", "users of a day"),
        given("actions_per_user", demand.actions_per_user, "a day", "what one does"),
        given("events_per_action", demand.events_per_action, "", "events of an action"),
        given("requests_per_action", demand.requests_per_action, "", "requests of an action"),
        given("items", demand.items, "", "items of the catalogue"),
        given("peak", demand.peak, "times", "the busiest second against the average one"),
        known,
        kept,
        given("replication", machines.replication, "", "copies of the log"),
        given("broker_disk_gb", machines.broker_disk_gb, "GB", "disk of a broker"),
        given("broker_mb_s", machines.broker_mb_s, "MB/s", "what a broker carries each way"),
        given("redis_node_gb", machines.redis_node_gb, "GB", "memory of a Redis node"),
        given("redis_replicas", machines.redis_replicas, "", "replicas of each Redis primary"),
        Input("history", store.history, "events", "setting", "store.history", "kept of a user"),
        *unit_costs.values(),
        *ASSUMED.values(),
    ]


def _notes(made: Plan) -> list[str]:
    """What is not in it."""
    notes = [
        "Events that come over HTTP cost a server something, too, which is not measured.",
        "That so many machines do so many times the work of one is assumed.",
    ]
    if made.redis.primaries > 1:
        notes.append(
            f"{made.redis.primaries:,} Redis primaries are a Redis Cluster: docs/design.md says "
            "what of that was run."
        )
    return notes


def _told(
    made: Plan,
    limits: Sequence[Limit],
    growth: Sequence[Growth],
    inputs: Sequence[Input],
    bill: dict[str, float] | None,
) -> dict[str, Any]:
    return {
        **_sizes(made),
        "cost_per_month": bill and {part: _figure(price) for part, price in bill.items()},
        "limits": [_limit(one) for one in limits],
        "growth": {
            str(one.factor): {
                "breaks_first": _name(one.first(at_once=True)),
                "breaks_first_autoscaled": _name(one.first(at_once=True, scaled=True)),
                "breaks_first_in_weeks": _name(one.first(at_once=False)),
                "breaks": [limit.name for limit in one.breaks],
                "needs": _sizes(one.needs),
            }
            for one in growth
        },
        "assumptions": [{**asdict(one), "value": _figure(one.value)} for one in inputs],
    }


def _sizes(made: Plan) -> dict[str, Any]:
    rates, kafka, redis = made.rates, made.kafka, made.redis
    return {
        "average_rps": _figure(rates.average_rps),
        "peak_rps": _figure(rates.peak_rps),
        "average_events_per_second": _figure(rates.average_events),
        "peak_events_per_second": _figure(rates.peak_events),
        "kafka": {
            "storage_bytes": _figure(kafka.storage_bytes),
            "in_bytes_per_second": _figure(kafka.in_bytes),
            "out_bytes_per_second": _figure(kafka.out_bytes),
            "partitions": kafka.partitions,
            "brokers": kafka.brokers,
            "cores": kafka.cores,
        },
        "redis": {
            "memory_bytes": _figure(redis.memory_bytes),
            "bytes_per_user": _figure(redis.user_bytes),
            "cores_busy": _figure(redis.cores_busy),
            "primaries": redis.primaries,
            "nodes": redis.nodes,
            "shards": redis.shards,
        },
        "workers": made.workers.count,
        "worker_cores_busy": _figure(made.workers.cores_busy),
        "servers": made.servers.count,
        "server_cores_busy": _figure(made.servers.cores_busy),
        "replay_hours": _figure(made.replay_hours),
    }


def _name(one: Limit | None) -> str | None:
    return one.name if one else None


def _limit(one: Limit) -> dict[str, Any]:
    return {
        "name": one.name,
        "full_at": _figure(one.full_at),
        "at_once": one.at_once,
        "autoscaled": one.elastic,
        "then": one.then,
        "mend": one.mend,
    }


def _figure(value: float) -> float:
    """Without digits that mean nothing: whole from 100 on, four of them below."""
    return round(value) if value >= 100 else float(f"{value:.4g}")
