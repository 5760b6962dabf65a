"""Events a second when everything is rebuilt from the log, into an empty Redis, on all cores.

All events are in Kafka before the workers start. The clock runs from the first commit to the last:
starting up does not count, nor do the events of the first commit.
"""

from __future__ import annotations

from typing import Any

import structlog

from benchmarks.counted import Steady
from benchmarks.ingest import count_log, filled_log
from benchmarks.report import machine, spread, spreads
from benchmarks.setup import measuring_stack
from config.settings import Settings

__all__ = ["measure_replay"]

log = structlog.get_logger("headwater.bench")


async def measure_replay(
    settings: Settings, *, events: int, items: int, users: int, rounds: int, workers: list[int]
) -> dict[str, Any]:
    """Rounds with each number of workers, in turns. `events_per_second` is of the best number."""
    shop = {"events": events, "items": items, "users": users}
    found: dict[int, list[Steady]] = {count: [] for count in workers}
    async with measuring_stack(settings) as stack:
        await filled_log(stack.settings, **shop)
        for number in range(rounds):
            for count, rounds_of in found.items():
                rounds_of.append(await count_log(stack, events, count, pinned=False, warm_up=0))
                rate = round(rounds_of[-1].rate)
                log.info("round", number=number + 1, workers=count, events_per_second=rate)
    rates = {str(count): spread([one.rate for one in some]) for count, some in found.items()}
    return {
        "events_per_second": max(rate["median"] for rate in rates.values()),
        "by_workers": rates,
        "microseconds_per_event": {
            str(count): spreads([one.cpu for one in some]) for count, some in found.items()
        },
        "rounds": rounds,
        **shop,
        "machine": machine(),
    }
