"""Bytes that Redis needs for a user and for an item."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from benchmarks.report import machine
from benchmarks.setup import measuring_stack, produce, until_counted
from benchmarks.workload import make_workload, records
from config.settings import Settings
from store.connect import connect
from store.keys import Keys
from streams.columns import U64, hash_id

__all__ = ["measure_memory"]

_LIMIT_SECONDS = 600
_SEED = 17
_SAMPLE = 2000


async def measure_memory(
    settings: Settings, *, events: int, items: int, users: int
) -> dict[str, Any]:
    """Fold events, then ask Redis (MEMORY USAGE) about a sample of users and items."""
    load = make_workload(events, items, users, _SEED)
    async with measuring_stack(settings, workers=1, processes=0) as stack:
        await asyncio.to_thread(produce, stack.settings, records(load))
        await until_counted(stack.settings, events, _LIMIT_SECONDS)
        redis = connect(stack.settings)
        keys = Keys(stack.settings.store)
        rng = np.random.default_rng(_SEED)
        some_users = _sample(rng, load.user, "user-")
        some_items = _sample(rng, load.item, "item-")
        try:
            per_user = await _usage(redis, [keys.sessions(some_users)])
            per_item = await _usage(redis, [keys.neighbours(some_items), keys.names(some_items)])
            used = int((await redis.info("memory"))["used_memory"])
            count = await redis.dbsize()
        finally:
            await redis.aclose()
    return {
        "bytes_per_user": round(per_user),
        "bytes_per_item": round(per_item),
        "events_per_user": round(events / len(np.unique(load.user)), 1),
        "used_memory": used,
        "keys": count,
        "events": events,
        "items": items,
        "users": users,
        "machine": machine(),
    }


def _sample(rng: np.random.Generator, numbers: Any, head: str) -> U64:
    known = np.unique(numbers)
    chosen = rng.choice(known, min(_SAMPLE, len(known)), replace=False)
    return np.array([hash_id(f"{head}{number}") for number in chosen.tolist()], np.uint64)


async def _usage(redis: Any, kinds: list[list[bytes]]) -> float:
    """Mean bytes of keys, the kinds of one thing added up."""
    total = 0
    for kind in kinds:
        pipeline = redis.pipeline(transaction=False)
        for key in kind:
            pipeline.memory_usage(key, samples=0)
        total += sum(size or 0 for size in await pipeline.execute())
    return total / len(kinds[0])
