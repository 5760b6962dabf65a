"""One way to connect to Redis, with a deadline on every command."""

from __future__ import annotations

from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from config.errors import SettingsError
from config.settings import Settings

__all__ = ["connect"]


class _Packed(Connection):
    """Commands of thousands of keys are put together in C: redis-py does so in its blocking client
    alone.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        first = args[0]
        # A command of two words ("SCRIPT LOAD") comes as one argument.
        words = (first.encode() if isinstance(first, str) else first).split()
        return [hiredis.pack_command((*words, *args[1:]))]


def connect(settings: Settings) -> Redis:
    """A client for `redis.url`; answers are bytes. Raises SettingsError where none is set."""
    if settings.redis.url is None:
        raise SettingsError(
            "setting redis.url (HEADWATER_REDIS__URL) is unset: give the redis:// address of a "
            "Redis, or run `headwater up`, which starts one and sets it"
        )
    timeout = settings.redis.timeout_seconds
    try:
        client: Redis = Redis.from_url(
            settings.redis.url,
            connection_class=_Packed,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # Once more for a connection that was closed while idle; who calls knows better when
            # to try again after that.
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError as error:
        raise SettingsError(f"setting redis.url (HEADWATER_REDIS__URL): {error}") from None
    return client
