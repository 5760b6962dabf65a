"""Users are forgotten `store.user_days` after their last event was written.

Vectors carry the day of writing and are looked through little by little. Redis could expire them by
itself, but only where each is set by a command of its own: twice the price of every commit.
"""

from __future__ import annotations

import time

from redis.asyncio import Redis

from config.settings import Settings
from store.keys import Keys
from store.scripts import Call, Scripts

__all__ = ["UserSweep", "this_day"]

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
        self._keys = Keys(settings.store)
        self._cursor = 0

    async def step(self) -> bool:
        """Look at about a thousand keys; true once all have been looked at.

        Raises redis.RedisError.
        """
        keys = self._keys
        found: list[bytes]
        self._cursor, found = await self._redis.scan(  # type: ignore[assignment]
            self._cursor, match=keys.pattern, count=_KEYS_A_STEP
        )
        calls: list[Call] = []
        for head in keys.session_heads():
            mine = [key for key in found if key.startswith(head)]
            if mine:
                calls.append(("forget", mine, [this_day(), self._days]))
        await self._scripts.call(calls)
        return self._cursor == 0
