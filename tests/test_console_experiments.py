"""The console's experiments in a real browser, as they are while users come and click.

Needs Chromium. Where there is none the tests are skipped and say so; with CI=true they fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from commands.stack import Stack
from config.services import Services
from streams.shown import Shown
from tests.browser import DESK, PHONE, brightness, browsing
from tests.live import click, eventually, get, post, shop
from tests.test_exploration_live import number
from tests.test_poison import read

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEED = 11
USERS = 160
FILE = """
[steeper]
share = 0.9
[steeper.variants.control]
[steeper.variants.steep]
scenario = {diversity = 0.4}
[in-the-basket]
scenarios = ["cart"]
running = false
[in-the-basket.variants.as-it-was]
[in-the-basket.variants.more-of-the-same]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """A shop whose users have been drawn into variants, and click more in one of them."""
    home = tmp_path_factory.mktemp("console-experiments")
    file = home / "experiments.toml"
    file.write_text(FILE)
    learn = {"share": 0, "first_events": 0}
    experiments = {"file": str(file), "publish_all": True}
    async with shop(services, home, experiments=experiments, learn=learn) as stack:
        async with aiohttp.ClientSession(stack.http_url) as http:
            await visits(http)
        yield stack


async def visits(http: aiohttp.ClientSession, first: int = 0, count: int = USERS) -> dict[str, Any]:
    """Users who come and look and click; returns what is told of them, once all are counted."""
    chance = Random(SEED)
    print(f"seed {SEED}")
    before = totals(await get(http, "/v1/experiments/steeper"))
    events = []
    drawn = 0
    for place in range(first, first + count):
        user = f"guest-{place}"
        answer = await get(http, f"/v1/recommendations/{user}?n=5")
        if "experiment" not in answer:
            continue
        drawn += 1
        steep = answer["experiment"]["variant"] == "steep"
        if chance.random() < (0.6 if steep else 0.2):
            item = answer["items"][0]["item_id"]
            led = answer["recommendation_id"]
            events.append(click(user, item, recommendation_id=led))
    await post(http, "/v1/events", events, 202)
    wanted = before[0] + drawn, before[1] + len(events)
    told: dict[str, Any] = await eventually(
        lambda: get(http, "/v1/experiments/steeper"), lambda found: totals(found) == wanted
    )
    return told


def totals(found: dict[str, Any]) -> tuple[int, int]:
    """Users and clicks."""
    rows = found["variants"]
    return sum(row["users"] for row in rows), sum(row["clicks"] for row in rows)


def variant(page: Page, name: str) -> str:
    return f'[data-variant="{name}"]'


async def test_all_answers_are_published_where_a_setting_says_so(live: Stack) -> None:
    async with aiohttp.ClientSession(live.http_url) as http:
        body = {"session": ["tea-1", "tea-2"], "n": 3}
        answers = [
            await get(http, "/v1/trending?n=3"),
            await get(http, "/v1/items/tea-1/similar?n=3"),
            await post(http, "/v1/recommendations", body),
        ]
        published = "headwater_recommendations_published_total"
        topic = live.settings.kafka.recommendations_topic
        before = await eventually(lambda: number(http, published), lambda told: told)

        def found() -> dict[str, Shown]:
            count = int(before or 0)
            # There may be more of them by now.
            records = islice(read(live.settings, topic, count), count)
            some = [msgspec.json.decode(value or b"", type=Shown) for _, (_, value), _ in records]
            return {one.recommendation_id: one for one in some}

        async def again() -> dict[str, Shown]:
            nonlocal before
            before = await number(http, published)
            return await asyncio.to_thread(found)

        wanted = {one["recommendation_id"] for one in answers}
        told = await eventually(again, lambda some: wanted <= set(some))
    for one in answers:
        shown = told[one["recommendation_id"]]
        assert shown.items == [item["item_id"] for item in one["items"]]
        assert shown.user_id is shown.experiment is shown.variant is None
    assert any(one.experiment == "steeper" for one in told.values())


async def test_it_tells_what_came_of_each(chromium: str, live: Stack, tmp_path: Path) -> None:
    async with aiohttp.ClientSession(live.http_url) as http:
        known = await get(http, "/v1/experiments/steeper")
    async with browsing(chromium, live.http_url, DESK) as page:
        boxes = page.locator("#experiments details")
        await expect(boxes).to_have_count(2)
        first = boxes.first
        await expect(first.locator("summary")).to_contain_text("steeper")
        await expect(first.locator(".state")).to_have_text("running")
        await expect(first.locator(".verdict")).to_have_text(known["verdict"])
        assert "Clicks: steep is better than control" in known["verdict"]
        for row in known["variants"]:
            card = first.locator(variant(page, row["variant"]))
            await expect(card.locator(".variant-name")).to_contain_text(f"{row['users']} users")
            await expect(card.locator(".share strong").first).to_have_text(
                f"{100 * row['click_through']['rate']:.1f} %"
            )
        better = first.locator(f"{variant(page, 'steep')} .against").first
        await expect(better).to_have_attribute("data-word", "better")
        # One that is stopped is folded, and opened by keyboard.
        stopped = boxes.nth(1)
        await expect(stopped.locator(".state")).to_have_text("stopped")
        await expect(stopped.locator(".verdict")).to_be_hidden()
        await stopped.locator("summary").focus()
        await page.keyboard.press("Enter")
        await expect(stopped.locator(".verdict")).to_have_text("Nobody was shown anything yet.")
        await page.screenshot(path=tmp_path / "experiments-desk.png", full_page=True)

        # More users come: the numbers follow, what is open stays open, and the focus where it was.
        async with aiohttp.ClientSession(live.http_url) as http:
            now = await visits(http, USERS, 20)
        card = first.locator(variant(page, "control"))
        users = now["variants"][0]["users"]
        await expect(card.locator(".variant-name")).to_contain_text(f"{users} users")
        await expect(stopped.locator(".verdict")).to_be_visible()
        assert await stopped.locator("summary").evaluate("e => e === document.activeElement")


async def test_it_fits_a_phone_and_the_dark(chromium: str, live: Stack, tmp_path: Path) -> None:
    async with browsing(chromium, live.http_url, PHONE, color_scheme="dark") as page:
        await expect(page.locator("#experiments .variant")).to_have_count(4)
        assert await brightness(page) < 150
        wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wide
        summary = page.locator("#experiments summary").first
        box = await summary.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        await page.screenshot(path=tmp_path / "experiments-phone.png", full_page=True)
