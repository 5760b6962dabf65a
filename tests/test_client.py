"""The typed client: against a server that misbehaves as told, and against a real deployment."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from client import (
    BadRequest,
    Boost,
    BufferFull,
    Denied,
    Event,
    HeadwaterClient,
    HeadwaterClientError,
    Item,
    NotFound,
    Overloaded,
    Recommendations,
    RecommendRequest,
    RejectedEvent,
    ServerError,
    Unavailable,
    UnexpectedAnswer,
)
from commands.stack import Stack
from config.services import Services
from tests.live import eventually, shop

EVENT = Event("u", "i", "view")
ANSWER = b'{"recommendation_id":"r","items":[{"item_id":"a","score":1}],"degraded":false}'
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Misbehaving:
    """A server that does for each request what stands next in `script`, and then is good."""

    def __init__(self) -> None:
        self.url = ""
        self.script: list[Answer] = []
        self.seen: list[tuple[str, str, Any]] = []
        self.times: list[float] = []
        self.peers: set[Any] = set()
        self.counted: dict[str, int] = {}
        self.headers: dict[str, str] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.method, request.raw_path, orjson.loads(body) if body else None))
        self.times.append(time.monotonic())
        self.headers = dict(request.headers)
        assert request.transport
        self.peers.add(request.transport.get_extra_info("peername"))
        if self.script:
            return await self.script.pop(0)(request)
        return self.good(request)

    def good(self, request: web.Request) -> web.Response:
        if request.path == "/v1/events":
            sent = self.seen[-1][2]
            events = sent if isinstance(sent, list) else [sent]
            for event in events:
                self.counted[event["event_id"]] = self.counted.get(event["event_id"], 0) + 1
            body = orjson.dumps({"accepted": len(events), "rejected": []})
            return web.Response(body=body, status=202)
        return web.Response(body=ANSWER)


def answers(status: int, body: bytes = b"", **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=told)

    return answer


async def resets(request: web.Request) -> web.StreamResponse:
    assert request.transport
    request.transport.abort()
    return web.Response()


async def breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"{")
    assert request.transport
    request.transport.abort()
    return response


async def sleeps(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Misbehaving]:
    behaviour = Misbehaving()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", behaviour.handle)
    async with TestServer(app) as running:
        behaviour.url = str(running.make_url("/"))
        yield behaviour


@asynccontextmanager
async def client(server: Misbehaving, **more: Any) -> AsyncIterator[HeadwaterClient]:
    async with HeadwaterClient(server.url, **{"timeout": 0.5, **more}) as hw:
        yield hw


class TestAttempts:
    @pytest.mark.parametrize(
        "trouble", [resets, breaks_off, sleeps, answers(503), answers(429), answers(502)]
    )
    async def test_reading_and_events_are_tried_again(
        self, server: Misbehaving, trouble: Answer
    ) -> None:
        async with client(server) as hw:
            asks: list[Callable[[], Awaitable[Recommendations]]] = [
                lambda: hw.recommend(user_id="u"),
                lambda: hw.recommend(session=["a"]),
                lambda: hw.similar("i"),
                lambda: hw.trending(),
            ]
            for ask in asks:
                server.script = [trouble, trouble]
                assert (await ask()).items[0].item_id == "a"
                assert server.script == []
            server.script, server.seen = [trouble, trouble], []
            assert (await hw.send(EVENT)).accepted == 1
            # The same event each time, with the id and the time that it got at first.
            assert len(server.seen) == 3
            assert server.seen == server.seen[:1] * 3
            assert server.seen[0][2]["event_id"]
            assert abs(server.seen[0][2]["timestamp"] - time.time() * 1000) < 60_000

    @pytest.mark.parametrize("trouble", [resets, sleeps, answers(503)])
    async def test_changes_that_may_have_been_made_are_not(
        self, server: Misbehaving, trouble: Answer
    ) -> None:
        async with client(server) as hw:
            changes: list[Callable[[], Awaitable[None]]] = [
                lambda: hw.put_item(Item("i")),
                lambda: hw.delete_item("i"),
                lambda: hw.forget_user("u"),
            ]
            for change in changes:
                server.seen, server.script = [], [trouble] * 2
                with pytest.raises(Unavailable):
                    await change()
                # What HTTP calls idempotent aiohttp itself asks once more on a broken connection.
                assert len(server.seen) == (2 if trouble is resets else 1)
                server.seen, server.script = [], [answers(429)]
                await change()
                assert len(server.seen) == 2

    async def test_a_server_that_is_not_there(self) -> None:
        port = unused_port()
        began = time.monotonic()
        async with HeadwaterClient(f"http://127.0.0.1:{port}", total=1) as hw:
            with pytest.raises(Unavailable, match="no connection"):
                await hw.recommend(user_id="u")
        assert time.monotonic() - began < 2

    async def test_as_long_as_the_server_says(self, server: Misbehaving) -> None:
        async with client(server) as hw:
            server.script = [answers(503, Retry_After="1")]
            await hw.recommend(user_id="u")
            assert 1 <= server.times[1] - server.times[0] < 2
            server.script, server.times = [answers(429, Retry_After="60")], []
            with pytest.raises(Overloaded) as raised:
                await hw.recommend(user_id="u")
            assert raised.value.retry_after == 60
            assert len(server.times) == 1

    async def test_no_more_attempts_and_no_longer_than_allowed(self, server: Misbehaving) -> None:
        async with client(server, attempts=3) as hw:
            server.script = [answers(503, b'{"detail":"Kafka is away"}')] * 9
            with pytest.raises(Unavailable, match="Kafka is away"):
                await hw.recommend(user_id="u")
            assert len(server.seen) == 3
        async with client(server, timeout=0.3, total=0.5) as hw:
            server.script = [sleeps] * 9
            began = time.monotonic()
            with pytest.raises(Unavailable, match="did not answer"):
                await hw.trending()
            assert 0.3 <= time.monotonic() - began < 1.5

    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (400, b'{"detail":"n must be a number","field":"n"}', BadRequest),
            (413, b"<html>", BadRequest),
            (401, b"", Denied),
            (403, b'{"detail":"no"}', Denied),
            (404, b'{"field":"item_id"}', NotFound),
            (404, b'{"field":"path"}', UnexpectedAnswer),
            (404, b'{"field":7}', NotFound),
            (500, b"\xff", ServerError),
            (301, b"", UnexpectedAnswer),
            (200, b"{}", UnexpectedAnswer),
            (200, b"<html>", UnexpectedAnswer),
        ],
    )
    async def test_what_does_not_pass_is_not_tried_again(
        self, server: Misbehaving, status: int, body: bytes, kind: type[HeadwaterClientError]
    ) -> None:
        async with client(server) as hw:
            server.script = [answers(status, body)]
            with pytest.raises(HeadwaterClientError) as raised:
                await hw.recommend(user_id="u")
            assert type(raised.value) is kind
            assert len(server.seen) == 1

    async def test_what_is_bad_is_told(self, server: Misbehaving) -> None:
        async with client(server) as hw:
            server.script = [answers(400, b'{"detail":"n is too much","field":"n"}')]
            with pytest.raises(BadRequest, match="n: n is too much") as raised:
                await hw.recommend(user_id="u", n=1000)
            assert (raised.value.field, raised.value.detail) == ("n", "n is too much")

    async def test_connections_are_used_again(self, server: Misbehaving) -> None:
        async with client(server) as hw:
            for _ in range(20):
                await hw.trending()
            assert len(server.peers) == 1

    async def test_the_key_and_the_tenant_are_sent(self, server: Misbehaving) -> None:
        async with client(server, api_key="secret", tenant="shoes") as hw:
            await hw.trending()
        assert server.headers["Authorization"] == "Bearer secret"
        assert server.headers["Headwater-Tenant"] == "shoes"

    @pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "/v1"])
    async def test_addresses_that_are_none(self, url: str) -> None:
        with pytest.raises(ValueError, match="no address"):
            async with HeadwaterClient(url):
                pass

    async def test_outside_of_its_block(self, server: Misbehaving) -> None:
        hw = HeadwaterClient(server.url)
        with pytest.raises(RuntimeError, match="async with"):
            await hw.trending()

    async def test_what_is_asked(self, server: Misbehaving) -> None:
        async with client(server) as hw:
            await hw.recommend(user_id="a/b ü", n=5)
            await hw.recommend(user_id="..", scenario="news", filter={"kind": "x"})
            await hw.similar("..", n=3, relation="bought")
        assert server.seen == [
            ("GET", "/v1/recommendations/a%2Fb%20%C3%BC?n=5", None),
            (
                "POST",
                "/v1/recommendations",
                {"user_id": "..", "scenario": "news", "filter": {"kind": "x"}},
            ),
            ("GET", "/v1/items/%2E%2E/similar?n=3&relation=bought", None),
        ]


class TestEvents:
    async def test_many_go_in_as_many_requests_as_it_takes(self, server: Misbehaving) -> None:
        rejected = {"index": 4, "reason": "invalid", "field": "[4].type", "message": "no"}
        async with client(server) as hw:
            server.script = [
                answers(202, orjson.dumps({"accepted": 999, "rejected": [rejected]})),
                answers(400, orjson.dumps({"detail": "no", "rejected": [rejected]})),
            ]
            events = [Event("u", f"i{n}", "view", 5, event_id=f"e{n}") for n in range(2500)]
            answer = await hw.send(events)
            assert answer.accepted == 999 + 500
            assert [one.index for one in answer.rejected] == [4, 1004]
            assert [len(sent) for _, _, sent in server.seen] == [1000, 1000, 500]
            assert [event["item_id"] for _, _, sent in server.seen for event in sent] == [
                f"i{n}" for n in range(2500)
            ]
            server.seen = []
            large = [Event("😀" * 128, "😀" * 128, "view") for _ in range(1000)]
            assert (await hw.send(large)).accepted == 1000
            assert len(server.seen) > 1
            assert (await hw.send([])).accepted == 0

    async def test_a_single_bad_one_raises(self, server: Misbehaving) -> None:
        body = orjson.dumps(
            {
                "detail": "no",
                "field": "type",
                "rejected": [{"index": 0, "reason": "r", "field": "type", "message": "no"}],
            }
        )
        async with client(server) as hw:
            server.script = [answers(400, body)]
            with pytest.raises(BadRequest) as raised:
                await hw.send(EVENT)
            assert raised.value.rejected == (RejectedEvent(0, "r", "type", "no"),)

    async def test_tracked_ones_go_together(self, server: Misbehaving) -> None:
        async with client(server, flush_seconds=0.2) as hw:
            for n in range(50):
                hw.track(Event("u", f"i{n}", "view"))
            await eventually(lambda: _now(server.counted), lambda counted: len(counted) == 50)
            assert len(server.seen) == 1
            hw.track(EVENT)
            await hw.flush()
            assert len(server.counted) == 51
            await hw.flush()
            assert len(server.seen) == 2

    async def test_a_full_batch_does_not_wait(self, server: Misbehaving) -> None:
        async with client(server, flush_seconds=600) as hw:
            for n in range(1000):
                hw.track(Event("u", f"i{n}", "view"))
            await eventually(lambda: _now(server.counted), lambda counted: len(counted) == 1000, 5)

    async def test_what_is_tracked_is_bounded(self, server: Misbehaving) -> None:
        async with client(server, buffer=10, flush_seconds=600) as hw:
            for _ in range(10):
                hw.track(EVENT)
            with pytest.raises(BufferFull, match="10 events"):
                hw.track(EVENT)
        assert len(server.counted) == 10

    async def test_they_wait_for_a_server_that_is_away(self, server: Misbehaving) -> None:
        async with client(server, flush_seconds=0.05, total=0.2) as hw:
            server.script = [answers(503)] * 12
            hw.track(EVENT)
            with pytest.raises(Unavailable):
                await hw.flush()
            hw.track(EVENT)
            await eventually(lambda: _now(server.counted), lambda counted: len(counted) == 2)
        assert set(server.counted.values()) == {1}

    async def test_leaving_says_what_could_not_be_sent(self, server: Misbehaving) -> None:
        async def work(error: Exception | None) -> None:
            async with client(server, flush_seconds=600, attempts=1) as hw:
                server.script = [answers(503)]
                hw.track(EVENT)
                if error is not None:
                    raise error

        with pytest.raises(Unavailable):
            await work(None)
        with pytest.raises(KeyError):
            await work(KeyError())

    async def test_rejected_ones_are_told(
        self, server: Misbehaving, caplog: pytest.LogCaptureFixture
    ) -> None:
        rejected = {"index": 1, "reason": "invalid", "field": "[1].type", "message": "bad type"}
        body = orjson.dumps({"accepted": 1, "rejected": [rejected]})
        told: list[tuple[Event, RejectedEvent]] = []
        async with client(server, on_rejected=lambda *one: told.append(one)) as hw:
            server.script = [answers(202, body)]
            for item in "ab":
                hw.track(Event("u", item, "view"))
            await hw.flush()
        assert [(event.item_id, one.message) for event, one in told] == [("b", "bad type")]
        async with client(server) as hw:
            server.script = [answers(202, body)]
            for item in "ab":
                hw.track(Event("u", item, "view"))
            await hw.flush()
        assert "bad type" in caplog.text

    async def test_each_event_counts_once_whatever_the_server_does(
        self, server: Misbehaving
    ) -> None:
        seed = 20_260_301
        print(f"seed {seed}")
        chance = random.Random(seed)

        async def counts_and_breaks_off(request: web.Request) -> web.StreamResponse:
            server.good(request)
            return await resets(request)

        troubles = [resets, answers(503), answers(429), counts_and_breaks_off]
        async with client(server, flush_seconds=0.01, total=0.5) as hw:
            for n in range(300):
                if chance.random() < 0.3:
                    server.script.append(chance.choice(troubles))
                hw.track(Event("u", f"i{n}", "view"))
                if chance.random() < 0.2:
                    await asyncio.sleep(0.005)
            await eventually(lambda: _now(server.counted), lambda counted: len(counted) == 300)
            server.script = []
        # The server may see one several times, and knows it by its id.
        assert len(server.counted) == 300


def test_it_needs_nothing_else_of_this_project() -> None:
    code = "import sys, client; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"client", "aiohttp", "msgspec"} <= loaded
    ours = {"commands", "config", "processors", "serving", "store", "streams", "numpy"}
    assert not loaded & ours


async def _now(value: Any) -> Any:
    return value


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    async with shop(services, tmp_path_factory.mktemp("client")) as stack:
        yield stack


@pytest.mark.asyncio(loop_scope="module")
class TestLive:
    async def test_events_and_recommendations(self, live: Stack) -> None:
        async with HeadwaterClient(live.http_url) as hw:
            assert (await hw.send(Event("new", "tea-1", "click"))).accepted == 1
            hw.track(Event("new", "tea-2", "click", session_id="s"))
            await hw.flush()
            known = await eventually(lambda: hw.user("new"), lambda user: user.count == 2)
            assert [event.item_id for event in known.session] == ["tea-2"]
            assert known.session[0].title == "Tea no. 2"
            answer = await hw.recommend(user_id="new", n=5)
            assert {item.item_id.split("-")[0] for item in answer.items} == {"tea"}
            assert answer.recommendation_id
            assert not answer.degraded
            explained = await hw.recommend(session=["fish-1", "fish-2"], n=4, explain=True)
            why = explained.items[0].explanation
            assert why is not None
            parts = sum(part.co_occurrence + part.repeat for part in why.contributions)
            assert why.factor * parts + why.trending == pytest.approx(
                explained.items[0].score, abs=1e-6
            )
            several = await hw.recommend_batch(
                [RecommendRequest(session=[f"soap-{n % 10}"], n=2) for n in range(103)]
            )
            assert len(several) == 103
            assert all(one.items[0].item_id.startswith("soap") for one in several)
            filtered = await hw.recommend(
                session=["soap-1"],
                n=15,
                filter={"kind": {"in": ["tea", "fish"]}},
                boost=[Boost({"kind": "fish"}, 2.0)],
            )
            assert filtered.filled is not None
            within = [item for item in filtered.items if not item.outside_filter]
            assert {item.item_id.split("-")[0] for item in within} <= {"tea", "fish"}
            strictly = await hw.recommend(session=["soap-1"], filter={"kind": "none"}, strict=True)
            assert strictly.items == ()
            assert (await hw.similar("bread-1", n=3)).items[0].item_id.startswith("bread")
            assert len((await hw.trending(n=7, window="24h")).items) == 7

    async def test_bad_ones_are_named(self, live: Stack) -> None:
        async with HeadwaterClient(live.http_url) as hw:
            with pytest.raises(BadRequest) as raised:
                await hw.send(Event("u", "i", "stare"))
            assert raised.value.field == "type"
            answer = await hw.send([Event("u", "", "view")] * 2)
            assert [one.field for one in answer.rejected] == ["[0].item_id", "[1].item_id"]
            with pytest.raises(BadRequest):
                await hw.recommend(user_id="u", n=0)

    @pytest.mark.parametrize("item_id", ["plain", "a/b?c", "..", "日本"])
    async def test_the_catalogue(self, live: Stack, item_id: str) -> None:
        item = Item(item_id, "A title", {"price": 1.5, "tags": ["a", "b"], "new": True}, False)
        async with HeadwaterClient(live.http_url) as hw:

            async def found() -> Item | None:
                try:
                    return await hw.get_item(item_id)
                except NotFound:
                    return None

            assert await found() is None
            await hw.put_item(item)
            assert await eventually(found, lambda one: one is not None) == item
            await hw.delete_item(item_id)
            await eventually(found, lambda one: one is None)

    async def test_a_user_is_forgotten(self, live: Stack) -> None:
        async with HeadwaterClient(live.http_url) as hw:
            await hw.send(Event("gone", "tea-1", "view"))
            await eventually(lambda: hw.user("gone"), lambda user: user.count == 1)
            await hw.forget_user("gone")
            await eventually(lambda: hw.user("gone"), lambda user: user.count == 0)
