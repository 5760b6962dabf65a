"""Services, topics, workers and server together, up for as long as an `async with` lasts.

`up` and `demo` run one until they are signalled, `bench` and the tests measure and break theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import orjson
from prometheus_client import multiprocess
from yarl import URL

from commands.process import in_thread
from config.daemon import free_port, port_is_free, tail
from config.errors import ServiceError
from config.services import Services
from config.settings import Settings, describe
from config.supervisor import Child, Supervisor
from config.tenants import tenants_of
from streams.topics import ensure_topics

__all__ = ["Stack", "apart", "child_environment"]

READY_SECONDS = 60.0

_log = logging.getLogger(__name__)


class Stack:
    """One deployment on this machine, with `settings.services.data_dir` as its home.

    `workers` and `processes` say how many workers and server processes; 0 leaves that part out.
    `services` are used as they run when given, and then left running; else `cluster` says whether
    they are clusters.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        workers: int | None = None,
        processes: int | None = None,
        services: Services | None = None,
        cluster: bool = False,
    ) -> None:
        self.services = services or Services(settings, cluster=cluster)
        self.settings = settings
        self.workers: list[Child] = []
        self.server: Child | None = None
        self._own_services = services is None
        self._workers = settings.worker.processes if workers is None else workers
        self._processes = settings.http.processes if processes is None else processes
        home = settings.services.data_dir.expanduser().absolute()
        self._metrics = home / "metrics"
        self._supervisor = Supervisor(home / "logs", self._mark_dead)

    @property
    def kafka_bootstrap(self) -> str:
        """host:port list of Kafka."""
        return self.services.kafka_bootstrap

    @property
    def redis_url(self) -> str:
        """redis:// address of Redis."""
        return self.services.redis_url

    @property
    def http_url(self) -> str:
        """http://host:port of the server, https:// where it has a certificate."""
        http = self.settings.http
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(http.host, http.host)  # noqa: S104
        scheme = "http" if http.cert_file is None else "https"
        return str(URL.build(scheme=scheme, host=host, port=http.port))

    async def __aenter__(self) -> Self:
        """Start everything; `settings` then holds the addresses in use.

        Raises ServiceError, StreamError or OSError; then nothing is left running.
        """
        try:
            await self._start()
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

    async def failed(self) -> None:
        """Wait until a worker or the server is given up, then raise its ServiceError."""
        await self._supervisor.failed()

    def start_workers(self, count: int) -> None:
        """Start so many workers more. Raises OSError."""
        for number in range(len(self.workers) + 1, len(self.workers) + count + 1):
            self.workers.append(self._start_child(f"worker-{number}", "worker"))

    async def stop_workers(self) -> None:
        """Stop all workers; nothing of what they committed is lost."""
        await asyncio.gather(*(worker.stop() for worker in self.workers))

    async def start_server(self, processes: int) -> None:
        """Start the server and wait until it is ready. Raises OSError or ServiceError."""
        redis = self.settings.redis.model_copy(update={"url": self.services.near_redis_url})
        near = self.settings.model_copy(update={"redis": redis})
        arguments = ("serve", "--processes", str(processes))
        self.server = self._start_child("server", *arguments, settings=near)
        await self._until_ready()

    async def lose(self) -> None:
        """KILL everything at once, as the loss of all its machines would."""
        await asyncio.gather(
            asyncio.to_thread(self.services.kill),
            *(child.lose() for child in self._supervisor.children),
        )

    async def come_back(self) -> None:
        """Start what was lost, and wait until it answers. Raises ServiceError."""
        await in_thread(self.services.start, self.services.cancel)
        for child in self._supervisor.children:
            child.start()
        if self.server is not None:
            await self._until_ready()

    def _start_child(self, name: str, *arguments: str, settings: Settings | None = None) -> Child:
        env = child_environment(settings or self.settings)
        env["PROMETHEUS_MULTIPROC_DIR"] = str(self._metrics)
        return self._supervisor.start(name, [sys.executable, "-m", "commands", *arguments], env)

    async def _start(self) -> None:
        if self._own_services:
            await in_thread(self.services.start, self.services.cancel)
        bound = self.services.bind(self.settings)
        port = _usable_port(bound.http.host, bound.http.port)
        self.settings = bound.model_copy(
            update={"http": bound.http.model_copy(update={"port": port})}
        )
        tenants = [one.settings for one in tenants_of(self.settings).values()]
        await in_thread(lambda: ensure_topics(self.settings, *tenants))
        shutil.rmtree(self._metrics, ignore_errors=True)
        self._metrics.mkdir(parents=True)
        _log.info("starting workers and server; logs are in %s", self._metrics.with_name("logs"))
        self.start_workers(self._workers)
        if self._processes:
            await self.start_server(self._processes)

    async def _until_ready(self) -> None:
        failed = asyncio.create_task(self.failed())
        ready = asyncio.create_task(self._ready())
        try:
            await asyncio.wait({failed, ready}, return_when=asyncio.FIRST_COMPLETED)
            await (failed if failed.done() else ready)
        finally:
            failed.cancel()
            ready.cancel()
            await asyncio.gather(failed, ready, return_exceptions=True)

    async def _ready(self) -> None:
        limit = time.monotonic() + READY_SECONDS
        said = "nothing"
        timeout = aiohttp.ClientTimeout(total=2)
        # Its certificate is of the name that others know it by, and not of this address.
        unchecked = aiohttp.TCPConnector(ssl=False)
        async with aiohttp.ClientSession(timeout=timeout, connector=unchecked) as session:
            while time.monotonic() < limit:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self.http_url}/health/ready") as answer:
                        # What is behind the log answers, too, and catches up.
                        told = await answer.json(content_type=None)
                        if answer.status == 200 or told.get("cause") == "lag":
                            return
                        said = f"{answer.status} {(await answer.text())[:500]}"
                await asyncio.sleep(0.05)
        logs = [child.log for child in (self.server, *self.workers) if child is not None]
        ends = "\n".join(f"{log}:\n{tail(log, 8)}" for log in logs)
        raise ServiceError(
            f"{self.http_url}/health/ready does not answer 200 after {READY_SECONDS:.0f} s "
            f"but {said}; the logs end with\n{ends}"
        )

    async def _stop(self) -> None:
        await self._supervisor.stop()
        if self._own_services:
            await asyncio.to_thread(self.services.stop)

    def _mark_dead(self, pid: int) -> None:
        multiprocess.mark_process_dead(pid, str(self._metrics))  # type: ignore[no-untyped-call]


def apart(settings: Settings, folder: Path) -> Settings:
    """With services, data in `folder` and a port of its own, whatever the settings say."""
    return settings.model_copy(
        update={
            "services": settings.services.model_copy(update={"data_dir": folder}),
            "http": settings.http.model_copy(update={"port": 0}),
            "kafka": settings.kafka.model_copy(update={"bootstrap": None}),
            "redis": settings.redis.model_copy(update={"url": None}),
        }
    )


def child_environment(settings: Settings) -> dict[str, str]:
    """Our environment with every setting spelled out, so that a child reads the very same."""
    env = dict(os.environ)
    for one in describe(settings.deployment, secrets=True):
        value = one["value"]
        if value is None:
            env.pop(one["variable"], None)
        else:
            env[one["variable"]] = value if isinstance(value, str) else orjson.dumps(value).decode()
    return env


def _usable_port(host: str, port: int) -> int:
    return port if port and port_is_free(port, host) else free_port(host)
