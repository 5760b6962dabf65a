"""Workers and a server of one run, a proxy on each connection to a service."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from confluent_kafka.admin import AdminClient
from redis.asyncio import Redis

from commands.stack import child_environment
from config.daemon import HOST, free_port, tail
from config.errors import ServiceError
from config.settings import load_settings
from config.supervisor import Child, Supervisor
from store.connect import connect
from store.keys import Keys
from streams.topics import ensure_topics
from tests.chaos.proxy import Proxy
from tests.chaos.world import SERVER, WORKER, World

__all__ = ["Deployment"]

_READY_SECONDS = 60.0
SESSION_TIMEOUT = 6.0


class Deployment:
    """What runs on a world for one run, with topics and a namespace of its own."""

    def __init__(
        self, world: World, home: Path, workers: int, groups: dict[str, dict[str, Any]]
    ) -> None:
        own = secrets.token_hex(4)
        kafka, worker = groups.get("kafka", {}), groups.get("worker", {})
        redis, store = groups.get("redis", {}), groups.get("store", {})
        others = {k: v for k, v in groups.items() if k not in ("kafka", "worker", "redis", "store")}
        self.settings = load_settings(
            kafka={
                "bootstrap": world.bootstrap,
                "events_topic": f"events-{own}",
                "items_topic": f"items-{own}",
                "dead_topic": f"events-{own}.dead",
                "recommendations_topic": f"recommendations-{own}",
                "group": f"headwater-{own}",
                "partitions": 4,
                **kafka,
            },
            redis={"url": world.redis_url, **redis},
            # Lists are compacted all the time; no item has more neighbours than are kept.
            store={"namespace": f"c{own}", "compact_factor": 1.1, **store},
            services={"data_dir": home},
            http={"port": free_port()},
            worker={
                "session_timeout_seconds": SESSION_TIMEOUT,
                "max_poll_records": 300,
                **worker,
            },
            **others,
        )
        self.world = world
        self.workers: list[Child] = []
        self.server: Child | None = None
        self.redis_of_worker: list[Proxy] = []
        """Each worker's proxy in front of Redis."""
        self.redis_of_server = Proxy(lambda: world.redis_port)
        self.stopped = 0
        """Ends of processes that a fault asked for."""
        self._home = home
        self._workers = workers
        self._metrics = home / "metrics"
        self._supervisor = Supervisor(home / "logs")
        self.exits = AsyncExitStack()
        """What is undone when everything has stopped."""

    @property
    def url(self) -> str:
        """Where the server answers."""
        return f"http://{HOST}:{self.settings.http.port}"

    @property
    def ended(self) -> int:
        """Processes that ended by themselves."""
        children = [*self.workers, *([self.server] if self.server else [])]
        return sum(child.restarts for child in children) - self.stopped

    def said(self) -> str:
        """What the workers have logged."""
        return "".join(worker.log.read_text(errors="replace") for worker in self.workers)

    def redis(self) -> Redis:
        """A client without a proxy."""
        return connect(self.settings)

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(ensure_topics, self.settings)
            shutil.rmtree(self._metrics, ignore_errors=True)
            self._metrics.mkdir(parents=True)
            await self.start_workers(self._workers)
            await self.exits.enter_async_context(self.redis_of_server)
            self.server = self._start("server", SERVER, self.redis_of_server, "serve")
            await self._until_ready()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def start_workers(self, count: int) -> None:
        """Start so many more, each with a proxy of its own."""
        for _ in range(count):
            number = len(self.workers) + 1
            proxy = Proxy(lambda: self.world.redis_port)
            self.redis_of_worker.append(await self.exits.enter_async_context(proxy))
            self.workers.append(self._start(f"worker-{number}", WORKER, proxy, "worker"))

    def move_redis(self, port: int) -> None:
        """Tell that Redis is at another port now; who goes through proxies need not know."""
        self.world.redis_port = port
        redis = self.settings.redis.model_copy(update={"url": self.world.redis_url})
        self.settings = self.settings.model_copy(update={"redis": redis})

    async def clean(self) -> None:
        """Delete what the run left in the services."""
        kafka = self.settings.kafka
        topics = [
            kafka.events_topic,
            kafka.items_topic,
            kafka.dead_topic,
            kafka.recommendations_topic,
        ]

        def delete() -> None:
            with AdminClient({"bootstrap.servers": self.world.bootstrap, "log_level": 0}) as admin:
                for deleted in admin.delete_topics(topics).values():
                    deleted.result(20)

        await asyncio.to_thread(delete)
        redis = self.redis()
        keys = [k async for k in redis.scan_iter(Keys(self.settings.store).pattern, count=1000)]
        if keys:
            await redis.unlink(*keys)
        await redis.aclose()

    def _start(self, name: str, party: str, redis: Proxy, *arguments: str) -> Child:
        links = self.world.links
        bootstrap = f"{HOST}:{links[party].port}" if party in links else self.world.bootstrap
        url = self.settings.redis.url or ""
        if url.startswith("redis://"):
            url = f"redis://{HOST}:{redis.port}/0"
        update = {
            "kafka": self.settings.kafka.model_copy(update={"bootstrap": bootstrap}),
            "redis": self.settings.redis.model_copy(update={"url": url}),
        }
        env = child_environment(self.settings.model_copy(update=update))
        env["PROMETHEUS_MULTIPROC_DIR"] = str(self._metrics)
        return self._supervisor.start(name, [sys.executable, "-m", "commands", *arguments], env)

    async def _until_ready(self) -> None:
        limit = time.monotonic() + _READY_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
            while time.monotonic() < limit:
                try:
                    async with http.get(f"{self.url}/health/ready") as answer:
                        if answer.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.1)
        assert self.server is not None
        raise ServiceError(f"the server is not ready:\n{tail(self.server.log)}")

    async def _stop(self) -> None:
        await self._supervisor.stop()
        await self.exits.aclose()
