"""Kafka and Redis that runs share, or have of their own, each behind proxies.

Kafka has a listener for each party, because it tells its clients where to connect: workers and
servers are sent to their own proxy, whoever checks reaches the broker itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from config.kafka import KafkaServer
from config.redis_server import RedisServer
from tests.chaos.proxy import Proxy

__all__ = ["SERVER", "WORKER", "World", "world"]

WORKER, SERVER = "WORKER", "SERVER"
"""Parties, named as Kafka's listeners are."""


class World:
    """Services that run."""

    def __init__(self, kafka: KafkaServer, redis: RedisServer, links: dict[str, Proxy]) -> None:
        self.kafka = kafka
        self.redis = redis
        self.links = links
        """Each party's proxy in front of Kafka."""
        self.redis_port = redis.ports["redis"]
        """Of the Redis that proxies lead to: another one after a failover."""

    @property
    def bootstrap(self) -> str:
        """Kafka without a proxy."""
        return self.kafka.bootstrap

    def whole(self) -> bool:
        """Whether everything runs."""
        return self.kafka.running and self.redis.running


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
        own = (kafka, redis)
        with ThreadPoolExecutor(len(own)) as pool:
            loop = asyncio.get_running_loop()
            try:
                await asyncio.gather(*(loop.run_in_executor(pool, one.start) for one in own))
                ports.update(kafka.ports)
                yield World(kafka, redis, links)
            finally:
                await asyncio.gather(*(loop.run_in_executor(pool, one.stop) for one in own))
