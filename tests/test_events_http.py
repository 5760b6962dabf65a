"""Other formats' doors for events, and other origins' pages, over the wire."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from confluent_kafka import Producer

from commands.stack import Stack
from config.services import Services
from config.settings import Settings
from serving.app import make_app
from tests.live import PROBLEM, HereServer, eventually, get, post, shop
from tests.test_adapters import BINARY, CLOUD, GA4, SEGMENT, changed

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://shop.example"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("events")
    names = {"com.example.seen": "view"}
    cors = {"cors_origins": [ORIGIN]}
    async with shop(services, home, events={"names": names}, http=cors) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(live: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(live.http_url) as session:
        yield session


def now() -> int:
    return time.time_ns() // 1_000_000


async def kept(http: aiohttp.ClientSession, user: str, count: int) -> list[tuple[str, str, int]]:
    """(item, type, time) of a user's events, once there are so many."""
    known = await eventually(
        lambda: get(http, f"/v1/users/{user}"), lambda known: known["count"] >= count
    )
    events = known["history"] + known["session"]
    return [(event["item_id"], event["type"], event["timestamp"]) for event in events]


async def settled(http: aiohttp.ClientSession) -> None:
    """Return once all that was sent so far is counted."""
    marker = f"marker-{now()}"
    for n in range(32):  # one for each partition, whichever that is
        event = {"user_id": f"{marker}-{n}", "item_id": "m", "type": "view", "timestamp": now()}
        await post(http, "/v1/events", event, 202)
    for n in range(32):
        await kept(http, f"{marker}-{n}", 1)


