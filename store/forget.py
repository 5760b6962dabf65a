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


# Of any generation: one that is kept to go back to must forget as well.
_SESSION_KEY = re.compile(rb"([a-z0-9:-]+)\{\d+\.u\d+\}" + SESSION)


class UserSweep:
    """Goes through all keys, of all tenants, a step at a time, again and again."""

    def __init__(self, redis: Redis, *tenants: Settings) -> None:
        """`tenants` are settings of each."""
        self._redis = redis
        self._scripts = Scripts(redis)
        self._cursor = 0
        self.follow(*tenants)

    def follow(self, *tenants: Settings) -> None:
        """Go on for these: they may have others days now."""
        self._days = {one.store.namespace.encode(): one.store.user_days for one in tenants}
        some = tenants[0]
        alone = len(tenants) == 1
        namespace = some.deployment.store.namespace
        self._pattern = Keys(some.store).pattern if alone else f"{namespace}*{{*".encode()

    async def step(self) -> bool:
        """Look at about a thousand keys; true once all have been looked at.

        Raises redis.RedisError.
        """
        found: list[bytes]
        self._cursor, found = await self._redis.scan(  # type: ignore[assignment]
            self._cursor, match=self._pattern, count=_KEYS_A_STEP
        )
        shards: dict[tuple[bytes, bytes], list[bytes]] = {}
        for key in found:
            session = _SESSION_KEY.match(key)
            if session and session[1] in self._days:
                shards.setdefault((session[1], session[0]), []).append(key)
        calls: list[Call] = [
            ("forget", keys, [this_day(), self._days[namespace]])
            for (namespace, _), keys in shards.items()
        ]
        await self._scripts.call(calls)
        return self._cursor == 0


class KeptGenerations:
    """Those that nobody counts into."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._generations = Generations(redis, settings)

    async def forget(self, users: U64) -> None:
        """Take users (hashes), none or more, out of all of them. Raises redis.RedisError."""
        if not len(users):
            return
        found, live = await self._generations.read()
        for one in found:
            # One that is being built finds the tombstone in the log, in its place.
            if one != live and one.state == "ready":
                keys = Keys(one.overlaid(self._settings).store, one.number)
                await self._redis.unlink(*keys.sessions(users), *keys.of_experiments(users))
