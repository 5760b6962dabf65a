"""What an event, a request, a user and an item cost: the shipped figures, and those measured here.

Shipped figures are the medians of docs/performance.md; `make bench` writes them. A figure that
`headwater bench` has measured goes over the shipped one; each says where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

__all__ = ["HISTORY_MEASURED", "SHIPPED", "Input", "Kind", "costs_of"]

Kind = Literal["measured here", "measured elsewhere", "shipped", "setting", "given", "assumed"]

HISTORY_MEASURED = 20
"""Events that `user_bytes` is measured with."""


@dataclass(frozen=True, slots=True)
class Input:
    """One number that a plan is made of, and where it comes from."""

    name: str
    value: float
    unit: str
    kind: Kind
    source: str
    meaning: str


_FIGURES: dict[str, float] = msgspec.json.decode(
    Path(__file__).with_name("shipped.json").read_bytes(), type=dict[str, float]
)


def _shipped(name: str, unit: str, section: str, meaning: str) -> Input:
    source = f"docs/performance.md, {section}"
    return Input(name, _FIGURES[name], unit, "shipped", source, meaning)


SHIPPED = {
    one.name: one
    for one in (
        _shipped(
            "worker_event_us",
            "µs",
            "Events in",
            "a worker's time for an event, its waiting for Redis included, on a core of its own",
        ),
        _shipped("redis_event_us", "µs", "Events in", "Redis's processor time for an event"),
        _shipped("kafka_event_us", "µs", "Events in", "a broker's processor time for an event"),
        _shipped("kafka_event_bytes", "bytes", "Events in", "an event in Kafka's log"),
        _shipped(
            "server_request_us",
            "µs",
            "Answers out",
            "a server's time for a recommendation request, on a core of its own",
        ),
        _shipped("redis_request_us", "µs", "Answers out", "Redis's processor time for a request"),
        _shipped("user_bytes", "bytes", "Memory", "a user with 20 events in Redis, keys included"),
        _shipped(
            "item_bytes",
            "bytes",
            "Memory",
            "an item with 100 neighbours and its trending in Redis, keys included",
        ),
        _shipped(
            "event_growth",
            "times",
            "Growth",
            "how much dearer an event is in a large store (the most that was seen)",
        ),
        _shipped(
            "request_growth",
            "times",
            "Growth",
            "how much dearer a request is in a large store (the most that was seen)",
        ),
    )
}
"""By name, what is assumed of a machine that was not measured."""


def costs_of(bench: str, result: Mapping[str, Any]) -> dict[str, float]:
    """The unit costs in what `headwater bench` found; none where it says nothing of them.

    Several workers or server processes on one machine take each other's time: of these, nothing is
    taken.
    """
    if result.get("workers", 1) != 1 or result.get("processes", 1) != 1:
        return {}
    found = _TAKEN[bench](result) if bench in _TAKEN else {}
    return {name: value for name, value in found.items() if value > 0}


def _of_ingest(result: Mapping[str, Any]) -> dict[str, float]:
    costs = result["microseconds_per_event"]
    alone, together = costs["alone"], costs["together"]
    return {
        "worker_event_us": round(1e6 / result["events_per_second"], 2),
        "redis_event_us": _median(alone, "redis"),
        "kafka_event_us": _median(together, "kafka"),
        "kafka_event_bytes": result.get("log_bytes_per_event", 0),
    }


def _of_serve(result: Mapping[str, Any]) -> dict[str, float]:
    # `--overload` finds the same capacity in another way, and no costs.
    if "microseconds_per_request" not in result:
        return {}
    return {
        "server_request_us": round(1e6 / result["requests_per_second"], 1),
        "redis_request_us": _median(result["microseconds_per_request"], "redis"),
    }


def _of_memory(result: Mapping[str, Any]) -> dict[str, float]:
    return {"user_bytes": result["bytes_per_user"], "item_bytes": result["bytes_per_item"]}


def _of_growth(result: Mapping[str, Any]) -> dict[str, float]:
    ratios = result["greatest_by_least"]

    def most(what: str) -> float:
        return max((ratios.get(f"{what}_by_{axis}") or 0 for axis in ("items", "users")), default=0)

    return {"event_growth": most("event"), "request_growth": most("request")}


def _median(costs: Mapping[str, Mapping[str, float]], process: str) -> float:
    """0 where the system does not tell processor times."""
    return costs[process]["median"] if process in costs else 0


_TAKEN: dict[str, Callable[[Mapping[str, Any]], dict[str, float]]] = {
    "ingest": _of_ingest,
    "serve": _of_serve,
    "memory": _of_memory,
    "growth": _of_growth,
}
