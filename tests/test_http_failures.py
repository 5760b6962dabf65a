"""The server while Redis or Kafka is away, in several processes, and while it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import aiohttp
import pytest

from config.daemon import free_port
from config.services import Services
from config.settings import load_settings
from serving.app import make_app
from tests.conftest import own_settings
from tests.live import PROBLEM, HereServer, eventually, get, ids, post, shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD_EVENT = {"user_id": "u", "item_id": "i", "type": "view", "timestamp": 1}


async def test_while_redis_is_down_the_last_trending_is_shown(
    services: Services, tmp_path: Path
) -> None:
    """Redis freezes, dies and comes back; no answer is a 500, and none takes long."""
    own = load_settings(
        kafka={"bootstrap": services.kafka_bootstrap}, services={"data_dir": tmp_path / "own"}
    )
    quick = {"timeout_seconds": 0.5}
    with Services(own) as breakable:
        assert breakable.redis is not None
        async with (
            shop(breakable, tmp_path / "home", redis=quick) as stack,
            aiohttp.ClientSession(stack.http_url) as http,
        ):
            paths = ("/v1/recommendations/u1?n=5", "/v1/items/tea-1/similar?n=5", "/v1/trending")
            assert len(ids(await get(http, "/v1/trending"))) == 20  # from now on they are kept
            os.kill(breakable.redis.pid, signal.SIGSTOP)
            try:
                started = time.monotonic()
                frozen = [await get(http, path) for path in paths * 3]
                assert time.monotonic() - started < 3
            finally:
                os.kill(breakable.redis.pid, signal.SIGCONT)
            assert all(answer["degraded"] for answer in frozen)
            back = await eventually(lambda: get(http, paths[0]), lambda a: not a["degraded"])
            assert back["items"]

            breakable.redis.kill()
            down = await post(http, "/v1/recommendations", {"user_id": "u1", "n": 5})
            assert down["degraded"] is True
            assert len(down["items"]) == 5
            assert all(item["title"] for item in down["items"])
            for path in ("/v1/users/u1", "/v1/items/tea-1", "/health/ready"):
                async with http.get(path) as answer:
                    assert answer.status == 503
                    assert answer.content_type == PROBLEM
                    assert int(answer.headers["Retry-After"]) >= 1
            assert await get(http, "/health/live") == {"live": True}
            async with http.get("/metrics") as answer:
                assert 'headwater_degraded_total{cause="store_' in await answer.text()
            breakable.redis.start()
            await eventually(lambda: get(http, paths[0]), lambda a: not a["degraded"])


async def test_while_kafka_is_down_events_are_refused_in_time(
    services: Services, tmp_path: Path
) -> None:
    settings = own_settings(services, tmp_path / "home", partitions=2)
    nowhere = settings.kafka.model_copy(update={"bootstrap": f"127.0.0.1:{free_port()}"})
    app = make_app(settings.model_copy(update={"kafka": nowhere}))
    async with HereServer(app) as server, aiohttp.ClientSession(server.make_url("/")) as http:
        started = time.monotonic()
        async with http.post("/v1/events", json=GOOD_EVENT) as answer:
            assert answer.status == 503
            assert answer.content_type == PROBLEM
            assert int(answer.headers["Retry-After"]) >= 1
        async with http.put("/v1/items/i", json={}) as answer:
            assert answer.status == 503
        assert time.monotonic() - started < 8
        assert (await get(http, "/v1/recommendations/u"))["items"] == []


async def test_several_processes_share_a_port_and_replace_a_dead_one(
    services: Services, tmp_path: Path
) -> None:
    async with shop(services, tmp_path / "home", processes=2) as stack:
        assert stack.server is not None
        parent = stack.server.pid
        first = _children(parent)
        assert len(first) == 2

        async def fresh() -> str:  # a connection of its own reaches either process
            async with aiohttp.ClientSession(stack.http_url) as http:
                answer = await get(http, "/v1/recommendations/u1")
            assert answer["degraded"] is False
            return str(answer["recommendation_id"])[:10]

        async def both() -> set[str]:
            seen: set[str] = set()

            async def more() -> set[str]:
                seen.add(await fresh())
                return seen

            await eventually(more, lambda seen: len(seen) == 2)
            return seen

        before = await both()
        os.kill(first[0], signal.SIGKILL)

        async def children() -> list[int]:
            return await asyncio.to_thread(_children, parent)

        second = await eventually(children, lambda now: len(now) == 2 and first[0] not in now)
        assert len(before & await both()) == 1
        started = time.monotonic()
        await stack.server.stop()
        assert time.monotonic() - started < 7
        assert not set(second) & set(await asyncio.to_thread(_servers))


async def test_a_stopping_server_finishes_what_it_was_asked(
    services: Services, tmp_path: Path
) -> None:
    """Batches are under way and somebody watches the console: all get the rest of their answer."""
    async with shop(services, tmp_path / "home") as stack:
        assert stack.server is not None
        batch = [{"session": [f"tea-{n % 10}", f"soap-{n % 7}"]} for n in range(100)]
        sent = asyncio.Semaphore(0)

        async def body_sent(*_: object) -> None:
            sent.release()

        trace = aiohttp.TraceConfig()
        trace.on_request_chunk_sent.append(body_sent)
        async with aiohttp.ClientSession(stack.http_url, trace_configs=[trace]) as http:
            async with http.get("/console/stream") as stream:
                asked = [
                    asyncio.create_task(post(http, "/v1/recommendations/batch", batch))
                    for _ in range(10)
                ]
                for _ in asked:
                    await sent.acquire()
                # Once it answers, the server has looked at its sockets since: it has them all.
                for _ in range(2):
                    await get(http, "/health/live")
                started = time.monotonic()
                await stack.server.stop()
                assert time.monotonic() - started < 6
                for answers in await asyncio.gather(*asked):
                    assert len(answers) == 100
                    assert all(ids(answer) for answer in answers)
                await stream.content.read()  # it ended as it should, not in the middle


def _children(parent: int) -> list[int]:
    return [pid for pid, of in _servers().items() if of == parent]


def _servers() -> dict[int, int]:
    """Server processes that are one of several, and their parents."""
    found = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="],  # noqa: S607 - wherever the system keeps it
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split(None, 2) for line in found.stdout.splitlines()]
    return {int(pid): int(of) for pid, of, args in rows if "commands.serve" in args}
