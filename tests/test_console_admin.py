"""What the console has on the admin port, in a real browser: generations and dead letters.

Needs Chromium. Where there is none the tests are skipped and say so; with CI=true they fail.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Page, ViewportSize, expect

from commands.stack import Stack
from config.daemon import free_port
from config.services import Services
from streams.producer import RecordProducer
from streams.topics import bootstrap_of
from tests.browser import DESK, PHONE, brightness, browsing
from tests.live import eventually, get, shop
from tests.test_admin import replay

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    chromium: str, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """With a second generation, and two dead letters."""
    home = tmp_path_factory.mktemp("console-admin")
    http = {"admin_port": free_port("127.0.0.1")}
    async with shop(services, home, http=http, learn={"share": 0, "first_events": 0}) as stack:
        await replay(stack.settings, "--set", "fold.half_life_days=5")
        with RecordProducer(bootstrap_of(stack.settings)) as producer:
            for value in (b"{not json", b'{"user_id": "late"}'):
                producer.publish(stack.settings.kafka.events_topic, b"late", value)
        async with aiohttp.ClientSession(admin_url(stack)) as http_session:
            await eventually(
                lambda: get(http_session, "/admin/dead"), lambda found: len(found["letters"]) == 2
            )
        yield stack


def admin_url(live: Stack) -> str:
    return f"http://127.0.0.1:{live.settings.http.admin_port}"


@asynccontextmanager
async def opened(
    chromium: str, live: Stack, viewport: ViewportSize = DESK, **options: Any
) -> AsyncIterator[Page]:
    async with browsing(chromium, admin_url(live), viewport, **options) as page:
        await expect(page.locator("#connection")).to_have_text("live")
        await expect(page.locator("#generations tbody tr")).to_have_count(2)
        await expect(page.locator("#recommended .item")).to_have_count(12)
        yield page


async def test_other_ports_have_none_of_it(chromium: str, live: Stack) -> None:
    async with browsing(chromium, live.http_url) as page:
        await expect(page.locator("#connection")).to_have_text("live")
        await expect(page.locator("#admin")).to_be_hidden()
        await expect(page.locator("#experiments")).to_be_hidden()  # there are none


async def test_it_fits_a_phone_and_the_dark(chromium: str, live: Stack, tmp_path: Path) -> None:
    async with opened(chromium, live, PHONE, color_scheme="dark") as page:
        assert await brightness(page) < 150
        wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wide
        await page.screenshot(path=tmp_path / "admin-phone.png", full_page=True)


async def test_a_letter_is_mended_and_sent_again(
    chromium: str, live: Stack, tmp_path: Path
) -> None:
    async with opened(chromium, live, failing="400") as page:
        await expect(page.locator("#letters li")).to_have_count(2)
        await expect(page.locator("#letters-kept")).to_have_text("2 kept")
        newest = page.locator("#letters li").first
        await expect(newest.locator("strong")).to_have_text("invalid: item_id")
        text, button = newest.locator("textarea"), newest.locator("button")
        await expect(text).to_have_value('{"user_id": "late"}')
        await text.fill("{")
        await button.click()
        await expect(page.locator("#admin-said")).to_contain_text("not JSON")
        await text.fill('{"user_id": "late", "item_id": "tea-1", "type": "stare", "timestamp": 1}')
        await button.click()
        await expect(page.locator("#admin-said")).to_contain_text("stare")
        event = {"user_id": "late", "item_id": "tea-1", "type": "view", "timestamp": 1_700_000_000}
        await text.fill(json.dumps(event))
        await button.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#admin-said")).to_contain_text("again, mended")
        async with aiohttp.ClientSession(live.http_url) as http:
            await eventually(lambda: get(http, "/v1/users/late"), lambda known: known["count"] == 1)
        await page.screenshot(path=tmp_path / "admin-desk.png", full_page=True)


async def test_generations_are_switched_and_dropped(chromium: str, live: Stack) -> None:
    async with opened(chromium, live, failing="409") as page:
        page.on("dialog", lambda dialog: dialog.accept())
        first = page.locator('tr[data-generation="1"]')
        second = page.locator('tr[data-generation="2"]')
        await expect(first.locator("[data-state]")).to_have_text("live")
        # It lacks the event of the letter above, perhaps: the dialog is accepted.
        await second.get_by_role("button", name="Switch to generation 2").click()
        await expect(page.locator("#admin-said")).to_have_text("Generation 2 answers.")
        await expect(second.locator("[data-state]")).to_have_text("live")
        await expect(second.get_by_role("button")).to_have_count(0)
        await first.get_by_role("button", name="Drop generation 1").click()
        await expect(page.locator("#generations tbody tr")).to_have_count(1)
