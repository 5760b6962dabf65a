"""What is full first as users become more: of everything that a plan has, how far it reaches.

A plan leaves room, so nothing breaks at its own peak. `find_limits` says at how many times as many
users each part is full if nobody adds any, and what then happens; `grow` what breaks, and what is
needed, at ten and at a hundred times. Rates follow users at once; memory and disks fill up in the
weeks after, as new users become known and old events stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planning.capacity import ASSUMED, Configured, Plan, make_plan
from planning.demand import Demand, Machines
from planning.unit_costs import Input

__all__ = ["FACTORS", "MOST_SHARDS", "Growth", "Limit", "find_limits", "grow"]

FACTORS = (10, 100)
MOST_SHARDS = 256
"""What `store.shards` allows."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One part of a plan."""

    name: str
    full_at: float
    """Times as many users."""
    at_once: bool
    """Whether more users are felt at once, or as they fill something up."""
    elastic: bool
    """Whether an autoscaler mends it within minutes."""
    then: str
    """What is seen when it is full."""
    mend: str


@dataclass(frozen=True, slots=True)
class Growth:
    """So many times as many users."""

    factor: int
    breaks: tuple[Limit, ...]
    """What is full by then if nothing is added, first things first."""
    needs: Plan
    """What it takes."""

    def first(self, *, at_once: bool, scaled: bool = False) -> Limit | None:
        """What breaks first of what is felt at once, or of what fills up; None: nothing does.

        `scaled`: workers and servers are added by themselves.
        """
        for one in self.breaks:
            if one.at_once == at_once and not (scaled and one.elastic):
                return one
        return None


def find_limits(
    plan: Plan,
    demand: Demand,
    machines: Machines,
    costs: Mapping[str, Input],
    assumed: Mapping[str, Input] = ASSUMED,
) -> list[Limit]:
    """All parts, the first that is full first."""
    share = {name: one.value for name, one in assumed.items()}
    event_us = costs["worker_event_us"].value * costs["event_growth"].value
    kafka, redis = plan.kafka, plan.redis
    node = machines.redis_node_gb * 1e9 * share["redis_full"]
    item_bytes = costs["item_bytes"].value + share["catalogue_bytes"]
    of_items = share["generations"] * demand.items * item_bytes
    of_users = share["generations"] * demand.known * redis.user_bytes
    network = kafka.brokers * machines.broker_mb_s * 1e6
    disks = kafka.brokers * machines.broker_disk_gb * 1e9
    limits = [
        Limit(
            "server processes",
            plan.servers.count / plan.servers.cores_busy,
            True,
            True,
            "some requests get 503 with Retry-After, the others are answered as quickly as ever",
            "more servers: minutes, by the autoscaler",
        ),
        Limit(
            "workers",
            plan.workers.count / plan.workers.cores_busy,
            True,
            True,
            "lag grows: answers are complete and know nothing newer; nothing is lost",
            "more workers, up to one for each partition: minutes, by the autoscaler",
        ),
        Limit(
            "partitions",
            kafka.partitions / (plan.rates.peak_events * event_us / 1e6),
            True,
            False,
            "more workers would be idle: lag grows",
            "a new topic with more partitions (docs/operations.md)",
        ),
        Limit(
            "Redis processors",
            redis.primaries / redis.cores_busy,
            True,
            False,
            "reads and commits wait: answers come late, then degraded, and lag grows",
            "more primaries, slots moved while events flow",
        ),
        Limit(
            "Redis memory",
            (redis.primaries * node - of_items) / of_users,
            False,
            False,
            "first there is no room for a replay; then commits are refused (OOM) and answers know "
            "nothing newer until there is room",
            "larger nodes or more primaries; a shorter store.user_days or store.history",
        ),
        Limit(
            "store.shards",
            (MOST_SHARDS * node - of_items) / of_users,
            False,
            False,
            "a shard is not split over nodes: more nodes are of no use",
            "nodes with more memory",
        ),
        Limit(
            "Kafka network",
            network / max(kafka.in_bytes, kafka.out_bytes),
            True,
            False,
            "producers wait, POST /v1/events is 503 after three seconds",
            "more brokers, partitions moved to them",
        ),
        Limit(
            "Kafka disks",
            disks / kafka.storage_bytes,
            False,
            False,
            "a broker whose disk is full ends; reached only after the whole retention",
            "larger disks, more brokers, or a shorter retention",
        ),
    ]
    return sorted(limits, key=lambda one: one.full_at)


def grow(
    demand: Demand,
    machines: Machines,
    configured: Configured,
    costs: Mapping[str, Input],
    limits: Sequence[Limit],
    factors: Sequence[int] = FACTORS,
) -> list[Growth]:
    """What breaks, and what is needed, at each factor. `limits` are those of the plan."""
    found = []
    for factor in factors:
        full = tuple(one for one in limits if one.full_at < factor)
        needs = make_plan(demand.times(factor), machines, configured, costs)
        found.append(Growth(factor, full, needs))
    return found
