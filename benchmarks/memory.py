"""Bytes that Redis needs for a user with 20 events, and for an item with 100 neighbours or more.

A worker counts a shop in which every user has exactly 20 events (with event_ids) and items are seen
often enough that nearly all lists are full and were compacted again and again. Then everything but
the users' keys is deleted, and at last these. What `used_memory` falls by is what each kind takes,
with all that Redis spends on keys, and with lists, statistics, names and trending of an item.
`MEMORY USAGE` of single keys is the check; it knows nothing of the table of keys.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
from redis.asyncio import Redis

from benchmarks.counted import until_counted
from benchmarks.helper import Helper
from benchmarks.ingest import sender_setup
from benchmarks.report import machine
from benchmarks.setup import empty_redis, measuring_stack
from config.errors import StoreError
from config.settings import Settings
from store.connect import connect
from store.keys import Keys
from store.lists import list_bound
from store.reader import StoreReader
from streams.columns import U64, hash_names

__all__ = ["EVENTS_PER_USER", "measure_memory"]

EVENTS_PER_USER = 20
_SESSION_LENGTH = 5
_SKEW = 0.3
_SEED = 17
_LIMIT_SECONDS = 600
_SAMPLE = 2000
_AT_ONCE = 5000
_POLL_SECONDS = 0.2
_DELETED_AT_ONCE = 100


async def measure_memory(settings: Settings, *, items: int, users: int) -> dict[str, Any]:
    """Count 20 events of each user, then take the store apart."""
    events = EVENTS_PER_USER * users
    async with measuring_stack(settings) as stack:
        setup = sender_setup(
            stack.settings,
            events=events,
            items=items,
            users=users,
            seed=_SEED,
            session_length=_SESSION_LENGTH,
            skew=_SKEW,
        )
        stack.start_workers(1)
        async with Helper("benchmarks.sender", setup) as sender:
            await sender.ask({"events": events})
            await until_counted(stack.settings, events, _LIMIT_SECONDS)
        redis = connect(stack.settings)
        try:
            await _until_compacted(redis, stack.settings, items)
            await stack.stop_workers()
            sampled = await _sampled(redis, stack.settings, items, users)
            taken = await _take_apart(redis, Keys(stack.settings.store))
        finally:
            await redis.aclose()
    return {
        "bytes_per_user": round(taken["user"] / users),
        "bytes_per_item": round(taken["item"] / items),
        **sampled,
        "events_per_user": EVENTS_PER_USER,
        "events_per_item": round(events / items),
        "used_memory_of_all": taken["user"] + taken["item"],
        "bytes_by_kind": taken["kinds"],
        "keys_by_kind": taken["keys"],
        "events": events,
        "items": items,
        "users": users,
        "machine": machine(),
    }


async def _until_compacted(redis: Redis, settings: Settings, items: int) -> None:
    """Wait until the worker has caught up with lists that grew in the backlog.

    Raises StoreError when it does not.
    """
    names = hash_names([f"item-{number}".encode() for number in range(items)])
    lists = Keys(settings.store).neighbours(names)
    bound = list_bound(settings.store)
    limit = time.monotonic() + _LIMIT_SECONDS
    while True:
        pipeline = redis.pipeline(transaction=False)
        for key in lists:
            pipeline.strlen(key)
        longer = sum(length > bound for length in await pipeline.execute())
        if not longer:
            return
        if time.monotonic() > limit:
            raise StoreError(f"{longer} lists are still to be compacted: see the worker's log")
        await asyncio.sleep(_POLL_SECONDS)


async def _sampled(redis: Redis, settings: Settings, items: int, users: int) -> dict[str, Any]:
    """How full lists are, and MEMORY USAGE of some users and of items with full lists."""
    rng = np.random.default_rng(_SEED)
    keys, reader = Keys(settings.store), StoreReader(redis, settings)
    some = rng.choice(items, min(_SAMPLE, items), replace=False).tolist()
    hashes = hash_names([f"item-{number}".encode() for number in some])
    counts = np.array([len((await reader.item(int(item))).neighbour) for item in hashes])
    full = hashes[counts >= settings.store.neighbours]
    if not len(full):
        raise StoreError("no item has a full list: measure with more users or fewer items")
    chosen = rng.choice(users, min(_SAMPLE, users), replace=False).tolist()
    asked = hash_names([f"user-{number}".encode() for number in chosen])
    return {
        "neighbours_per_item": round(float(counts.mean()), 1),
        "items_with_full_lists": round(len(full) / len(hashes), 3),
        "memory_usage_per_user": round(await _usage(redis, keys.users, asked)),
        "memory_usage_per_full_item": round(await _usage(redis, keys.items, full)),
    }


async def _usage(redis: Redis, prefixes: list[bytes], ids: U64) -> float:
    """Mean MEMORY USAGE of all keys of a user or item together."""
    wanted = {one.tobytes() for one in ids.astype("<u8")}
    total = 0
    for prefix in prefixes:
        keys = [
            key
            async for key in redis.scan_iter(match=prefix + b"*", count=_AT_ONCE)
            if len(key) == len(prefix) + 9 and key[-8:] in wanted
        ]
        for first in range(0, len(keys), _AT_ONCE):
            pipeline = redis.pipeline(transaction=False)
            for key in keys[first : first + _AT_ONCE]:
                pipeline.memory_usage(key, samples=0)
            total += sum(size or 0 for size in await pipeline.execute())
    return total / len(ids)


async def _take_apart(redis: Redis, keys: Keys) -> dict[str, Any]:
    """Delete one kind of keys after the other, users' last; what each has freed."""
    found: dict[str, list[bytes]] = {}
    async for key in redis.scan_iter(match=keys.own_pattern, count=_AT_ONCE):
        found.setdefault(_kind(key), []).append(key)
    users = found.pop("us", [])
    # What is deleted has to be gone at once, not in the background.
    await redis.config_set("lazyfree-lazy-user-del", "no")
    freed: dict[str, int] = {}
    for kind, some in found.items():
        before = await _used(redis)
        # Few at a time: the buffer of a long command would count.
        for first in range(0, len(some), _DELETED_AT_ONCE):
            await redis.delete(*some[first : first + _DELETED_AT_ONCE])
        freed[kind] = before - await _used(redis)
    before = await _used(redis)
    await empty_redis(redis)
    # The table of keys goes with the users' keys, which it is large for.
    freed["us"] = before - await _used(redis)
    per_item = sum(size for kind, size in freed.items() if kind.startswith("i"))
    counts = {kind: len(some) for kind, some in {**found, "us": users}.items()}
    return {"user": freed["us"], "item": per_item, "kinds": freed, "keys": counts}


def _kind(key: bytes) -> str:
    """Whose it is (i, u or g) and its letter: `hw{1.i3}n…` is "in"."""
    _, _, rest = key.partition(b".")
    return chr(rest[0]) + chr(rest[rest.index(b"}") + 1])


async def _used(redis: Redis) -> int:
    """Bytes in use, without the buffers of connections and of the append-only file."""
    found = await redis.info("memory")
    buffers = int(found["mem_clients_normal"]) + int(found["mem_aof_buffer"])
    return int(found["used_memory"]) - buffers
