"""Events a second from Kafka to committed, by workers that find them in the log."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from benchmarks.report import machine, spread
from benchmarks.setup import measuring_stack, produce, until_counted
from benchmarks.workload import make_workload, records
from config.settings import Settings

__all__ = ["measure_ingest"]

log = structlog.get_logger("headwater.bench")

_LIMIT_SECONDS = 300
_SEED = 7


async def measure_ingest(
    settings: Settings, *, events: int, items: int, users: int, rounds: int, workers: int
) -> dict[str, Any]:
    """Rounds on fresh services each: all events are in Kafka before the workers start.

    The clock runs from the first commit to the last, so that starting up does not count; the
    events of that first commit do not count either.
    """
    rates = []
    for number in range(rounds):
        load = make_workload(events, items, users, _SEED + number)
        async with measuring_stack(settings, workers=0, processes=0) as stack:
            await asyncio.to_thread(produce, stack.settings, records(load))
            stack.start_workers(workers)
            seen = await until_counted(stack.settings, events, _LIMIT_SECONDS)
        (begin, first), (end, last) = seen[0], seen[-1]
        rates.append((last - first) / (end - begin))
        log.info("round", number=number + 1, events_per_second=round(rates[-1]))
    result = spread(rates)
    return {
        "events_per_second": result["median"],
        "spread": result,
        "rounds": rounds,
        "events": events,
        "items": items,
        "users": users,
        "workers": workers,
        "machine": machine(),
    }
