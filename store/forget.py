"""Users are forgotten `store.user_days` after their last event was written, and when they ask.

Vectors carry the day of writing and are looked through little by little. Redis could expire them by
itself, but only where each is set by a command of its own: twice the price of every commit.

Who asks for it has a tombstone in the log, at which the commits of the live generation forget them.
Generations that are kept as they are come to that only if they are made the live one again, so
users are taken out of them at once. What such a user did between the offset of a kept generation
and the tombstone is then counted, if it ever is, as by somebody who was not known before.
"""

from __future__ import annotations

import re
import time

from redis.asyncio import Redis

from config.settings import Settings
from store.generations import Generations
from store.keys import SESSION, Keys
from store.scripts import Call, Scripts
from streams.columns import U64

__all__ = ["KeptGenerations", "UserSweep", "this_day"]

_KEYS_A_STEP = 1000


def this_day() -> int:
    """Days since 1970."""
    return int(time.time() // 86_400)


class UserSweep:
    """Goes through all keys, a step at a time, again and again."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._days = settings.store.user_days
        self._scripts = Scripts(redis)
        self._pattern = Keys(settings.store).pattern
        # Of any generation: one that is kept to go back to must forget as well.
        namespace, letter = re.escape(settings.store.namespace), SESSION.decode()
        self._session = re.compile(rf"{namespace}(\{{\d+\.u\d+\}}){letter}".encode())
        self._cursor = 0

    async def step(self) -> bool:
        """Look at about a thousand keys; true once all have been looked at.

        Raises redis.RedisError.
        """
        found: list[bytes]
        self._cursor, found = await self._redis.scan(  # type: ignore[assignment]
            self._cursor, match=self._pattern, count=_KEYS_A_STEP
        )
        shards: dict[bytes, list[bytes]] = {}
        for key in found:
            if session := self._session.match(key):
                shards.setdefault(session[1], []).append(key)
        calls: list[Call] = [("forget", s, [this_day(), self._days]) for s in shards.values()]
        await self._scripts.call(calls)
        return self._cursor == 0


class KeptGenerations:
    """Those that nobody counts into."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._generations = Generations(redis, settings)

    async def forget(self, users: U64) -> None:
        """Take users (hashes) out of all of them. Raises redis.RedisError."""
        found, live = await self._generations.read()
        for one in found:
            # One that is being built finds the tombstone in the log, in its place.
            if one != live and one.state == "ready":
                keys = Keys(one.overlaid(self._settings).store, one.number)
                await self._redis.unlink(*keys.sessions(users))