class TestDoors:
    async def test_segment(self, http: aiohttp.ClientSession) -> None:
        when = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        products = [{"product_id": f"tea-{n}"} for n in range(3)]
        order = changed(
            SEGMENT,
            userId="seg",
            timestamp=when,
            event="Order Completed",
            properties={"products": products},
        )
        calls = {"batch": [order, {"type": "page", "userId": "seg"}]}
        for _ in range(3):  # Segment sends again what it is not sure of
            answer = await post(http, "/v1/events/segment", calls, 202)
            assert answer["accepted"] == 3
            [refused] = answer["rejected"]
            assert (refused["index"], refused["field"]) == (1, "batch[1].type")
        await settled(http)
        found = await kept(http, "seg", 3)
        assert [event[:2] for event in found] == [(f"tea-{n}", "purchase") for n in range(3)]

    async def test_ga4(self, http: aiohttp.ClientSession) -> None:
        micros = now() * 1000
        hit = changed(GA4, client_id="ga", timestamp_micros=micros)
        for _ in range(2):
            path = "/v1/events/ga4?measurement_id=G-1&api_secret=x"
            assert (await post(http, path, hit, 202))["accepted"] == 1
        await settled(http)
        assert await kept(http, "ga", 1) == [("p-1", "view", micros // 1000)]
        refused = await post(http, "/v1/events/ga4", changed(hit, events=[{"name": "scroll"}]), 400)
        assert refused["field"] == "events[0].params.items"

    async def test_cloudevents(self, http: aiohttp.ClientSession) -> None:
        when = datetime.now(UTC).replace(microsecond=0)
        told = {"type": "com.example.seen", "time": when.isoformat()}
        data = {"user_id": "ce", "item_id": "fish-1"}
        one = changed(CLOUD, **told, data=data)
        headers = {name.replace("_", "-"): value for name, value in BINARY.items()}
        headers |= {"ce-id": "A234-1234", "ce-time": told["time"], "ce-type": told["type"]}
        two = {**one, "id": "second"}
        for kind, body in (("", one), ("-batch", [one, two])):
            kind = f"application/cloudevents{kind}+json"
            async with http.post(
                "/v1/events", data=orjson.dumps(body), headers={"content-type": kind}
            ) as answer:
                assert answer.status == 202, await answer.text()
        async with http.post("/v1/events", data=orjson.dumps(data), headers=headers) as answer:
            assert answer.status == 202, await answer.text()
        await settled(http)
        at = int(when.timestamp() * 1000)
        assert await kept(http, "ce", 2) == [("fish-1", "view", at)] * 2
        async with http.post("/v1/events", data=b"{}", headers={**headers, "ce-id": ""}) as answer:
            assert answer.status == 400
            assert (await answer.json(content_type=None))["field"] == "ce-id"

    async def test_cloudevents_in_kafka(self, live: Stack, http: aiohttp.ClientSession) -> None:
        producer = Producer(
            {"bootstrap.servers": live.settings.kafka.bootstrap, "partitioner": "murmur2_random"}
        )
        at = now() // 1000 * 1000
        when = datetime.fromtimestamp(at / 1000, UTC).isoformat()
        headers = [("ce_specversion", "1.0"), ("ce_source", "/s"), ("ce_type", "com.example.seen")]
        headers += [("ce_time", when)]
        topic = live.settings.kafka.events_topic
        for item, event_id in (("fish-1", "k1"), ("fish-2", "k2"), ("fish-1", "k1")):
            value = orjson.dumps({"user_id": "cek", "item_id": item})
            producer.produce(topic, value, b"cek", headers=[*headers, ("ce_id", event_id)])
        assert producer.flush(20) == 0
        await settled(http)
        found = await kept(http, "cek", 2)
        assert sorted(found) == [("fish-1", "view", at), ("fish-2", "view", at)]

    async def test_plain_text_is_json_too(self, http: aiohttp.ClientSession) -> None:
        body = orjson.dumps({"user_id": "t", "item_id": "i", "type": "view", "timestamp": now()})
        async with http.post(
            "/v1/events", data=body, headers={"content-type": "text/plain;charset=UTF-8"}
        ) as answer:
            assert answer.status == 202


READS = ["/v1/recommendations/u1?n=3", "/v1/trending", "/v1/items/tea-1/similar"]


class TestOrigins:
    @pytest.mark.parametrize("path", READS)
    async def test_pages_of_allowed_origins_may_read(
        self, http: aiohttp.ClientSession, path: str
    ) -> None:
        async with http.get(path, headers={"Origin": ORIGIN}) as answer:
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert answer.headers["Vary"] == "Origin"
            assert "Access-Control-Allow-Credentials" not in answer.headers
            assert (await answer.json())["items"]
        async with http.get(f"{path.partition('?')[0]}?n=x", headers={"Origin": ORIGIN}) as answer:
            assert answer.status == 400  # a page may read what is wrong with its request
            assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN

    @pytest.mark.parametrize("path", READS)
    @pytest.mark.parametrize("origin", ["https://other.example", "http://shop.example", "null"])
    async def test_pages_of_others_may_not(
        self, http: aiohttp.ClientSession, path: str, origin: str
    ) -> None:
        async with http.get(path, headers={"Origin": origin}) as answer:
            assert answer.status == 200
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert answer.headers["Vary"] == "Origin"
        async with http.options(
            path, headers={"Origin": origin, "Access-Control-Request-Method": "GET"}
        ) as answer:
            assert answer.status == 403
            assert answer.content_type == PROBLEM
            assert "Access-Control-Allow-Origin" not in answer.headers

    @pytest.mark.parametrize(
        ("path", "method"),
        [("/v1/events", "POST"), ("/v1/recommendations", "POST"), (READS[0], "GET")],
    )
    async def test_preflights(self, http: aiohttp.ClientSession, path: str, method: str) -> None:
        asked = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "content-type",
        }
        async with http.options(path, headers=asked) as answer:
            assert answer.status == 204
            assert await answer.read() == b""
            assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert answer.headers["Access-Control-Allow-Methods"] == method
            assert "content-type" in answer.headers["Access-Control-Allow-Headers"].lower()
            assert 0 < int(answer.headers["Access-Control-Max-Age"]) <= 7200
            assert answer.headers["Vary"] == "Origin"

    @pytest.mark.parametrize("path", ["/v1/items/tea-1", "/v1/users/u1", "/metrics", "/"])
    async def test_all_else_is_for_nobody(self, http: aiohttp.ClientSession, path: str) -> None:
        async with http.get(path, headers={"Origin": ORIGIN}) as answer:
            assert answer.status == 200
            assert "Access-Control-Allow-Origin" not in answer.headers
        async with http.options(path, headers={"Origin": ORIGIN}) as answer:
            assert answer.status == 405

    async def test_events_of_pages_that_may_not_send_are_refused(
        self, live: Stack, http: aiohttp.ClientSession
    ) -> None:
        event = {"user_id": "o", "item_id": "i", "type": "view", "timestamp": now()}
        here = live.http_url.rstrip("/")
        for headers, status in (
            ({"Origin": ORIGIN}, 202),
            ({"Origin": "https://other.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": here}, 202),
            ({"Origin": "https://proxied.example", "Sec-Fetch-Site": "same-origin"}, 202),
            ({"Origin": here, "Sec-Fetch-Site": "cross-site"}, 403),
            ({}, 202),
        ):
            async with http.post("/v1/events", json=event, headers=headers) as answer:
                assert answer.status == status, headers
        for path, body in (("segment", SEGMENT), ("ga4", GA4)):
            async with http.post(
                f"/v1/events/{path}", json=body, headers={"Origin": "https://other.example"}
            ) as answer:
                assert answer.status == 403


async def answered(settings: Settings, origins: list[str], method: str) -> Any:
    """What a server with these origins says to one request; its status and headers."""
    changed_http = settings.http.model_copy(update={"cors_origins": origins})
    app = make_app(settings.model_copy(update={"http": changed_http}))
    async with HereServer(app) as server, aiohttp.ClientSession(server.make_url("/")) as http:
        path = "/v1/recommendations/u"
        async with http.request(method, path, headers={"Origin": ORIGIN}) as answer:
            return answer.status, answer.headers


async def test_everybody_may_be_let_in(settings: Settings) -> None:
    status, headers = await answered(settings, ["*"], "GET")
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "*")
    assert "Vary" not in headers


async def test_without_the_setting_nobody_is(settings: Settings) -> None:
    status, headers = await answered(settings, [], "GET")
    assert status == 200
    assert "Access-Control-Allow-Origin" not in headers
    assert (await answered(settings, [], "OPTIONS"))[0] == 405


async def test_the_script(http: aiohttp.ClientSession) -> None:
    async with http.get("/headwater.js") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert answer.headers["Cache-Control"] == "public, max-age=3600"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert len(await answer.read()) < 3000
        tag = answer.headers["ETag"]
    for known, status in ((tag, 304), (f'"x", W/{tag}', 304), ('"x"', 200)):
        async with http.get("/headwater.js", headers={"If-None-Match": known}) as answer:
            assert answer.status == status
            assert answer.headers["ETag"] == tag
            assert bool(await answer.read()) == (status == 200)
