"""Deletes a generation's keys, a few at a time, while Redis goes on answering."""

from __future__ import annotations

from collections.abc import AsyncIterator

from redis.asyncio import Redis

from store.keys import Keys

__all__ = ["delete_keys"]

_AT_ONCE = 1000


async def delete_keys(redis: Redis, keys: Keys) -> AsyncIterator[int]:
    """Yields how many keys were deleted, some at a time. Raises redis.RedisError.

    UNLINK leaves the freeing of memory to a thread of Redis's own.
    """
    some: list[bytes] = []
    async for key in redis.scan_iter(match=keys.own_pattern, count=_AT_ONCE):
        some.append(key)
        if len(some) == _AT_ONCE:
            yield await redis.unlink(*some)
            some.clear()
    if some:
        yield await redis.unlink(*some)
