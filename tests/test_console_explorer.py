"""The console's explorer in a real browser: finding items, a session made of them, what is near
them, a key that the server asks for, and a server that is started again.

Needs Chromium. Where there is none the tests are skipped and say so; with CI=true they fail.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, ViewportSize, expect

from commands.stack import Stack
from config.api_keys import create_key
from config.services import Services
from tests.browser import DESK, PHONE, brightness, browsing
from tests.conftest import own_settings
from tests.live import shop

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    chromium: str, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("explorer")
    async with shop(services, home, learn={"share": 0, "first_events": 0}) as stack:
        yield stack


@asynccontextmanager
async def opened(
    chromium: str, live: Stack, viewport: ViewportSize = DESK, **options: Any
) -> AsyncIterator[Page]:
    async with browsing(chromium, live.http_url, viewport, **options) as page:
        await expect(page.locator("#connection")).to_have_text("live")
        await expect(page.locator("#recommended .item")).to_have_count(12)
        yield page


async def departments(page: Page, of: str) -> set[str]:
    rows = await page.locator(f"{of} li").all()
    return {str(await row.get_attribute("data-item")).split("-")[0] for row in rows}


async def test_items_are_found_as_one_types_and_make_a_session(chromium: str, live: Stack) -> None:
    async with opened(chromium, live) as page:
        search = page.get_by_role("searchbox", name="Find items")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await search.press_sequentially("FÏSH n", delay=20)
        await expect(page.locator("#found-said")).to_have_text("10 found")
        # One question for what was typed in one go, not one for each letter.
        assert len([url for url in asked if "search=" in url]) <= 2
        assert await departments(page, "#found") == {"fish"}
        await expect(page.locator("#trending")).to_be_hidden()
        await search.fill("soap 3")
        await expect(page.locator("#found li")).to_have_count(1)
        await page.keyboard.press("ArrowDown")
        await expect(page.locator("#found .item").first).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#session li")).to_have_text([re.compile("Soap no. 3")])
        first = page.locator("#recommended .name").first
        await expect(first).to_contain_text("Soap no.")
        why = page.locator("#recommended li").first.get_by_role("button", name="why")
        await why.click()
        await expect(page.locator("#recommended dt").first).to_have_text("Soap no. 3")

        await search.fill("bread 1")
        await page.locator("#found li[data-item='bread-1'] .item").click()
        await expect(page.locator("#session li")).to_have_text(["Soap no. 3", "Bread no. 1"])
        # What is explained changes with the session.
        row = page.locator("#recommended li[data-item^='bread-']").first
        await expect(row.locator("dt")).to_have_text(["Bread no. 1"])
        await row.get_by_role("button", name="why").click()
        await expect(row.locator("dt")).to_be_visible()
        await page.get_by_role("button", name="remove Bread no. 1").click()
        await expect(page.locator("#session li")).to_have_count(1)
        await expect(page.get_by_role("button", name="remove Soap no. 3")).to_be_focused()
        await expect(first).to_contain_text("Soap no.")

        await search.fill("nothing like it")
        await expect(page.locator("#found-said")).to_contain_text("Nothing in the catalogue")
        await search.press("Escape")
        await expect(page.locator("#trending")).to_be_visible()
        await expect(search).to_have_value("")


async def test_a_neighbourhood_is_a_picture_to_walk_through(
    chromium: str, live: Stack, tmp_path: Path
) -> None:
    async with opened(chromium, live) as page:
        await page.get_by_role("searchbox", name="Find items").fill("tea-4")
        near = page.locator("#found").get_by_role("button", name="what is near Tea no. 4")
        await near.focus()
        await page.keyboard.press("Enter")
        title = page.locator("#neighbourhood-title")
        await expect(title).to_have_text("Near Tea no. 4")
        await expect(title).to_be_focused()
        answer = await page.request.get(f"{live.http_url}/v1/items/tea-4/similar?n=12")
        items = (await answer.json())["items"]
        picture = page.get_by_role("group", name="Neighbours of Tea no. 4")
        nodes = picture.get_by_role("button")
        await expect(nodes).to_have_count(len(items))
        shown = [await node.get_attribute("data-item") for node in await nodes.all()]
        assert shown == [item["item_id"] for item in items]
        await expect(nodes.first).to_have_accessible_name(
            re.compile(f"{items[0]['title']}, 100 % of the heaviest")
        )
        # The same in words, in the same order.
        names = page.get_by_role("list", name="Neighbours by weight").locator(".name")
        await expect(names).to_have_text([item["title"] for item in items])
        radii = [
            float(str(await node.locator("circle").get_attribute("r")))
            for node in await nodes.all()
        ]
        assert radii == sorted(radii, reverse=True)
        inside = await picture.evaluate(
            "svg => [...svg.querySelectorAll('text, circle')].every(part => {"
            "const a = part.getBoundingClientRect(), b = svg.getBoundingClientRect();"
            "return a.left >= b.left && a.right <= b.right && a.top >= b.top &&"
            "a.bottom <= b.bottom; })"
        )
        assert inside
        await page.screenshot(path=tmp_path / "near.png", full_page=True)

        await nodes.first.focus()
        await page.keyboard.press("Enter")
        await expect(title).to_have_text(f"Near {items[0]['title']}")
        await expect(title).to_be_focused()
        await page.get_by_role("button", name="Add to session").click()
        await expect(page.locator("#session li")).to_have_text([re.compile(items[0]["title"])])
        await page.get_by_role("button", name="Back").click()
        await expect(title).to_have_text("Near Tea no. 4")
        await expect(page.get_by_role("button", name="Back")).to_be_hidden()
        await page.get_by_text("bought together").click()
        await expect(page.locator("#neighbourhood-said")).to_have_text(
            "Nothing is known to stand beside it yet."
        )
        await page.keyboard.press("Escape")
        await expect(page.locator("#neighbourhood")).to_be_hidden()
        await expect(near).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_explorer_fits_a_phone(
    chromium: str, live: Stack, tmp_path: Path, scheme: str
) -> None:
    async with opened(chromium, live, PHONE, color_scheme=scheme) as page:
        await page.get_by_role("searchbox", name="Find items").fill("t")
        await page.locator("#found .item").first.click()
        await page.locator("#found .near").first.click()
        await expect(page.locator("#neighbours-picture [role=button]")).to_have_count(8)
        assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        apart = await page.locator("#neighbours-picture svg").evaluate(
            "svg => { const texts = [...svg.querySelectorAll('text')];"
            "const at = texts.map(text => text.getBoundingClientRect());"
            "return at.every((a, i) => at.every((b, j) => i === j || a.right <= b.left ||"
            "b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top)); }"
        )
        assert apart, "labels lie over one another"
        assert (await brightness(page) < 200) == (scheme == "dark")
        await page.screenshot(path=tmp_path / f"explorer-{scheme}.png", full_page=True)


async def test_latency_and_trouble_are_shown_with_their_causes(chromium: str, live: Stack) -> None:
    async with opened(chromium, live) as page:
        await page.request.get(f"{live.http_url}/v1/recommendations/u1")
        await expect(page.locator("#answer-p50")).to_contain_text("ms")
        await expect(page.locator("#degraded")).to_have_text("0")
        numbers = await page.evaluate(
            "() => new Promise(done => { const source = new EventSource('/console/stream');"
            "source.onmessage = said => { source.close(); done(JSON.parse(said.data)); }; })"
        )
        numbers |= {
            "degraded": {"store_timeout": 12, "late": 30},
            "rejected": {"unknown_type": 2},
            "answer_p50_ms": 3.25,
            "answer_p99_ms": 1234,
            "shed": 7,
        }
        body = f"retry: 50\ndata: {json.dumps(numbers)}\n\n"

        async def say(route: Route) -> None:
            await route.fulfill(content_type="text/event-stream", body=body)

        await page.route("**/console/stream", say)
        await page.reload()
        await expect(page.locator("#degraded")).to_have_text("42")
        await expect(page.locator("#degraded-why")).to_have_text(
            "server too slow 30, Redis too slow 12, refused, too many 7"
        )
        await expect(page.locator("#dead")).to_have_text("2")
        await expect(page.locator("#dead-why")).to_have_text("unknown type 2")
        await expect(page.locator("#answer-p50")).to_have_text("3.3ms")
        await expect(page.locator("#answer-p99")).to_have_text("1.2 s")


async def test_numbers_go_on_when_the_server_was_started_again(chromium: str, live: Stack) -> None:
    async with opened(chromium, live, failing="ERR_") as page:
        stream = await page.evaluate(
            "async () => { const stop = new AbortController();"
            "const answer = await fetch('/console/stream', {signal: stop.signal});"
            "const kind = answer.headers.get('content-type'); stop.abort(); return kind; }"
        )
        assert stream == "text/event-stream"
        lost = page.locator("#connection[data-state=lost]")
        assert live.server is not None
        restarts = live.server.restarts
        os.kill(live.server.pid, signal.SIGKILL)
        await expect(lost).to_have_text("reconnecting")
        await expect(page.locator("#connection")).to_have_text("live")
        assert live.server.restarts == restarts + 1
        await page.locator("#recommended .item").first.click()
        await expect(page.locator("#session li")).to_have_count(1)


async def test_a_key_is_asked_for_and_kept_in_the_tab(
    chromium: str, services: Services, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    key = create_key(keys, "console", ["read"], None)
    settings = own_settings(services, tmp_path / "home", partitions=1, http={"keys_file": keys})
    async with (
        Stack(settings, workers=0, services=services) as stack,
        browsing(chromium, stack.http_url, PHONE, failing="401") as page,
    ):
        field = page.get_by_label("API key", exact=True)
        await expect(page.locator("#key-said")).to_have_text("This server asks for an API key.")
        await field.fill("wrong")
        await page.get_by_role("button", name="Use it").click()
        await expect(page.locator("#key-said")).to_have_text("That key is not known here.")
        await field.fill(key)
        await field.press("Enter")
        await expect(page.locator("#key-said")).to_contain_text("is sent with every request")
        await expect(field).to_be_hidden()
        await expect(page.locator("#recommended-empty")).to_be_visible()
        await expect(page.locator("#problem")).to_be_hidden()
        assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        await page.screenshot(path=tmp_path / "key.png")
        # It lasts as long as the tab, and is nowhere else.
        await page.reload()
        await expect(page.locator("#recommended-empty")).to_be_visible()
        assert await page.evaluate("localStorage.length") == 0
        await page.locator("#user").fill("somebody")
        await page.keyboard.press("Enter")
        await expect(page.locator("#session-empty")).to_contain_text("Nothing is known")
        await page.get_by_role("button", name="Forget the key").click()
        await expect(field).to_be_focused()
        assert await page.evaluate("sessionStorage.length") == 0
