"""A reader for many requests at once: what all of them want is read by one while the rest wait.

Without it every request of the moment in which trending grows old reads it again, hundreds of
commands each.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from redis.asyncio import Redis

from config.settings import Settings
from serving.rank import Knowledge
from store.reader import StoreReader, Trending

__all__ = ["SharedReader"]


class SharedReader(StoreReader):
    """A StoreReader whose slow-changing parts are read by one request at a time."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        super().__init__(redis, settings)
        self._windows: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._totals = asyncio.Lock()

    async def knowledge(self) -> Knowledge:
        """Totals and repeat prior, at most a second old."""
        async with self._totals:
            return await super().knowledge()

    async def trending(self, window: str) -> Trending:
        """Items of a window, at most a second old."""
        async with self._windows[window]:
            return await super().trending(window)
