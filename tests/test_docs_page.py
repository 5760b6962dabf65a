"""The page at /docs in a real browser. Needs Chromium, as the console's tests do."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect
from yarl import URL

from commands.stack import Stack
from config.services import Services
from serving.openapi_operations import OPERATIONS
from tests.browser import PHONE, brightness, browsing
from tests.live import shop

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    chromium: str, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    async with shop(services, tmp_path_factory.mktemp("docs")) as stack:
        yield stack


async def opened(page: Page, name: str) -> Locator:
    operation = page.locator(f"#{name}")
    await operation.locator("> summary").click()
    await expect(operation.locator(".content")).to_be_visible()
    return operation


async def unfold(page: Page) -> None:
    """Open what is folded up, and what that holds; a filter holds filters without end."""
    for _ in range(5):
        await page.evaluate(
            "document.querySelectorAll('.operation[open] details:not([open])').forEach(one => {"
            "one.open = true; one.dispatchEvent(new Event('toggle')); })"
        )


async def answer_to(command: str) -> Any:
    """What curl would print."""
    word, *words = shlex.split(command.replace("\\\n", " "))
    assert word == "curl"
    options = {}
    headers = {}
    while len(words) > 1:
        at = next(place for place, one in enumerate(words) if one in ("-X", "-H", "-d"))
        name, value = words.pop(at), words.pop(at)
        if name == "-H":
            header, _, value = value.partition(": ")
            headers[header] = value
        else:
            options[name] = value
    async with aiohttp.request(
        options.get("-X", "GET"),
        URL(words[0], encoded=True),
        headers=headers,
        data=options.get("-d"),
    ) as answer:
        return await answer.json()


async def test_every_operation_is_there(chromium: str, live: Stack, tmp_path: Path) -> None:
    async with browsing(chromium, f"{live.http_url}/docs") as page:
        await expect(page.locator(".operation")).to_have_count(len(OPERATIONS))
        links = page.locator("#contents a")
        assert await links.count() == len(OPERATIONS)
        await page.screenshot(path=tmp_path / "desk.png")
        for one in OPERATIONS:
            operation = await opened(page, one.name)
            method, path = one.route.split()
            assert await operation.locator("> summary .method").inner_text() == method
            assert await operation.locator("> summary .path").inner_text() == path
            await expect(operation.locator("form.request")).to_be_visible()
        await unfold(page)
        assert "undefined" not in await page.locator("main").inner_text()
        await page.screenshot(path=tmp_path / "unfolded.png", full_page=True)


async def test_a_request_is_sent_and_its_answer_shown(
    chromium: str, live: Stack, tmp_path: Path
) -> None:
    async with browsing(chromium, f"{live.http_url}/docs", failing="400") as page:
        operation = await opened(page, "recommendForUser")
        await operation.get_by_label("user_id").fill("u2")
        await operation.get_by_label("n", exact=True).fill("3")
        await operation.get_by_label("explain").select_option("true")
        await operation.get_by_role("button", name="Send").click()
        await expect(operation.locator(".status")).to_contain_text("200 OK")
        await expect(operation.locator(".headers")).to_contain_text("application/json")
        answer = json.loads(await operation.locator(".answer pre").inner_text())
        assert len(answer["items"]) == 3
        assert "explanation" in answer["items"][0]
        await operation.screenshot(path=tmp_path / "answer.png")
        await operation.get_by_label("n", exact=True).fill("0")
        await operation.get_by_role("button", name="Send").click()
        await expect(operation.locator(".status")).to_contain_text("400 Bad Request")
        assert json.loads(await operation.locator(".answer pre").inner_text())["field"] == "n"


async def test_the_command_does_the_same(chromium: str, live: Stack) -> None:
    async with browsing(
        chromium, f"{live.http_url}/docs", permissions=["clipboard-read", "clipboard-write"]
    ) as page:
        operation = await opened(page, "recommend")
        body = {"session": ["tea-1", "it's ⚡"], "n": 4}
        await operation.get_by_label("body: ").fill(json.dumps(body, indent=1))
        await operation.get_by_role("button", name="Copy").click()
        await expect(operation.get_by_text("copied")).to_be_visible()
        command = await page.evaluate("navigator.clipboard.readText()")
        assert command == await operation.locator(".command code").inner_text()
        assert len((await answer_to(command))["items"]) == 4

        operation = await opened(page, "getUser")
        await operation.get_by_label("user_id").fill("a/b ?%'")
        command = await operation.locator(".command code").inner_text()
        assert (await answer_to(command))["user_id"] == "a/b ?%'"


async def test_a_key_is_sent_along(chromium: str, live: Stack) -> None:
    async with browsing(chromium, f"{live.http_url}/docs") as page:
        operation = await opened(page, "trending")
        command = operation.locator(".command code")
        await expect(command).not_to_contain_text("-H")
        await page.get_by_label("API key").fill("k'1")
        await expect(command).to_contain_text("-H 'X-API-Key: k'\\''1'")
        async with page.expect_request("**/v1/trending**") as asked:
            await operation.get_by_role("button", name="Send").click()
        assert await (await asked.value).header_value("X-API-Key") == "k'1"
        await expect(operation.locator(".status")).to_contain_text("200 OK")


async def test_examples_of_bodies_can_be_chosen(chromium: str, live: Stack) -> None:
    async with browsing(chromium, f"{live.http_url}/docs") as page:
        operation = await opened(page, "sendEvents")
        body = operation.get_by_label("body: ")
        assert json.loads(await body.input_value())["type"] == "view"
        await operation.get_by_label("Example body").select_option(label="two")
        assert len(json.loads(await body.input_value())) == 2
        assert "[{" in await operation.locator(".command code").inner_text()
        await operation.get_by_role("button", name="Send").click()
        await expect(operation.locator(".status")).to_contain_text("202 Accepted")


async def test_the_keyboard_is_enough_and_operations_have_addresses(
    chromium: str, live: Stack
) -> None:
    async with browsing(chromium, f"{live.http_url}/docs#trending") as page:
        trending = page.locator("#trending")
        await expect(trending.locator("> summary")).to_be_focused()
        await expect(trending.locator("form")).to_be_visible()
        await page.keyboard.press("Tab")
        await expect(trending.get_by_label("n", exact=True)).to_be_focused()
        await page.keyboard.type("2")
        await page.keyboard.press("Enter")
        await expect(trending.locator(".status")).to_contain_text("200 OK")
        await page.locator("#contents a", has_text="Forget a user").press("Enter")
        await expect(page.locator("#forgetUser form")).to_be_visible()


async def test_both_pages_lead_to_each_other(chromium: str, live: Stack) -> None:
    async with browsing(chromium, live.http_url) as page:
        await page.get_by_role("link", name="API").click()
        await expect(page.locator("#recommendForUser")).to_be_visible()
        await page.get_by_role("link", name="Console", exact=True).click()
        await expect(page.locator("#connection")).to_have_text("live")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_needs_no_sideways_scrolling(
    chromium: str, live: Stack, tmp_path: Path, scheme: str
) -> None:
    url = f"{live.http_url}/docs"
    async with browsing(chromium, url, PHONE, color_scheme=scheme) as page:
        operation = await opened(page, "recommend")
        await unfold(page)
        await operation.get_by_role("button", name="Send").click()
        await expect(operation.locator(".status")).to_contain_text("200 OK")
        assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert (await brightness(page) < 200) == (scheme == "dark")
        await page.screenshot(path=tmp_path / f"phone-{scheme}.png", full_page=True)
