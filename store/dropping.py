"""Deletes keys of a generation, or of a tenant, a few at a time, while Redis goes on answering."""

from __future__ import annotations

from collections.abc import AsyncIterator

from redis.asyncio import Redis

from config.settings import StoreSettings
from store.keys import Keys

__all__ = ["delete_keys", "delete_namespace"]

_AT_ONCE = 1000


def delete_keys(redis: Redis, keys: Keys) -> AsyncIterator[int]:
    """Yields how many keys of a generation were deleted, some at a time. Raises redis.RedisError.

    UNLINK leaves the freeing of memory to a thread of Redis's own.
    """
    return _delete(redis, keys.own_pattern)


def delete_namespace(redis: Redis, settings: StoreSettings) -> AsyncIterator[int]:
    """The same with all that a namespace has: whatever there is of a tenant."""
    return _delete(redis, Keys(settings).pattern)


async def _delete(redis: Redis, pattern: bytes) -> AsyncIterator[int]:
    some: list[bytes] = []
    async for key in redis.scan_iter(match=pattern, count=_AT_ONCE):
        some.append(key)
        if len(some) == _AT_ONCE:
            yield await redis.unlink(*some)
            some.clear()
    if some:
        yield await redis.unlink(*some)
