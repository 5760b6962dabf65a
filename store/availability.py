"""Which items of the catalogue are not available: a hash for each item shard, by item.

It is written with the entries (`lua/commit_catalogue.lua`), so that readers, who must leave such
items out of every answer, need not read the entry of each candidate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from redis.asyncio import Redis

from store.keys import Keys, id_bytes
from streams.columns import U64, Bool

__all__ = ["Availability"]

_AT_ONCE = 5000
"""Items of one step through a hash, about."""


class Availability:
    """Reads them. Raises redis.RedisError."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def unavailable(self) -> U64:
        """(k,) all items (hashes) that are not available, some perhaps twice."""
        found: list[Any] = []
        for prefix in self._keys.items:
            cursor = -1
            while cursor:
                cursor, some = await self._redis.hscan(
                    self._keys.unavailable(prefix), max(cursor, 0), count=_AT_ONCE
                )
                found += some
        return np.frombuffer(b"".join(found), "<u8").astype(np.uint64)

    async def are_unavailable(self, items: U64) -> Bool:
        """(k,) whether each item (a hash) is not available."""
        shard = self._keys.shard_of(items)
        found = np.zeros(len(items), np.bool_)
        for s, prefix in enumerate(self._keys.items):
            if (shard == s).any():
                names: Any = id_bytes(items[shard == s])
                told = await self._redis.hmget(self._keys.unavailable(prefix), names)
                found[shard == s] = [one is not None for one in told]
        return found
