"""How many of everything: rates, Kafka, Redis, workers and servers for a demand.

Pure arithmetic. Whole things are rounded up; nothing is sized to more than the share of it that
`ASSUMED` says may be busy or full. Nothing here is lower for more users, a higher peak or dearer
costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from config.settings import Settings
from planning.demand import Demand, Machines, Prices
from planning.unit_costs import HISTORY_MEASURED, Input

__all__ = [
    "ASSUMED",
    "Configured",
    "Kafka",
    "Plan",
    "Rates",
    "Redis",
    "Workload",
    "make_plan",
    "money",
]

DAY_SECONDS = 86_400
CLUSTER_LEAST = 3
"""Primaries that a Redis Cluster has at least; one alone needs none."""
LEAST_PROCESSES = 2
"""Workers, and server processes: one may fail, or be replaced."""
REDIS_NODE_CORES = 2
"""One that executes commands, one for what goes on beside: the append-only file, replicas."""


def _assumed(name: str, value: float, unit: str, meaning: str) -> Input:
    return Input(name, value, unit, "assumed", "planning/capacity.py", meaning)


ASSUMED = {
    one.name: one
    for one in (
        _assumed(
            "server_busy",
            0.7,
            "share",
            "of a server's core at the peak: latencies were measured so",
        ),
        _assumed(
            "worker_busy",
            0.5,
            "share",
            "of a worker's time at the peak: a backlog goes in as long as it took to grow",
        ),
        _assumed("redis_busy", 0.5, "share", "of a Redis primary's one core at the peak"),
        _assumed("kafka_busy", 0.5, "share", "of a broker's cores at the peak"),
        _assumed(
            "redis_full",
            0.6,
            "share",
            "of a Redis node's memory: the rest is for fragmentation, and for the copies that "
            "writing the append-only file anew makes",
        ),
        _assumed("disk_full", 0.7, "share", "of a broker's disk"),
        _assumed(
            "generations", 2, "", "a replay counts a second view of the log beside the live one"
        ),
        _assumed("readers", 2, "", "groups that read the log: the workers, and a replay or mirror"),
        _assumed("partition_room", 10, "times", "the peak that partitions leave room for"),
        _assumed(
            "more_event_bytes", 17, "bytes", "a user's event past the 20th (store/vectors.py)"
        ),
        _assumed("catalogue_bytes", 500, "bytes", "an item's catalogue entry: as it came"),
    )
}
"""By name, what no bench measures."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests and events a second."""

    average_rps: float
    peak_rps: float
    average_events: float
    peak_events: float


@dataclass(frozen=True, slots=True)
class Kafka:
    """Of the topic of events."""

    storage_bytes: float
    """All replicas."""
    in_bytes: float
    """A second at the peak, what replicas receive included."""
    out_bytes: float
    """A second at the peak: to replicas and to those that read."""
    partitions: int
    brokers: int
    cores: int


