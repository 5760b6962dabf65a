"""A Redis with a replica, and Sentinels that put the replica in its place when it is gone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from config.daemon import HOST, Daemon, at_once
from config.redis_server import RedisServer, find_redis, redis_process

__all__ = ["RedisSentinel", "ReplicatedRedis"]

SERVICE = "headwater"
_CONFIGURATION = """\
port {port}
bind {host}
dir {folder}
sentinel monitor {service} {host} {watched} {quorum}
sentinel down-after-milliseconds {service} 1500
sentinel failover-timeout {service} 6000
sentinel parallel-syncs {service} 1
"""


class RedisSentinel(Daemon):
    """One Sentinel; it keeps what it knows in its configuration."""

    name = "sentinel"
    port_names = ("sentinel",)

    def __init__(self, folder: Path, watched: int, quorum: int) -> None:
        """`watched` is the primary's port."""
        super().__init__(folder)
        self._watched, self._quorum = watched, quorum

    def _prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        path = self.folder / "sentinel.conf"
        if not path.exists():
            path.write_text(
                _CONFIGURATION.format(
                    port=self.ports["sentinel"],
                    host=HOST,
                    folder=self.folder,
                    service=SERVICE,
                    watched=self._watched,
                    quorum=self._quorum,
                )
            )
        return [find_redis(), str(path), "--sentinel"], dict(os.environ)

    def _answers(self) -> bool:
        return redis_process(f"redis://{HOST}:{self.ports['sentinel']}") is not None


class ReplicatedRedis:
    """A primary, its replica, and three Sentinels."""

    def __init__(self, folder: Path) -> None:
        first = RedisServer(folder / "first" / "redis")
        primary = first.reserve_ports()["redis"]
        second = RedisServer(
            folder / "second" / "redis", arguments=("--replicaof", HOST, str(primary))
        )
        self.servers = [first, second]
        """The first begins as the primary."""
        self.sentinels = [
            RedisSentinel(folder / f"sentinel-{number}" / "sentinel", primary, quorum=2)
            for number in range(1, 4)
        ]

    @property
    def url(self) -> str:
        """redis+sentinel:// address."""
        hosts = ",".join(f"{HOST}:{one.ports['sentinel']}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def start(self) -> None:
        """Start the servers, then the Sentinels. Raises ServiceError."""
        for daemon in (*self.servers, *self.sentinels):
            daemon.start()

    def stop(self) -> None:
        """Stop all at once."""
        daemons: list[Daemon] = [*self.sentinels, *self.servers]
        at_once(lambda one: one.stop(), daemons)
