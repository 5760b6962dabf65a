"""Services for one measurement, in a folder that goes with it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.processor import Cores, ProcessTimes, cores, pin
from commands.stack import Stack, apart
from config.errors import ServiceError
from config.redis_server import RedisServer
from config.settings import Settings
from store.connect import connect
from streams.producer import RecordProducer
from streams.topics import bootstrap_of, ensure_topics

__all__ = [
    "empty_redis",
    "measuring_stack",
    "pin_apart",
    "process_times",
    "produce",
    "redis_apart",
    "services_of",
    "spread_out",
    "until_log_written",
    "use_redis",
    "use_topics",
    "wipe",
]

_EMPTIED_SECONDS = 120.0
"""Deleting the keys of millions of users takes Redis longer than any command of Headwater's may."""


@asynccontextmanager
async def measuring_stack(
    settings: Settings, *, workers: int = 0, processes: int = 0
) -> AsyncIterator[Stack]:
    """A stack with services, a data directory and a port of its own, whatever the settings say."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        own = apart(settings, Path(folder))
        async with Stack(own, workers=workers, processes=processes) as stack:
            yield stack


def produce(settings: Settings, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Send (key, value) records to the topic of events and wait until Kafka has them."""
    with RecordProducer(bootstrap_of(settings), linger_ms=20) as producer:
        for key, value in records:
            producer.publish(settings.kafka.events_topic, key, value)


def process_times(stack: Stack) -> ProcessTimes:
    """Processor times of everything that runs in a stack now."""
    redis, kafka = services_of(stack)
    pids = {
        "workers": [one.pid for one in stack.workers if one.running],
        "server": [stack.server.pid] if stack.server and stack.server.running else [],
        "redis": [redis],
        "kafka": [kafka],
    }
    return ProcessTimes({name: some for name, some in pids.items() if some})


def pin_apart(stack: Stack, subject: int, *others: int) -> Cores | None:
    """Give one process a core to itself and its services the others, with `others` and us.

    Returns how the cores are shared out; None where that cannot be.
    """
    found = cores()
    if found is not None:
        pin(subject, found.subject)
        for pid in (*services_of(stack), *others):
            pin(pid, found.others)
    return found


def spread_out(stack: Stack) -> None:
    """Let the services have all cores again."""
    found = cores()
    if found is not None:
        for pid in services_of(stack):
            pin(pid, found.everything)


async def wipe(stack: Stack) -> None:
    """Empty Redis. Workers that start now read the log from its beginning."""
    own = stack.settings.redis.model_copy(update={"timeout_seconds": _EMPTIED_SECONDS})
    redis = connect(stack.settings.model_copy(update={"redis": own}))
    try:
        await empty_redis(redis)
        await until_log_written(redis)
    finally:
        await redis.aclose()


async def empty_redis(redis: Redis) -> None:
    """Delete everything, and have it gone: by default some servers do so in the background."""
    await redis.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]


async def until_log_written(redis: Redis) -> None:
    """Wait while Redis writes its append-only file anew."""
    while True:
        found = await redis.info("persistence")
        if not found["aof_rewrite_in_progress"] and not found["aof_rewrite_scheduled"]:
            return
        await asyncio.sleep(0.05)


async def use_topics(stack: Stack, name: str) -> None:
    """Have workers that start from now on read another, new topic of events."""
    kafka = stack.settings.kafka.model_copy(update={"events_topic": name, "group": name})
    stack.settings = stack.settings.model_copy(update={"kafka": kafka})
    await asyncio.to_thread(ensure_topics, stack.settings)


@asynccontextmanager
async def redis_apart(stack: Stack) -> AsyncIterator[RedisServer]:
    """One more Redis beside a stack's own."""
    data = stack.settings.services.data_dir
    with tempfile.TemporaryDirectory(prefix="redis-", dir=data) as folder:
        server = RedisServer(Path(folder) / "redis")
        await asyncio.to_thread(server.start)
        try:
            yield server
        finally:
            await asyncio.to_thread(server.stop)


@contextmanager
def use_redis(stack: Stack, server: RedisServer) -> Iterator[None]:
    """Have what is started in a stack meanwhile use another Redis than its own."""
    own, settings = stack.services.redis, stack.settings
    redis = settings.redis.model_copy(update={"url": server.url})
    stack.services.redis, stack.settings = server, settings.model_copy(update={"redis": redis})
    try:
        yield
    finally:
        stack.services.redis, stack.settings = own, settings


def services_of(stack: Stack) -> tuple[int, int]:
    """Process ids of Redis and Kafka."""
    redis, kafka = stack.services.redis, stack.services.kafka
    if redis is None or kafka is None:
        raise ServiceError("only services that were started here can be measured")
    return redis.pid, kafka.pid
