"""Reads that share a connection: whose answer is whose, and what happens when Redis does not."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from config.redis_server import RedisServer
from config.services import Services
from config.settings import Settings, load_settings
from store.connect import connect
from store.wire import Wire


@pytest_asyncio.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = connect(settings)
    yield client
    await client.aclose()


async def test_answers_come_to_those_who_asked(redis: Redis, settings: Settings) -> None:
    own = settings.store.namespace.encode()
    keys = [b"%b:%d" % (own, n) for n in range(50)]
    await redis.mset({key: key * 2000 for key in keys[::2]})
    wire = Wire(redis, 5)
    assert await wire.mget([]) == []

    async def read(n: int) -> None:
        wanted = keys[n : n + 7][::-1]
        known = set(keys[::2])
        assert await wire.mget(wanted) == [key * 2000 if key in known else None for key in wanted]

    await asyncio.gather(*(read(n) for n in range(len(keys))))
    # Who gives up leaves an answer behind that nobody else may get.
    given_up = [asyncio.create_task(wire.mget(keys[n : n + 3])) for n in range(10)]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await asyncio.gather(read(3), read(4), read(5))
    assert [task.cancelled() for task in given_up] == [True] * 10
    await redis.delete(*keys)


async def test_a_connection_that_was_closed_while_idle_is_made_again(
    redis: Redis, settings: Settings
) -> None:
    wire = Wire(redis, 5)
    name = f"wire-{settings.store.namespace}"
    redis.connection_pool.connection_kwargs["client_name"] = name
    assert await wire.mget([b"nothing"]) == [None]
    other = connect(settings)
    clients = [one["id"] for one in await other.client_list() if one["name"] == name]
    assert len(clients) == 1
    await other.client_kill_filter(_id=clients[0])
    assert await wire.mget([b"nothing", b"at all"]) == [None, None]
    clients = [one["id"] for one in await other.client_list() if one["name"] == name]
    assert len(clients) == 1
    await other.aclose()


async def test_closing_the_client_closes_the_connection(settings: Settings) -> None:
    redis = connect(settings)
    wire = Wire(redis, 5)
    await wire.mget([b"nothing"])
    async with asyncio.timeout(5):
        await redis.aclose()
    # Whoever reads on gets a new one, as with redis-py.
    assert await wire.mget([b"nothing"]) == [None]
    await redis.aclose()


async def test_what_redis_refuses_is_told(redis: Redis, settings: Settings) -> None:
    name = f"user{settings.store.namespace}"
    await redis.acl_setuser(
        name, enabled=True, passwords=["+pw"], commands=["+hello", "+client", "+auth"], keys="*"
    )
    url = (settings.redis.url or "").replace("://", f"://{name}:pw@", 1)
    limited = connect(
        settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": url})})
    )
    wire = Wire(limited, 5)
    for _ in range(2):
        with pytest.raises(NoPermissionError):
            await wire.mget([b"nothing"])
    await limited.aclose()
    await redis.acl_deluser(name)


async def test_a_redis_that_hangs_or_goes_is_given_up_in_time_and_found_again(
    services: Services, tmp_path: Path
) -> None:
    own = load_settings(
        kafka={"bootstrap": services.kafka_bootstrap},
        services={"data_dir": tmp_path},
        redis={"timeout_seconds": 0.5},
    )
    with Services(own) as breakable:
        server = breakable.redis
        assert isinstance(server, RedisServer)
        redis = connect(breakable.bind(own))
        wire = Wire(redis, 0.5)
        assert await wire.mget([b"a"]) == [None]
        os.kill(server.pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            reads = [wire.mget([b"a"]) for _ in range(20)]
            found = await asyncio.gather(*reads, return_exceptions=True)
            assert time.monotonic() - started < 3
            assert [type(one) for one in found] == [RedisTimeoutError] * 20
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert await wire.mget([b"a"]) == [None]
        server.kill()
        with pytest.raises(RedisConnectionError):
            await wire.mget([b"a"])
        server.start()
        assert await wire.mget([b"a"]) == [None]
        await redis.aclose()
