"""Every route over the wire: Kafka, Redis, a worker and the server are real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from yarl import URL

from commands.stack import Stack
from config.daemon import free_port
from config.services import Services
from config.settings import load_settings
from serving.app import make_app
from tests.live import DEPARTMENTS, eventually, live_settings, shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROBLEM = "application/problem+json"
MOST_BODY = 50_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("http")
    async with shop(services, home, http={"max_body_bytes": MOST_BODY}) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(live: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(live.http_url) as session:
        yield session


async def get(http: aiohttp.ClientSession, path: str, status: int = 200) -> Any:
    async with http.get(URL(path, encoded=True)) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(content_type=None)


async def post(http: aiohttp.ClientSession, path: str, body: Any, status: int = 200) -> Any:
    async with http.post(path, json=body) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(content_type=None)


def ids(answer: dict[str, Any]) -> list[str]:
    assert answer["degraded"] is False
    assert answer["recommendation_id"]
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    found = [item["item_id"] for item in answer["items"]]
    assert len(set(found)) == len(found)
    return found


def click(user: str, item: str, **more: Any) -> dict[str, Any]:
    now = time.time_ns() // 1_000_000
    return {"user_id": user, "item_id": item, "type": "click", "timestamp": now, **more}


class TestRecommendations:
    async def test_a_known_user_gets_the_own_department_with_titles(
        self, http: aiohttp.ClientSession
    ) -> None:
        answer = await get(http, "/v1/recommendations/u2?n=8")
        assert len(ids(answer)) == 8
        assert {item["item_id"].split("-")[0] for item in answer["items"]} == {"fish"}
        assert answer["items"][0]["title"].startswith("Fish no. ")

    async def test_an_unknown_user_gets_what_is_trending(self, http: aiohttp.ClientSession) -> None:
        unknown = ids(await get(http, "/v1/recommendations/nobody?n=5"))
        assert unknown == ids(await get(http, "/v1/trending?n=5"))

    async def test_ids_of_answers_differ(self, http: aiohttp.ClientSession) -> None:
        answers = [await get(http, "/v1/recommendations/u1") for _ in range(3)]
        assert len({answer["recommendation_id"] for answer in answers}) == 3
        assert all(len(answer["items"]) == 20 for answer in answers)

    async def test_a_session_decides_and_exclusions_hold(self, http: aiohttp.ClientSession) -> None:
        body = {"session": ["tea-1", "tea-2"], "n": 6, "exclude": ["tea-3"], "exclude_seen": True}
        found = ids(await post(http, "/v1/recommendations", body))
        assert {item.split("-")[0] for item in found} == {"tea"}
        assert not {"tea-1", "tea-2", "tea-3"} & set(found)

    async def test_a_session_goes_before_the_user(self, http: aiohttp.ClientSession) -> None:
        body = {"user_id": "u0", "session": ["soap-1"], "n": 5}
        assert ids(await post(http, "/v1/recommendations", body))[0].startswith("soap")
        own = ids(await post(http, "/v1/recommendations", {"user_id": "u0", "n": 5}))
        assert own == ids(await get(http, "/v1/recommendations/u0?n=5"))

    async def test_a_batch_is_answered_in_order(self, http: aiohttp.ClientSession) -> None:
        bodies: list[dict[str, Any]] = [{"session": [f"{d}-0"], "n": 3} for d in DEPARTMENTS]
        answers = await post(http, "/v1/recommendations/batch", bodies * 25)
        first = [ids(answer)[0].split("-")[0] for answer in answers]
        assert first == list(DEPARTMENTS) * 25

    async def test_similar_items(self, http: aiohttp.ClientSession) -> None:
        found = ids(await get(http, "/v1/items/bread-4/similar?n=4"))
        assert len(found) == 4
        assert "bread-4" not in found
        assert {item.split("-")[0] for item in found} == {"bread"}
        assert ids(await get(http, "/v1/items/never-seen/similar")) == []

    @pytest.mark.parametrize("window", ["1h", "24h", "7d"])
    async def test_trending(self, http: aiohttp.ClientSession, window: str) -> None:
        assert len(ids(await get(http, f"/v1/trending?window={window}&n=7"))) == 7


class TestEvents:
    async def test_an_event_changes_the_next_answers(self, http: aiohttp.ClientSession) -> None:
        accepted = await post(http, "/v1/events", click("new-1", "soap-3"), 202)
        assert accepted == {"accepted": 1, "rejected": []}
        answer = await eventually(
            lambda: get(http, "/v1/recommendations/new-1?n=5"),
            lambda answer: answer["items"][0]["item_id"].startswith("soap"),
        )
        assert {item.split("-")[0] for item in ids(answer)} == {"soap"}

    async def test_what_is_known_of_a_user(self, http: aiohttp.ClientSession) -> None:
        first = click("new-2", "tea-1", event_id="a", session_id="s1")
        second = {**click("new-2", "tea-2", event_id="b", session_id="s2"), "type": "purchase"}
        second["timestamp"] = first["timestamp"] + 1
        await post(http, "/v1/events", [first, second, second], 202)
        known = await eventually(
            lambda: get(http, "/v1/users/new-2"), lambda known: known["count"] == 2
        )
        assert known["history"] == [
            {
                "item_id": "tea-1",
                "title": "Tea no. 1",
                "type": "click",
                "timestamp": first["timestamp"],
            }
        ]
        assert [event["type"] for event in known["session"]] == ["purchase"]
        nothing = {"user_id": "ny/body", "count": 0, "session": [], "history": []}
        assert await get(http, "/v1/users/ny%2Fbody") == nothing

    async def test_bad_ones_are_named_and_good_ones_counted(
        self, http: aiohttp.ClientSession
    ) -> None:
        future = click("new-3", "tea-2", timestamp=int(time.time() * 1000) + 3_600_000)
        batch = [
            click("new-3", "tea-1"),
            {"user_id": "new-3"},
            click("new-3", "tea-1", type="stare"),
            future,
            7,
        ]
        answer = await post(http, "/v1/events", batch, 202)
        assert answer["accepted"] == 1
        assert [(r["index"], r["reason"], r["field"]) for r in answer["rejected"]] == [
            (1, "invalid", "[1].item_id"),
            (2, "unknown_type", "[2].type"),
            (3, "in_future", "[3].timestamp"),
            (4, "invalid", "body"),
        ]
        assert all(rejected["message"] for rejected in answer["rejected"])

    async def test_a_thousand_at_once(self, http: aiohttp.ClientSession) -> None:
        before = (await get(http, "/health/ready"))["events"]
        events = [click(f"many-{n}", "m", timestamp=1_700_000_000_000) for n in range(400)]
        small = [{**event, "event_id": ""} for event in events]
        assert (await post(http, "/v1/events", small, 202))["accepted"] == 400
        await eventually(
            lambda: get(http, "/health/ready"), lambda ready: ready["events"] >= before + 400
        )


class TestItems:
    @pytest.mark.parametrize("item_id", ["plain", "a/b c?d%e#f", "日本 🫖", "%2F", "..", "batch"])
    async def test_an_item_lives_and_dies(self, http: aiohttp.ClientSession, item_id: str) -> None:
        path = URL(f"/v1/items/{quote(item_id, safe='')}".replace("/..", "/%2E%2E"), encoded=True)
        item = {"title": "Ä title", "attributes": {"price": 1.5, "tags": ["a", "b"]}}
        async with http.put(path, json=item) as answer:
            assert answer.status == 202, await answer.text()

        async def read() -> tuple[int, Any]:
            async with http.get(path) as answer:
                return answer.status, await answer.json(content_type=None)

        _, found = await eventually(read, lambda found: found[0] == 200)
        assert found == {"item_id": item_id, **item}
        async with http.delete(path) as answer:
            assert answer.status == 202
        _, gone = await eventually(read, lambda found: found[0] == 404)
        assert gone["field"] == "item_id"


def deep(opening: str, closing: str = "") -> bytes:
    return (opening * 30_000 + closing)[: MOST_BODY - 1].encode()


LONG = "x" * 129
GOOD_EVENT = {"user_id": "u", "item_id": "i", "type": "view", "timestamp": 1}


def event(**changes: Any) -> bytes:
    return json.dumps({**GOOD_EVENT, **changes}).encode()


BAD_REQUESTS: list[tuple[str, str, bytes | None, int, str]] = [
    *(
        ("GET", f"/v1/recommendations/u?n={n}", None, 400, "n")
        for n in ("0", "101", "-1", "x", "1.5", "", "1e1", "%D9%A3", "%00", "9" * 400)
    ),
    ("GET", "/v1/recommendations/u?n=1&n=2", None, 400, "n"),
    ("GET", "/v1/recommendations/u?m=1", None, 400, "m"),
    ("GET", "/v1/recommendations/", None, 400, "user_id"),
    ("GET", f"/v1/recommendations/{LONG}", None, 400, "user_id"),
    ("GET", "/v1/recommendations/%FF", None, 400, "user_id"),
    ("GET", "/v1/recommendations/%ED%A0%80", None, 400, "user_id"),
    ("GET", "/v1/recommendations/%zz", None, 400, "user_id"),
    ("GET", "/v1/recommendations/a%2", None, 400, "user_id"),
    ("GET", "/v1/items//similar", None, 400, "item_id"),
    ("GET", "/v1/items/i/similar?n=0", None, 400, "n"),
    ("GET", "/v1/items/%80", None, 400, "item_id"),
    ("GET", f"/v1/items/{LONG}", None, 400, "item_id"),
    ("GET", "/v1/items/unknown-item", None, 404, "item_id"),
    ("GET", f"/v1/users/{LONG}", None, 400, "user_id"),
    ("GET", "/v1/users/%FF", None, 400, "user_id"),
    ("GET", "/v1/trending?n=x", None, 400, "n"),
    ("GET", "/v1/trending?window=2h", None, 400, "window"),
    ("GET", "/v1/trending?window=", None, 400, "window"),
    ("POST", "/v1/recommendations", b"", 400, "body"),
    ("POST", "/v1/recommendations", b"{", 400, "body"),
    ("POST", "/v1/recommendations", b"[]", 400, "body"),
    ("POST", "/v1/recommendations", b"null", 400, "body"),
    ("POST", "/v1/recommendations", b'"text"', 400, "body"),
    ("POST", "/v1/recommendations", b"{} {}", 400, "body"),
    ("POST", "/v1/recommendations", b"\xff\xfe", 400, "body"),
    ("POST", "/v1/recommendations", b'{"user_id": "\xff"}', 400, "body"),
    ("POST", "/v1/recommendations", b'{"user_id": "\\ud800"}', 400, "body"),
    ("POST", "/v1/recommendations", b'{"n": NaN}', 400, "body"),
    ("POST", "/v1/recommendations", b'{"n": Infinity}', 400, "body"),
    ("POST", "/v1/recommendations", b'{"n": 0}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"n": 101}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"n": "5"}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"n": true}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"n": 1.5}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"n": 1e999}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"n": null}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"user_id": ""}', 400, "user_id"),
    ("POST", "/v1/recommendations", b'{"user_id": 5}', 400, "user_id"),
    ("POST", "/v1/recommendations", b'{"user_id": "%b"}' % LONG.encode(), 400, "user_id"),
    ("POST", "/v1/recommendations", b'{"session": "a"}', 400, "session"),
    ("POST", "/v1/recommendations", b'{"session": ["a", ""]}', 400, "session[1]"),
    ("POST", "/v1/recommendations", b'{"session": [null]}', 400, "session[0]"),
    (
        "POST",
        "/v1/recommendations",
        json.dumps({"session": ["a"] * 1001}).encode(),
        400,
        "session",
    ),
    ("POST", "/v1/recommendations", b'{"exclude": {"a": 1}}', 400, "exclude"),
    ("POST", "/v1/recommendations", b'{"exclude_seen": "yes"}', 400, "exclude_seen"),
    ("POST", "/v1/recommendations", b'{"userid": "a"}', 400, "userid"),
    *(
        ("POST", "/v1/recommendations", b'{"%b": 1}' % name, 400, name.decode())
        for name in (b"filter", b"boost", b"diversity", b"explain", b"scenario")
    ),
    ("POST", "/v1/recommendations?n=1", b"{}", 400, "n"),
    ("POST", "/v1/recommendations", deep("["), 400, "body"),
    ("POST", "/v1/recommendations", deep('{"session":'), 400, "session"),
    ("POST", "/v1/recommendations", b" " * (MOST_BODY + 1), 413, "body"),
    ("POST", "/v1/recommendations/batch", b"{}", 400, "body"),
    ("POST", "/v1/recommendations/batch", b"[]", 400, "body"),
    ("POST", "/v1/recommendations/batch", b'[{}, {"n": 0}]', 400, "[1].n"),
    ("POST", "/v1/recommendations/batch", b'[{"x": 0}]', 400, "[0].x"),
    ("POST", "/v1/recommendations/batch", b"[" + b"{}," * 100 + b"{}]", 400, "body"),
    ("POST", "/v1/events", b"", 400, "body"),
    ("POST", "/v1/events", b"[]", 400, "body"),
    ("POST", "/v1/events", b"[1", 400, "body"),
    ("POST", "/v1/events", b"5", 400, "body"),
    ("POST", "/v1/events", b"{", 400, "body"),
    ("POST", "/v1/events", deep("["), 400, "body"),
    ("POST", "/v1/events", deep('{"x":'), 400, "body"),
    ("POST", "/v1/events", b"[" + b"0," * 1000 + b"0]", 400, "body"),
    ("POST", "/v1/events", b'[{"user_id": "u"}]', 400, "[0].item_id"),
    ("POST", "/v1/events", event(user_id=""), 400, "user_id"),
    ("POST", "/v1/events", event(user_id=LONG), 400, "user_id"),
    ("POST", "/v1/events", event(user_id=7), 400, "user_id"),
    ("POST", "/v1/events", event(user_id="\ud800"), 400, "body"),
    ("POST", "/v1/events", event(item_id=None), 400, "item_id"),
    ("POST", "/v1/events", event(type="stare"), 400, "type"),
    ("POST", "/v1/events", event(type=1), 400, "type"),
    ("POST", "/v1/events", event(timestamp=-1), 400, "timestamp"),
    ("POST", "/v1/events", event(timestamp=1.5), 400, "timestamp"),
    ("POST", "/v1/events", event(timestamp="yesterday"), 400, "timestamp"),
    ("POST", "/v1/events", event(timestamp="2024-01-01T00:00:00"), 400, "timestamp"),
    ("POST", "/v1/events", event(timestamp=10**400), 400, "timestamp"),
    ("POST", "/v1/events", event(timestamp=2**53), 400, "timestamp"),
    ("POST", "/v1/events", event(timestamp=float("nan")), 400, "body"),
    ("POST", "/v1/events", event(event_id="x" * 65), 400, "event_id"),
    ("POST", "/v1/events", event(position=-1), 400, "position"),
    ("POST", "/v1/events", event(more="x" * MOST_BODY), 413, "body"),
    ("PUT", "/v1/items/i", b"", 400, "body"),
    ("PUT", "/v1/items/i", b"[]", 400, "body"),
    ("PUT", "/v1/items/i", b'{"item_id": "j"}', 400, "item_id"),
    ("PUT", "/v1/items/i", b'{"title": 5}', 400, "title"),
    ("PUT", "/v1/items/i", json.dumps({"title": "x" * 513}).encode(), 400, "title"),
    ("PUT", "/v1/items/i", b'{"price": 5}', 400, "price"),
    ("PUT", "/v1/items/i", b'{"attributes": {"a": {"b": 1}}}', 400, "attributes[...]"),
    ("PUT", "/v1/items/", b"{}", 400, "item_id"),
    ("PUT", f"/v1/items/{LONG}", b"{}", 400, "item_id"),
    ("DELETE", "/v1/items/%FF", None, 400, "item_id"),
    ("GET", "/nothing", None, 404, "path"),
    ("GET", "/v1/recommendations/a/b", None, 404, "path"),
    ("GET", "/console/../pyproject.toml", None, 404, "path"),
    ("POST", "/v1/nothing", b"{}", 404, "path"),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    BAD_REQUESTS,
    ids=[f"{n}-{m}-{p[:40]}" for n, (m, p, *_) in enumerate(BAD_REQUESTS)],
)
async def test_a_bad_request_is_told_which_field(
    http: aiohttp.ClientSession, method: str, path: str, body: bytes | None, status: int, field: str
) -> None:
    async with http.request(method, URL(path, encoded=True), data=body) as answer:
        assert answer.status == status, await answer.text()
        assert answer.content_type == PROBLEM
        problem = await answer.json(content_type=None)
    assert problem["field"] == field
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/users/u", "GET,HEAD"),
        ("POST", "/v1/recommendations/u", "GET,HEAD"),
        ("PATCH", "/v1/items/i", "DELETE,GET,HEAD,PUT"),
        ("GET", "/v1/events", "POST"),
        ("POST", "/", "GET,HEAD"),
    ],
)
async def test_a_method_that_is_not_there(
    http: aiohttp.ClientSession, method: str, path: str, allowed: str
) -> None:
    async with http.request(method, path) as answer:
        assert answer.status == 405
        assert answer.content_type == PROBLEM
        assert answer.headers["Allow"].replace(" ", "") == allowed


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /v1/users/\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: 4\r\n\r\nnope",
    ],
)
async def test_what_is_no_http_is_a_problem_too(live: Stack, request_bytes: bytes) -> None:
    url = URL(live.http_url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(request_bytes)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert PROBLEM.encode() in head


class TestHealthAndMetrics:
    async def test_live_and_ready(self, http: aiohttp.ClientSession) -> None:
        assert await get(http, "/health/live") == {"live": True}
        ready = await get(http, "/health/ready")
        assert ready["ready"] is True
        assert ready["events"] >= 240

    async def test_metrics_of_worker_and_server_stand_together(
        self, http: aiohttp.ClientSession
    ) -> None:
        await get(http, "/v1/recommendations/u1")
        await get(http, "/v1/recommendations/u1?n=x", 400)

        async def scrape() -> dict[str, float]:
            async with http.get("/metrics") as answer:
                assert answer.content_type == "text/plain"
                lines = (await answer.text()).splitlines()
            return {
                line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
                for line in lines
                if not line.startswith("#")
            }

        found = await eventually(scrape, lambda m: any("lag_records" in name for name in m))
        assert found["headwater_events_applied_total"] >= 240
        assert found["headwater_event_visible_seconds_count"] > 0
        assert "headwater_hit_rate" in found
        route = 'route="/v1/recommendations/{user_id}"'
        for code in (200, 400):
            name = f'headwater_request_seconds_count{{code="{code}",{route}}}'
            assert found[name] >= 1

    async def test_the_stream_has_one_number_a_second(self, http: aiohttp.ClientSession) -> None:
        async with http.get("/console/stream") as answer:
            assert answer.content_type == "text/event-stream"
            events: list[dict[str, Any]] = []
            async with asyncio.timeout(15):
                while len(events) < 3:
                    line = await answer.content.readline()
                    if line.startswith(b"data: "):
                        events.append(json.loads(line[6:]))
        assert events[-1]["events"] >= 240
        assert events[-1]["lag_records"] is not None


async def test_the_page_may_load_nothing_from_elsewhere(http: aiohttp.ClientSession) -> None:
    for path in ("/", "/console/console.js", "/console/console.css"):
        async with http.get(path) as answer:
            assert answer.status == 200
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'")
            assert "http" not in policy
            text = await answer.text()
            assert "https://" not in text
            assert "innerHTML" not in text


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
    settings = live_settings(services, tmp_path / "home")
    nowhere = settings.kafka.model_copy(update={"bootstrap": f"127.0.0.1:{free_port()}"})
    app = make_app(settings.model_copy(update={"kafka": nowhere}))
    async with TestServer(app) as server, aiohttp.ClientSession(server.make_url("/")) as http:
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
        os.kill(first[0], signal.SIGKILL)

        async def children() -> list[int]:
            return await asyncio.to_thread(_children, parent)

        second = await eventually(children, lambda now: len(now) == 2 and first[0] not in now)

        async def fresh() -> str:  # a connection of its own reaches either process
            async with aiohttp.ClientSession(stack.http_url) as http:
                answer = await get(http, "/v1/recommendations/u1")
            assert answer["degraded"] is False
            return str(answer["recommendation_id"])[:10]

        seen: set[str] = set()

        async def both() -> set[str]:
            seen.add(await fresh())
            return seen

        await eventually(both, lambda seen: len(seen) == 2)
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
        async with aiohttp.ClientSession(stack.http_url) as http:
            async with http.get("/console/stream") as stream:
                asked = [
                    asyncio.create_task(post(http, "/v1/recommendations/batch", batch))
                    for _ in range(10)
                ]
                await get(http, "/health/live")  # on a connection made after those of the batches
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
        ["ps", "-eo", "pid=,ppid=,args="],  # noqa: S607 - wherever the system keeps it
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split(None, 2) for line in found.stdout.splitlines()]
    return {int(pid): int(of) for pid, of, args in rows if "commands.serve" in args}
