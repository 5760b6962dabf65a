"""headwater.js in a real browser, on pages of other origins than the server's.

Needs Chromium, as `test_console.py` does.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from confluent_kafka import Consumer, TopicPartition
from playwright.async_api import Browser, Page, async_playwright

from commands.stack import Stack
from config.api_keys import create_key
from config.services import Services
from tests.conftest import own_settings
from tests.live import eventually, get, shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_MS = 20_000


class Pages:
    """The server under test, and web pages of two origins that include its script."""

    def __init__(self, stack: Stack, http: aiohttp.ClientSession, browser: Browser) -> None:
        self.stack, self.http, self.browser = stack, http, browser
        self.ports = {"allowed": 0, "other": 0}

    @asynccontextmanager
    async def opened(self, user: str = "", origin: str = "allowed") -> AsyncIterator[Page]:
        context = await self.browser.new_context()
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        try:
            await page.goto(f"http://127.0.0.1:{self.ports[origin]}/?{user}")
            yield page
        finally:
            await context.close()

    async def count(self, user: str) -> int:
        known: dict[str, Any] = await get(self.http, f"/v1/users/{user}")
        return int(known["count"])

    async def arrived(self, user: str, count: int) -> None:
        await eventually(lambda: self.count(user), lambda found: found >= count)
        assert await self.count(user) == count

    def in_kafka(self, user: str) -> Counter[str]:
        """How often each item stands in the log for a user."""
        kafka = self.stack.settings.kafka
        consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "p", "log_level": 2})
        found: Counter[str] = Counter()
        try:
            parts = [TopicPartition(kafka.events_topic, p, 0) for p in range(kafka.partitions)]
            left = sum(consumer.get_watermark_offsets(part, timeout=20)[1] for part in parts)
            consumer.assign(parts)
            while left:
                some = consumer.consume(left, timeout=20)
                assert some
                left -= len(some)
                for message in some:
                    if message.key() == user.encode():
                        found[orjson.loads(message.value() or b"")["item_id"]] += 1
        finally:
            consumer.close()
        return found


@asynccontextmanager
async def serving_pages(chromium: str, stack: Stack, allowed: int) -> AsyncIterator[Pages]:
    """Pages on the port `allowed`, and on another; their query is `user`, or `user&key`."""

    async def html(request: web.Request) -> web.Response:
        user, _, key = request.query_string.partition("&")
        told = [f'data-{n}="{v}"' for n, v in (("user", user), ("key", key)) if v]
        source = f"{stack.http_url.rstrip('/')}/headwater.js"
        script = f'<script src="{source}" {" ".join(told)}></script>'
        text = f"<!doctype html><title>shop</title>{script}"
        return web.Response(text=text, content_type="text/html")

    app, other = web.Application(), web.Application()
    app.router.add_get("/", html)
    other.router.add_get("/", html)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with (
        aiohttp.ClientSession(stack.http_url) as http,
        async_playwright() as playwright,
        TestServer(app, port=allowed),
        TestServer(other) as second,
    ):
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        made = Pages(stack, http, browser)
        made.ports = {"allowed": allowed, "other": second.port or 0}
        yield made
        await browser.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pages(
    chromium: str, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pages]:
    allowed = unused_port()
    cors = {"cors_origins": [f"http://127.0.0.1:{allowed}"]}
    async with (
        shop(services, tmp_path_factory.mktemp("pages"), http=cors) as stack,
        serving_pages(chromium, stack, allowed) as made,
    ):
        yield made


async def test_events_arrive_once_and_recommendations_are_read(pages: Pages) -> None:
    async with pages.opened("page-1") as page:
        kinds: list[str] = []
        page.on(
            "request", lambda request: kinds.append(f"{request.method} {request.resource_type}")
        )
        await page.evaluate(
            "() => { for (let n = 0; n < 25; n++) headwater.track('view', `tea-${n % 10}`) }"
        )
        await pages.arrived("page-1", 25)
        assert "OPTIONS" not in kinds
        answer = await page.evaluate("() => headwater.recommend(4)")
        assert [item["item_id"].split("-")[0] for item in answer["items"]] == ["tea"] * 4
        await page.evaluate(
            """(id) => headwater.track('click', 'tea-5',
                 { recommendation_id: id, position: 2, session_id: 's' })""",
            answer["recommendation_id"],
        )
        await pages.arrived("page-1", 26)
    found = pages.in_kafka("page-1")
    assert found == {f"tea-{n}": 3 if n < 6 else 2 for n in range(10)}


async def test_what_waits_leaves_with_the_page(pages: Pages) -> None:
    async with pages.opened("page-2") as page:
        shop = page.url
        await page.evaluate(
            """() => {
                 const send = navigator.sendBeacon.bind(navigator)
                 navigator.sendBeacon = (...one) => {
                   const taken = send(...one)
                   localStorage.beacon = taken
                   return taken
                 }
                 headwater.track('cart', 'fish-1')
               }"""
        )
        await page.goto("about:blank")
        await pages.arrived("page-2", 1)
        await page.goto(shop)
        assert await page.evaluate("() => localStorage.beacon") == "true"
    assert pages.in_kafka("page-2") == {"fish-1": 1}


async def test_what_fails_is_sent_again(pages: Pages) -> None:
    async with pages.opened("page-3") as page:
        lost: list[str] = []

        async def lose(route: Any) -> None:
            lost.append(route.request.url)
            await (route.abort() if len(lost) == 1 else route.fulfill(status=503))

        await page.route("**/v1/events", lose)
        await page.evaluate("() => headwater.track('view', 'soap-1')")
        await eventually(lambda: _now(len(lost)), lambda count: count >= 2)
        await page.evaluate("() => headwater.track('view', 'soap-2')")
        await page.unroute("**/v1/events")
        await pages.arrived("page-3", 2)
    assert pages.in_kafka("page-3") == {"soap-1": 1, "soap-2": 1}


async def test_an_anonymous_user_stays_the_same(pages: Pages) -> None:
    async with pages.opened() as page:
        user = await page.evaluate("() => headwater.user")
        assert len(user) == 32
        await page.evaluate("() => headwater.track('view', 'tea-1')")
        await page.reload()
        assert await page.evaluate("() => headwater.user") == user
        await page.evaluate("() => headwater.track('view', 'tea-2')")
        await pages.arrived(user, 2)
    async with pages.opened() as page:
        assert await page.evaluate("() => headwater.user") != user


async def test_pages_of_other_origins_are_refused(pages: Pages) -> None:
    async def refused() -> float:
        """How often the server itself has refused events."""
        name = 'headwater_request_seconds_count{code="403",route="/v1/events",'
        async with pages.http.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    async with pages.opened("page-4", "other") as page:
        failed = await page.evaluate(
            "() => headwater.recommend(4).then(() => 'read', (error) => String(error))"
        )
        assert "Failed to fetch" in failed
        await page.evaluate("() => headwater.track('view', 'tea-1')")
        sent = await eventually(refused, lambda count: count >= 1)
        # It is kept, for the page cannot know why. A beacon asks nobody: the server has to refuse.
        await page.goto("about:blank")
        await eventually(refused, lambda count: count > sent)
    async with pages.opened("page-5") as page:
        await page.evaluate("() => headwater.track('view', 'tea-1')")
        await pages.arrived("page-5", 1)
    assert pages.in_kafka("page-4") == {}


async def test_pages_with_a_key(chromium: str, services: Services, tmp_path: Path) -> None:
    """Without a worker: what arrives is looked for in Kafka."""
    keys_file = tmp_path / "keys.json"
    key = create_key(keys_file, "pages", ["page"], None)
    slow = create_key(keys_file, "slow", ["page"], "1 per 1 hour")
    port = unused_port()
    http = {"cors_origins": [f"http://127.0.0.1:{port}"], "keys_file": keys_file}
    settings = own_settings(services, tmp_path / "home", partitions=1, http=http)
    async with (
        Stack(settings, workers=0, processes=1, services=services) as stack,
        serving_pages(chromium, stack, port) as pages,
    ):
        async with pages.opened(f"keyed&{key}") as page:
            assert (await page.evaluate("() => headwater.recommend(4)"))["items"] == []
            await page.evaluate("() => headwater.track('view', 'tea-1')")
            await eventually(
                lambda: _now(pages.in_kafka("keyed")), lambda found: found["tea-1"] == 1
            )
            await page.evaluate("() => headwater.track('view', 'tea-2')")
            await page.goto("about:blank")  # a beacon would carry no key
            await eventually(
                lambda: _now(pages.in_kafka("keyed")), lambda found: found["tea-2"] == 1
            )
        for user, refused in ((f"bad&{key}x", 401), (f"slow&{slow}", 429)):
            async with pages.opened(user) as page:
                told = await page.evaluate(
                    """async () => {
                         const ask = () => headwater.recommend(4).catch((error) => String(error))
                         await ask()
                         return ask()
                       }"""
                )
                assert f"headwater: {refused}" in told  # and not that nothing could be fetched
        allowed = {"X-API-Key": key}
        for method, path, status in (
            ("GET", "/v1/recommendations/u", 200),
            ("GET", "/v1/items/i/similar", 200),
            ("GET", "/v1/items/i", 403),
            ("PUT", "/v1/items/i", 403),
            ("GET", "/v1/users/u", 403),
            ("DELETE", "/v1/users/u", 403),
        ):
            async with pages.http.request(method, path, headers=allowed) as answer:
                assert answer.status == status, path


async def _now(value: Any) -> Any:
    return value
