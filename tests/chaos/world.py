"""Kafka and Redis that runs share, or have of their own, each behind proxies.

Kafka has a listener for each party, because it tells its clients where to connect: workers and
servers are sent to their own proxy, whoever checks reaches the broker itself.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from config.daemon import HOST
from config.kafka import KafkaServer
from config.kafka_cluster import KafkaCluster
from config.redis_address import sentinel_address
from config.redis_sentinel import ReplicatedRedis
from config.redis_server import RedisServer, primary_of
from tests.chaos.proxy import Proxy

__all__ = [
    "SERVER",
    "WORKER",
    "Skipped",
    "World",
    "full_disk",
    "full_world",
    "three_brokers",
    "with_sentinels",
    "world",
]

WORKER, SERVER = "WORKER", "SERVER"
"""Parties, named as Kafka's listeners are."""


class Skipped(Exception):
    """A fault cannot be tried on this machine; the text says why."""


class World:
    """Services that run."""

    def __init__(
        self,
        brokers: dict[int, KafkaServer],
        servers: list[RedisServer],
        links: dict[str, Proxy] | None = None,
        redis_url: str | None = None,
    ) -> None:
        """`redis_url` is where no proxy can stand between: Sentinels tell where Redis is."""
        self.brokers = brokers
        """By their ids."""
        self.servers = servers
        """Of Redis; the first begins as the primary."""
        self.links = links or {}
        """Each party's proxy in front of Kafka; none where there are several brokers."""
        self.redis_port = servers[0].ports["redis"]
        """Of the Redis that proxies lead to: another one after a failover."""
        self._redis_url = redis_url

    @property
    def kafka(self) -> KafkaServer:
        """The first broker."""
        return self.brokers[1]

    @property
    def redis(self) -> RedisServer:
        """The first Redis."""
        return self.servers[0]

    @property
    def bootstrap(self) -> str:
        """Kafka without a proxy."""
        return ",".join(broker.bootstrap for broker in self.brokers.values())

    @property
    def redis_url(self) -> str:
        """Redis without a proxy."""
        return self._redis_url or f"redis://{HOST}:{self.redis_port}/0"

    def primary(self) -> int | None:
        """The port of the Redis that the Sentinels call the primary."""
        address = sentinel_address(self.redis_url)
        found = None if address is None else primary_of(address)
        return None if found is None else found[1]

    def whole(self) -> bool:
        """Whether everything runs."""
        return all(one.running for one in (*self.brokers.values(), *self.servers))


@asynccontextmanager
async def world(
    folder: Path,
    redis_arguments: Sequence[str] = (),
    kafka_properties: Mapping[str, object] | None = None,
    kafka_folder: Path | None = None,
    redis_folder: Path | None = None,
) -> AsyncIterator[World]:
    """One Kafka and one Redis."""
    async with AsyncExitStack() as stack:
        ports: dict[str, int] = {}
        links = {
            party: await stack.enter_async_context(Proxy(partial(ports.__getitem__, party)))
            for party in (WORKER, SERVER)
        }
        kafka = KafkaServer(
            kafka_folder or folder / "kafka",
            heap_mb=384,
            properties=kafka_properties,
            advertised={party: proxy.port for party, proxy in links.items()},
        )
        redis = RedisServer(redis_folder or folder / "redis", arguments=redis_arguments)
        async with _running(kafka, redis):
            ports.update(kafka.ports)
            yield World({1: kafka}, [redis], links)


@asynccontextmanager
async def three_brokers(folder: Path) -> AsyncIterator[World]:
    """Kafka on three brokers, each record on at least two of them; and a Redis."""
    cluster, redis = KafkaCluster(folder), RedisServer(folder / "redis")
    async with _running(cluster, redis):
        yield World(cluster.brokers, [redis])


@asynccontextmanager
async def with_sentinels(folder: Path) -> AsyncIterator[World]:
    """One Kafka; a Redis with a replica, watched by Sentinels."""
    kafka, redis = (
        KafkaServer(folder / "kafka", heap_mb=384),
        ReplicatedRedis(folder / "replicated"),
    )
    async with _running(kafka, redis):
        yield World({1: kafka}, redis.servers, redis_url=redis.url)


@asynccontextmanager
async def full_world(folder: Path, megabytes: int, *, kafka: bool) -> AsyncIterator[World]:
    """A world whose Kafka, or else Redis, has a small disk of its own: `kafka.folder.parent`."""
    with _small_disk(folder / "disk", megabytes) as disk:
        where = {
            "kafka_folder" if kafka else "redis_folder": disk / ("kafka" if kafka else "redis")
        }
        async with world(folder, **where) as made:  # type: ignore[arg-type]
            yield made


class _Service(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


@asynccontextmanager
async def _running(*services: _Service) -> AsyncIterator[None]:
    try:
        await asyncio.gather(*(asyncio.to_thread(one.start) for one in services))
        yield
    finally:
        await asyncio.gather(*(asyncio.to_thread(one.stop) for one in services))


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Fill the disk that a folder is on, and give the room back."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 512, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def _small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system in memory. Raises Skipped where we may not mount one."""
    folder.mkdir(parents=True)
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        raise Skipped("there is no mount")
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run([mount, *options], capture_output=True, text=True)
    if done.returncode:
        raise Skipped("a small disk needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run([umount, str(folder)], capture_output=True)
