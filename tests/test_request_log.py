"""Requests have ids, and log lines have them, too; which requests have a line of their own."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from commands.process import configure_logging
from commands.stack import Stack
from config.daemon import free_port
from config.services import Services
from config.settings import LogSettings
from serving.app import make_app
from serving.request_log import RequestLog
from streams.producer import RecordProducer
from streams.topics import bootstrap_of
from tests.conftest import own_settings
from tests.live import HereServer, eventually, shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
KINDS = [
    "/v1/recommendations/u1",
    "/v1/recommendations/u1?explain=true",
    "/nowhere",
    "/health/live",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """Every request has a line."""
    home = tmp_path_factory.mktemp("logs")
    log = {"json_lines": True, "requests": "all"}
    async with shop(services, home, log=log) as stack:
        yield stack


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What this process logs, by the way that commands configure.

    A logger keeps the processors that it was first used with, so structlog's own capture sees
    nothing of a logger that was used before somebody configured anew.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(LogSettings())
    root.handlers[:] = handlers
    with caplog.at_level(logging.INFO):
        yield lambda: [one.msg for one in caplog.records if isinstance(one.msg, dict)]
    root.setLevel(level)


def lines(stack: Stack, name: str) -> list[dict[str, Any]]:
    text = (stack.settings.services.data_dir / "logs" / f"{name}.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("path", KINDS)
async def test_an_answer_has_the_id_it_was_asked_with(live: Stack, path: str) -> None:
    async with aiohttp.ClientSession(live.http_url) as http:

        async def ask(**headers: str) -> str:
            async with http.get(path, headers=headers) as answer:
                await answer.read()
                return answer.headers["X-Request-ID"]

        assert await ask(**{"X-Request-ID": "mine-1:a"}) == "mine-1:a"
        assert await ask(traceparent=f"00-{TRACE}-00f067aa0ba902b7-01") == TRACE
        both = {"X-Request-ID": "mine-2", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        assert await ask(**both) == "mine-2"
        made = [
            await ask(**headers)
            for headers in (
                {},
                {"X-Request-ID": "x" * 129},
                {"X-Request-ID": 'a"b'},
                {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"},
                {"traceparent": "00-12"},
            )
        ]
        assert len(set(made)) == len(made)
        assert all(re.fullmatch(r"[0-9a-f]{11,}", one) for one in made)


async def test_what_is_no_http_has_an_id(live: Stack) -> None:
    host, port = live.http_url.removeprefix("http://").rstrip("/").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: ok\r\nBad Header\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    assert " 400 " in head
    assert re.search(r"X-Request-ID: [0-9a-f]{11,}\r\n", head)


async def test_a_line_has_both_ids_and_no_user(live: Stack) -> None:
    async with aiohttp.ClientSession(live.http_url) as http:
        async with http.get(
            "/v1/recommendations/u7", headers={"X-Request-ID": "plain-7"}
        ) as answer:
            plain = await answer.json()
        bodies = [{"session": ["tea-1"]}, {"user_id": "u7"}]
        async with http.post(
            "/v1/recommendations/batch", json=bodies, headers={"X-Request-ID": "batch-7"}
        ) as answer:
            batch = await answer.json()

    async def told() -> dict[str, dict[str, Any]]:
        found = [one for one in lines(live, "server") if one.get("event") == "request"]
        return {one["request_id"]: one for one in found}

    found = await eventually(told, lambda found: {"plain-7", "batch-7"} <= set(found))
    line = found["plain-7"]
    assert line["recommendation_id"] == plain["recommendation_id"]
    assert (line["method"], line["status"]) == ("GET", 200)
    assert line["route"] == "/v1/recommendations/{user_id}"
    assert line["ms"] > 0
    assert line["level"] == "info"
    assert "u7" not in json.dumps(line)
    assert found["batch-7"]["recommendation_id"] == [one["recommendation_id"] for one in batch]


async def test_a_failure_is_told_with_the_id_by_whoever_tells_it(
    services: Services, tmp_path: Path, told: Callable[[], list[dict[str, Any]]]
) -> None:
    settings = own_settings(services, tmp_path, partitions=1)
    nowhere = settings.redis.model_copy(update={"url": f"redis://127.0.0.1:{free_port()}/0"})
    app = make_app(settings.model_copy(update={"redis": nowhere}))
    async with HereServer(app) as server, aiohttp.ClientSession(server.make_url("/")) as http:
        async with http.get("/v1/users/u", headers={"X-Request-ID": "lost-1"}) as answer:
            assert answer.status == 503
        async with http.get("/v1/items?search=a&n=0") as answer:
            assert answer.status == 400
    mine = [one for one in told() if one.get("request_id") == "lost-1"]
    assert [one["event"] for one in mine] == ["not available", "request failed"]
    assert mine[1]["route"] == "/v1/users/{user_id}"
    # One that was asked wrongly is its sender's affair.
    assert not [one for one in told() if one["event"] == "request"]


async def test_slow_ones_are_told_within_bounds(told: Callable[[], list[dict[str, Any]]]) -> None:
    log = RequestLog(LogSettings(slow_ms=100))
    assert not log.wants(200, 0.099)
    assert not log.wants(404, 0.099)
    assert log.wants(200, 0.1)
    assert log.wants(503, 0.0)
    assert RequestLog(LogSettings(requests="all")).wants(200, 0.0)
    for _ in range(500):
        log.tell("GET", "/x", 200, b"", 0.2, "id")
    slow = [one for one in told() if one["event"] == "slow request"]
    assert 20 <= len(slow) <= 60
    assert "left_out" not in slow[0]


async def test_a_dead_letter_is_told_with_its_place(live: Stack) -> None:
    topic = live.settings.kafka.events_topic
    with RecordProducer(bootstrap_of(live.settings)) as producer:
        for n in range(13):
            producer.publish(topic, b"poison", b"{not json %d" % n)
        producer.publish(live.settings.kafka.items_topic, b"i", b"[]")

    async def letters() -> list[dict[str, Any]]:
        return [one for one in lines(live, "worker-1") if one.get("event") == "dead letter"]

    found = await eventually(letters, lambda found: len({one["topic"] for one in found}) == 2)
    of_events = [one for one in found if one["topic"] == topic]
    assert {one["reason"] for one in of_events} == {"not_json"}
    assert len({one["partition"] for one in of_events}) == 1
    offsets = [one["offset"] for one in of_events]
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
