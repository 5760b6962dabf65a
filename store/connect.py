"""One way to connect to Redis, with a deadline on every command."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from config.errors import SettingsError
from config.redis_address import SentinelAddress, sentinel_address
from config.settings import Settings

__all__ = ["LendingConnection", "connect"]


class LendingConnection(Connection):
    """Can lend its transport, once it is connected, to who speaks with Redis in another way
    (`wire.py`).

    Commands of thousands of keys are put together in C: redis-py does so in its blocking client
    alone.
    """

    _own: asyncio.BaseProtocol | None = None

    def pack_command(self, *args: Any) -> list[bytes]:
        first = args[0]
        # A command of two words ("SCRIPT LOAD") comes as one argument.
        words = (first.encode() if isinstance(first, str) else first).split()
        return [hiredis.pack_command((*words, *args[1:]))]

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().send_packed_command(*args, **kwargs)
        except RuntimeError as error:  # uvloop's word for a connection that was reset meanwhile
            raise RedisConnectionError(f"the connection is lost already: {error}") from None

    def lend(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """The transport, whose data `protocol` gets until it is lost."""
        if self._writer is None:
            raise RedisConnectionError("the connection is lost already")
        transport = cast(asyncio.Transport, self._writer.transport)
        self._own = transport.get_protocol()
        transport.set_protocol(protocol)
        return transport

    def take_back(self, lost: Exception | None) -> None:
        """The lent transport is lost: told who waits for that; `connect` makes a new one."""
        own, self._own = self._own, None
        if own is not None:
            own.connection_lost(lost)
        self._close()  # type: ignore[no-untyped-call]

    def error_of(self, text: str) -> Exception:
        """The error that Redis's answer stands for."""
        return cast(Exception, self._parser.parse_error(text))  # type: ignore[no-untyped-call]


def connect(settings: Settings) -> Redis:
    """A client for `redis.url`; answers are bytes. Raises SettingsError where none is set."""
    if settings.redis.url is None:
        raise SettingsError(
            "setting redis.url (HEADWATER_REDIS__URL) is unset: give the redis:// address of a "
            "Redis, or run `headwater up`, which starts one and sets it"
        )
    timeout = settings.redis.timeout_seconds
    deadlines: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    # Once more for a connection that was closed while idle; who calls knows better when to try
    # again after that.
    retry = Retry(NoBackoff(), 1)
    try:
        sentinels = sentinel_address(settings.redis.url)
        if sentinels is not None:
            return _through_sentinels(sentinels, deadlines, retry)
        client: Redis = Redis.from_url(
            settings.redis.url, connection_class=LendingConnection, retry=retry, **deadlines
        )
    except ValueError as error:
        raise SettingsError(f"setting redis.url (HEADWATER_REDIS__URL): {error}") from None
    return client


class _SentinelConnection(LendingConnection, SentinelManagedConnection):
    """Asks the Sentinels for the primary whenever it connects."""


class _SentinelPool(SentinelConnectionPool):
    """Ends the connections to the Sentinels with its own."""

    async def aclose(self) -> None:
        await super().aclose()
        for sentinel in self.sentinel_manager.sentinels:
            await sentinel.aclose()


def _through_sentinels(address: SentinelAddress, deadlines: dict[str, Any], retry: Retry) -> Redis:
    asking = {**deadlines, "retry": retry}
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        address.sentinels, sentinel_kwargs=asking
    )
    client: Redis = sentinel.master_for(
        address.service,
        connection_pool_class=_SentinelPool,
        connection_class=_SentinelConnection,
        db=address.db,
        username=address.username,
        password=address.password,
        retry=retry,
        **deadlines,
    )
    return client
