"""One way to connect to Redis, with a deadline on every command."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    DefaultParser,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from config.errors import SettingsError
from config.redis_address import (
    ClusterAddress,
    SentinelAddress,
    cluster_address,
    redis_options,
    sentinel_address,
)
from config.settings import Settings
from store.cluster import ClusterRedis

__all__ = ["LendingConnection", "connect"]


class _Parser(DefaultParser):  # type: ignore[misc, valid-type] # chosen when it is imported
    """Says what to do about what Redis does not allow."""

    @classmethod
    def parse_error(cls, response: str) -> Exception:
        error = cast(Exception, super().parse_error(response.rstrip(".")))
        if isinstance(error, NoPermissionError):
            return NoPermissionError(
                f"{error}: give this Redis user the rights that docs/security.md names, or put "
                "another one into HEADWATER_REDIS__URL",
                status_code=error.status_code,
            )
        if isinstance(error, AuthenticationError):
            return AuthenticationError(
                f"{error}: check user and password in HEADWATER_REDIS__URL, or what "
                "HEADWATER_REDIS__PASSWORD_FILE holds",
                status_code=error.status_code,
            )
        return error


class LendingConnection(AbstractConnection):
    """Can lend its transport, once it is connected, to who speaks with Redis in another way
    (`wire.py`).

    Commands of thousands of keys are put together in C: redis-py does so in its blocking client
    alone.
    """

    _own: asyncio.BaseProtocol | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(parser_class=_Parser, **kwargs)

    async def connect(self) -> None:
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except AuthenticationError:
            raise
        except RedisConnectionError as error:
            if advice := _about_tls(error):
                raise RedisConnectionError(f"{error}; {advice}") from error
            raise
        except RedisTimeoutError as error:
            if isinstance(self, SSLConnection):  # a plain one waits for the end of our line
                raise RedisTimeoutError(f"{error}; check that this port speaks TLS") from error
            raise

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


class _TcpConnection(LendingConnection, Connection):
    """Over TCP."""


class _TlsConnection(LendingConnection, SSLConnection):
    """The same over TLS."""


class _SocketConnection(LendingConnection, UnixDomainSocketConnection):
    """To a Redis of this machine: a round trip takes half as long as through TCP."""


_KINDS: dict[type, type[LendingConnection]] = {
    Connection: _TcpConnection,
    SSLConnection: _TlsConnection,
    UnixDomainSocketConnection: _SocketConnection,
}
"""By what redis-py takes for the scheme of an address."""


def _about_tls(error: RedisConnectionError) -> str:
    """What to do where a connection does not come to be for reasons of TLS; empty for others."""
    if isinstance(error.__context__, ssl.SSLError):
        return (
            "check that this port speaks TLS, that its certificate is of this host name, and that "
            "HEADWATER_REDIS__CA_FILE has the authority it comes from"
        )
    if "closed by server" in str(error) or "reset by peer" in str(error):
        return "if this port speaks TLS, let HEADWATER_REDIS__URL begin with rediss://"
    return ""


def connect(settings: Settings) -> Redis:
    """A client for `redis.url`; answers are bytes. Raises SettingsError where none is set."""
    if settings.redis.url is None:
        raise SettingsError(
            "setting redis.url (HEADWATER_REDIS__URL) is unset: give the redis:// address of a "
            "Redis, or run `headwater up`, which starts one and sets it"
        )
    timeout = settings.redis.timeout_seconds
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        **redis_options(settings.redis),
    }
    # Once more for a connection that was closed while idle; who calls knows better when to try
    # again after that.
    retry = Retry(NoBackoff(), 1)
    try:
        sentinels = sentinel_address(settings.redis.url)
        if sentinels is not None:
            return _through_sentinels(sentinels, options, retry)
        cluster = cluster_address(settings.redis.url)
        if cluster is not None:
            return _to_nodes(cluster, options, retry)
        client: Redis = Redis.from_url(settings.redis.url, retry=retry, **options)
    except ValueError as error:
        raise SettingsError(f"setting redis.url (HEADWATER_REDIS__URL): {error}") from None
    pool = client.connection_pool  # what the address's scheme stands for goes over an argument
    pool.connection_class = _KINDS[pool.connection_class]
    return client


class _SentinelConnection(LendingConnection, SentinelManagedConnection):
    """Asks the Sentinels for the primary whenever it connects."""


class _TlsSentinelConnection(_SentinelConnection, SSLConnection):
    """The same over TLS."""


class _SentinelPool(SentinelConnectionPool):
    """Ends the connections to the Sentinels with its own."""

    async def aclose(self) -> None:
        await super().aclose()
        for sentinel in self.sentinel_manager.sentinels:
            await sentinel.aclose()


def _through_sentinels(address: SentinelAddress, options: dict[str, Any], retry: Retry) -> Redis:
    login = {"username": address.username, "password": address.password}
    # The login is that of Redis itself.
    asking = {name: value for name, value in options.items() if name != "password"}
    asking |= {"retry": retry, "ssl": address.tls}
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        address.sentinels, sentinel_kwargs=asking
    )
    client: Redis = sentinel.master_for(
        address.service,
        connection_pool_class=_SentinelPool,
        connection_class=_TlsSentinelConnection if address.tls else _SentinelConnection,
        db=address.db,
        retry=retry,
        **{**login, **options},
    )
    return client


def _to_nodes(address: ClusterAddress, options: dict[str, Any], retry: Retry) -> ClusterRedis:
    login = {"username": address.username, "password": address.password}
    connection = _TlsConnection if address.tls else _TcpConnection

    def client_of(host: str, port: int) -> Redis:
        pool: Any = ConnectionPool(
            connection, host=host, port=port, retry=retry, **{**login, **options}
        )
        return Redis.from_pool(pool)

    return ClusterRedis(address.nodes, client_of)
