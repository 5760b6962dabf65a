"""Fills a store with a shop of the past, by the real fold and the real commits, without Kafka: in
batches as large as they come, which is several times as fast as sending and reading the events.

What lies in Redis afterwards is what workers would have written.
"""

from __future__ import annotations

import numpy as np
import structlog

from benchmarks.fold_step import FoldStep
from benchmarks.setup import until_log_written
from benchmarks.workload import Workload
from config.settings import Settings
from store.connect import connect
from streams.columns import I64, U64, EventColumns, hash_names

__all__ = ["fill_store"]

log = structlog.get_logger("headwater.bench")

_AT_ONCE = 50_000
_TOPIC = "filled-by-bench"
_EVENT_KEY_SEED = 0x9E3779B97F4A7C15


async def fill_store(
    settings: Settings,
    load: Workload,
    name: str = _TOPIC,
    make_step: type[FoldStep] = FoldStep,
) -> None:
    """Count a workload. `name` is that of its log, which nobody else may use.

    Redis writes no append-only file meanwhile, and a fresh one when all is counted.
    """
    redis = connect(settings)
    try:
        await redis.config_set("appendonly", "no")
        step = make_step(settings, redis)
        named: set[int] = set()
        users, items = _hashes("user-", load.user), _hashes("item-", load.item)
        view = list(settings.events.weights).index("view")
        for begin in range(0, len(load.user), _AT_ONCE):
            end = min(begin + _AT_ONCE, len(load.user))
            offset = np.arange(begin, end)
            numbers, first = np.unique(load.item[begin:end], return_index=True)
            names = {
                int(items[begin + place]): f"item-{number}".encode()
                for number, place in zip(numbers.tolist(), first.tolist(), strict=True)
                if number not in named
            }
            named.update(numbers.tolist())
            events = EventColumns(
                offset=offset,
                user=users[begin:end],
                item=items[begin:end],
                time=load.time[begin:end],
                kind=np.full(end - begin, view, np.uint8),
                # As if each had an event_id of its own.
                event=((offset + 1).astype(np.uint64) * np.uint64(_EVENT_KEY_SEED))
                >> np.uint64(24),
                tag=np.zeros(end - begin, np.uint32),
            )
            await step.commit(name, 0, events, names)
            if end % (20 * _AT_ONCE) == 0:
                log.info("filled", events=end, of=len(load.user))
        await step.compaction.finish()
        await redis.config_set("appendonly", "yes")
        await until_log_written(redis)
    finally:
        await redis.aclose()


def _hashes(head: str, numbers: I64) -> U64:
    """Hashes of the ids that these numbers stand for."""
    known, place = np.unique(numbers, return_inverse=True)
    hashes = hash_names([f"{head}{number}".encode() for number in known.tolist()])
    return hashes[place]