@dataclass(frozen=True, slots=True)
class Redis:
    """The view of the log."""

    user_bytes: float
    """Of one user."""
    memory_bytes: float
    """Of one copy of all: replicas have as much again."""
    cores_busy: float
    """At the peak, of all primaries together."""
    primaries: int
    nodes: int
    shards: int
    """`store.shards` that this takes."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Workers, or server processes: each has a core."""

    cores_busy: float
    """At the peak, all together."""
    count: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a demand takes."""

    rates: Rates
    kafka: Kafka
    redis: Redis
    workers: Workload
    servers: Workload
    replay_hours: float
    """To count the whole log anew with these workers, and nothing else."""


@dataclass(frozen=True, slots=True)
class Configured:
    """Settings that a plan does not fall below."""

    history: int
    shards: int
    partitions: int

    @classmethod
    def by(cls, settings: Settings) -> Configured:
        """Those in use."""
        store = settings.store
        return cls(store.history, store.shards, settings.kafka.partitions)


def make_plan(
    demand: Demand,
    machines: Machines,
    configured: Configured,
    costs: Mapping[str, Input],
    assumed: Mapping[str, Input] = ASSUMED,
) -> Plan:
    """Size everything. `costs` are those of `unit_costs.py`, by name."""
    cost = {name: one.value for name, one in costs.items()}
    share = {name: one.value for name, one in assumed.items()}
    actions = demand.daily_users * demand.actions_per_user / DAY_SECONDS
    requests = actions * demand.requests_per_action
    events = actions * demand.events_per_action
    rates = Rates(requests, demand.peak * requests, events, demand.peak * events)

    event_us = cost["worker_event_us"] * cost["event_growth"]
    workers_busy = rates.peak_events * event_us / 1e6
    workers = _at_least(LEAST_PROCESSES, workers_busy / share["worker_busy"])
    servers_busy = rates.peak_rps * cost["server_request_us"] * cost["request_growth"] / 1e6
    servers = _at_least(LEAST_PROCESSES, servers_busy / share["server_busy"])

    roomy = share["partition_room"] * workers_busy / share["worker_busy"]
    partitions = max(configured.partitions, _power_of_two(_at_least(workers, roomy)))
    redis = _redis(demand, machines, configured, rates, cost, share)
    kept = rates.average_events * DAY_SECONDS * machines.retention_days
    redis_event_us = cost["redis_event_us"] * cost["event_growth"]
    fastest = min(workers / event_us, redis.primaries / redis_event_us) * 1e6
    return Plan(
        rates,
        _kafka(machines, rates, partitions, cost, share),
        redis,
        Workload(workers_busy, workers),
        Workload(servers_busy, servers),
        kept / fastest / 3600,
    )


def _kafka(
    machines: Machines,
    rates: Rates,
    partitions: int,
    cost: Mapping[str, float],
    share: Mapping[str, float],
) -> Kafka:
    size, copies = cost["kafka_event_bytes"], int(machines.replication)
    storage = rates.average_events * DAY_SECONDS * machines.retention_days * size * copies
    arriving = rates.peak_events * size * copies
    leaving = rates.peak_events * size * (copies - 1 + share["readers"])
    busy = rates.peak_events * cost["kafka_event_us"] * copies / 1e6
    network = machines.broker_mb_s * 1e6
    brokers = _at_least(
        copies,
        arriving / network,
        leaving / network,
        storage / (machines.broker_disk_gb * 1e9 * share["disk_full"]),
    )
    cores = _at_least(brokers, busy / share["kafka_busy"])
    return Kafka(storage, arriving, leaving, partitions, brokers, cores)


def _redis(
    demand: Demand,
    machines: Machines,
    configured: Configured,
    rates: Rates,
    cost: Mapping[str, float],
    share: Mapping[str, float],
) -> Redis:
    more = max(0, configured.history - HISTORY_MEASURED)
    user = cost["user_bytes"] + more * share["more_event_bytes"]
    item = cost["item_bytes"] + share["catalogue_bytes"]
    memory = share["generations"] * (demand.known * user + demand.items * item)
    busy = (
        rates.peak_events * cost["redis_event_us"] * cost["event_growth"]
        + rates.peak_rps * cost["redis_request_us"] * cost["request_growth"]
    ) / 1e6
    primaries = _at_least(
        1,
        memory / (machines.redis_node_gb * 1e9 * share["redis_full"]),
        busy / share["redis_busy"],
    )
    if primaries > 1:
        primaries = max(CLUSTER_LEAST, primaries)
    nodes = primaries * (1 + int(machines.redis_replicas))
    return Redis(user, memory, busy, primaries, nodes, max(configured.shards, primaries))


def money(plan: Plan, machines: Machines, prices: Prices) -> dict[str, float] | None:
    """By part and in all, a month's cost of what has a price; None where nothing has.

    Memory is Redis's, disks are Kafka's, each with what may not be filled.
    """
    given = (prices.core_price, prices.memory_gb_price, prices.disk_gb_price)
    if all(price is None for price in given):
        return None
    core, memory, disk = (price or 0 for price in given)
    parts = {
        "servers": plan.servers.count * core,
        "workers": plan.workers.count * core,
        "kafka": plan.kafka.cores * core + plan.kafka.brokers * machines.broker_disk_gb * disk,
        "redis": plan.redis.nodes * (REDIS_NODE_CORES * core + machines.redis_node_gb * memory),
    }
    return {**parts, "total": sum(parts.values())}


def _at_least(least: int, *wanted: float) -> int:
    """The least whole number that is not below any of these."""
    return max(least, *(math.ceil(one) for one in wanted))


def _power_of_two(least: int) -> int:
    """So many partitions are shared out evenly among 2, 4, 8, … workers."""
    return 1 << (least - 1).bit_length()
