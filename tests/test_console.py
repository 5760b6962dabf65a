"""The console page in a real browser: what somebody sees who looks, clicks and types.

Needs Chromium. Where there is none the tests are skipped and say so; with CI=true they fail.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, ViewportSize, expect

from commands.stack import Stack
from config.services import Services
from tests.browser import DESK, PHONE, brightness, browsing
from tests.live import DEPARTMENTS, click, eventually, shop

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    chromium: str, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    async with shop(services, tmp_path_factory.mktemp("console")) as stack:
        yield stack


@asynccontextmanager
async def opened(
    chromium: str, live: Stack, viewport: ViewportSize = DESK, **options: Any
) -> AsyncIterator[Page]:
    """The page, loaded and live. Fails when the browser complained about anything."""
    async with browsing(chromium, live.http_url, viewport, **options) as page:
        await expect(page.locator("#connection")).to_have_text("live")
        await expect(page.locator("#trending .item")).to_have_count(12)
        await expect(page.locator("#recommended .item")).to_have_count(12)
        yield page


async def shown(page: Page) -> list[str]:
    rows = page.locator("#recommended li")
    return [str(await row.get_attribute("data-item")) for row in await rows.all()]


def department(item: str) -> str:
    return item.split("-")[0]


async def test_the_numbers_are_live(chromium: str, live: Stack, tmp_path: Path) -> None:
    async with opened(chromium, live) as page:
        await expect(page.locator("#events")).to_have_text("240")
        await expect(page.locator("#lag")).to_have_text("0")
        await expect(page.locator("#rate")).to_have_text("0")
        await page.wait_for_function("document.querySelector('#spark .line').getAttribute('d')")
        await page.screenshot(path=tmp_path / "desk.png")


async def test_the_evaluation_is_what_the_metrics_say(chromium: str, live: Stack) -> None:
    async with opened(chromium, live) as page:
        # What is known by now predicts these, so that there are hits.
        clicks = [click(f"late{user}", f"soap-{item}") for user in range(5) for item in range(4)]
        sent = await page.request.post(f"{live.http_url}/v1/events", data=clicks)
        assert (await sent.json())["accepted"] == len(clicks)
        cells = page.locator("#evaluation tbody td[data-window='24h']")

        async def read() -> tuple[list[str], list[str]]:
            answer = await page.request.get(f"{live.http_url}/metrics")
            lines = dict(line.rsplit(" ", 1) for line in (await answer.text()).splitlines())
            said = []
            for ranking in ("rule", "learned"):
                for name in ("hit_rate", "mrr"):
                    value = lines[
                        f'headwater_{name}{{ranking="{ranking}",tenant="default",window="24h"}}'
                    ]
                    said.append(f"{100 * float(value):.1f}")
            return await cells.all_inner_texts(), said

        await eventually(read, lambda both: both[0] == both[1] and float(both[1][0]) > 0)
        predicted = await page.locator("#evaluation [data-count][data-window='24h']").inner_text()
        assert int(predicted) > 0
        await expect(page.locator("#evaluation .served:visible")).to_have_count(1)


async def test_the_served_ranking_is_marked_in_words(chromium: str, live: Stack) -> None:
    async with opened(chromium, live) as page:
        numbers = await page.evaluate(
            "() => new Promise(done => { const source = new EventSource('/console/stream');"
            "source.onmessage = said => { source.close(); done(JSON.parse(said.data)); }; })"
        )
        numbers["evaluation"]["1h"] = {
            "predictions": 1234,
            "rule": {"hit_rate": 0.5, "mrr": 0.2504},
            "learned": {"hit_rate": 0.625, "mrr": 1},
            "served": {"hit_rate": 0.6, "mrr": 0.3},
        }

        async def say(route: Route) -> None:
            body = f"retry: 50\ndata: {json.dumps(numbers)}\n\n"
            await route.fulfill(content_type="text/event-stream", body=body)

        await page.route("**/console/stream", say)
        for served, label in (("learned", "Learned"), ("rule", "Rule")):
            numbers["served"] = served
            await page.reload()
            await expect(page.get_by_role("rowheader", name="served")).to_have_text(
                f"{label} served"
            )
        table = page.get_by_role("table", name="Live evaluation")
        shares = table.locator("tbody td[data-window='1h']")
        await expect(shares).to_have_text(["50.0", "25.0", "62.5", "100.0"])
        await expect(table.locator("[data-count][data-window='1h']")).to_have_text("1,234")


async def test_an_anonymous_session_changes_what_is_recommended(chromium: str, live: Stack) -> None:
    async with opened(chromium, live) as page:
        before = await shown(page)
        first = page.locator("#trending .item").first
        item = str(await page.locator("#trending li").first.get_attribute("data-item"))
        await first.click()
        await expect(page.locator("#session li")).to_have_count(1)
        await page.wait_for_function(
            "before => [...document.querySelectorAll('#recommended li')]"
            ".map(row => row.dataset.item).join() !== before",
            arg=",".join(before),
        )
        after = await shown(page)
        assert {department(one) for one in after[:9]} == {department(item)}
        title = f"{department(item).title()} no. "
        await expect(page.locator("#session li").first).to_contain_text(title)
        await expect(page.locator("#recommended .name").first).to_contain_text(title)
        await expect(page.locator("#timing")).to_contain_text("ms to answer")

        await page.locator("#clear").click()
        await expect(page.locator("#session li")).to_have_count(0)
        await page.wait_for_function(
            "before => [...document.querySelectorAll('#recommended li')]"
            ".map(row => row.dataset.item).join() === before",
            arg=",".join(before),
        )


async def test_a_recommended_item_says_why(chromium: str, live: Stack, tmp_path: Path) -> None:
    contributions = [
        {"item_id": "a", "title": "<i>A</i>", "co_occurrence": 0.1, "repeat": 0.05},
        {"item_id": "b", "co_occurrence": 0.2, "repeat": 0.0},
        *({"item_id": f"c{n}", "co_occurrence": 0.0, "repeat": 0.01} for n in range(5)),
    ]

    async def explain(route: Route) -> None:
        answer = await (await route.fetch()).json()
        answer["items"][0].pop("explanation", None)
        for item in answer["items"][1:]:
            item["score"] = 1.0
            item["explanation"] = {
                "contributions": contributions,
                "trending": 0.2,
                "factor": 2.0,
            }
        await route.fulfill(json=answer)

    async with opened(chromium, live, PHONE) as page:
        await page.route("**/v1/recommendations", explain)
        await page.locator("#trending .item").first.click()
        await expect(page.locator("#recommended .why:visible")).to_have_count(11)
        row = page.locator("#recommended li").nth(1)
        why = row.get_by_role("button", name="why", exact=False)
        await expect(why).to_have_accessible_name(re.compile(r"why \w+ no\. \d"))
        await row.locator(".item").focus()
        await page.keyboard.press("Tab")
        await expect(why).to_be_focused()
        await expect(why).to_have_attribute("aria-expanded", "false")
        await page.keyboard.press("Enter")
        await expect(why).to_have_attribute("aria-expanded", "true")
        lines = [line.split("\n") for line in await row.locator(".reasons > div").all_inner_texts()]
        names = [line[0] for line in lines]
        assert names == ["b", "<i>A</i>", "c0", "c1", "c2", "2 more", "Everybody"]
        shares = [float(line[-1].removesuffix(" %")) for line in lines]
        assert shares == [40, 30, 2, 2, 2, 4, 20]
        assert lines[0][1] == "seen together"
        assert lines[1][1] == "together 67 %, again 33 %"
        assert lines[2][1] == "seen again"
        assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        await page.screenshot(path=tmp_path / "why.png", full_page=True)
        await page.keyboard.press("Enter")
        await expect(row.locator(".reasons")).to_be_hidden()


async def test_the_reasons_are_the_sessions_items_and_add_up(chromium: str, live: Stack) -> None:
    async with opened(chromium, live) as page:
        for user in ("", "u1"):
            await page.locator("#user").fill(user)
            await page.locator("#who button[type=submit]").click()
            await expect(page.locator("#user")).to_have_value(user)
            if not user:
                await page.locator("#trending .item").first.click()
            await expect(page.locator("#session li")).not_to_have_count(0)
            session = await page.locator("#session li").all_inner_texts()
            row = page.locator("#recommended li").first
            await expect(row.locator(".name")).to_contain_text(session[-1].split(" no. ")[0])
            await row.locator(".why").click()
            assert {*await row.locator("dt").all_inner_texts()} <= {*session, "2 more", "1 more"}
            shares = await row.locator("dd:not(.kind)").all_inner_texts()
            total = sum(float(share.removesuffix(" %")) for share in shares)
            assert total == pytest.approx(100, abs=0.5 * len(shares))


async def test_a_click_of_a_user_is_an_event_that_changes_the_answer(
    chromium: str, live: Stack
) -> None:
    async with opened(chromium, live) as page:
        await page.locator("#user").fill("visitor <b>1</b>")
        await page.keyboard.press("Enter")
        await expect(page.locator("#session-title")).to_have_text("Session of visitor <b>1</b>")
        await expect(page.locator("#session-empty")).to_be_visible()
        item = str(await page.locator("#trending li").nth(1).get_attribute("data-item"))
        await page.locator("#trending .item").nth(1).click()
        await expect(page.locator("#timing")).to_contain_text("ms click to new answer")
        await expect(page.locator("#session li")).to_have_count(1)
        assert {department(one) for one in (await shown(page))[:9]} == {department(item)}

        await page.locator("#nobody").click()
        await expect(page.locator("#session-title")).to_have_text("Your session")
        await expect(page.locator("#user")).to_have_value("")
        await page.locator("#user").fill("visitor <b>1</b>")
        await page.keyboard.press("Enter")
        await expect(page.locator("#session li")).to_have_count(1)


async def test_the_keyboard_is_enough(chromium: str, live: Stack) -> None:
    async with opened(chromium, live) as page:
        await page.keyboard.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="API")).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("searchbox", name="Find items")).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(page.locator("input[name=window]").first).to_be_focused()
        async with page.expect_response("**/v1/trending?*window=24h") as asked:
            await page.keyboard.press("ArrowRight")
        await expect(page.locator("input[value='24h']")).to_be_checked()
        # Before that list is there, the item that gets the focus may still leave the list.
        listed = [item["item_id"] for item in (await (await asked.value).json())["items"]]
        await page.wait_for_function(
            "listed => [...document.querySelectorAll('#trending li')]"
            ".map(row => row.dataset.item).join() === listed",
            arg=",".join(listed),
        )
        await page.keyboard.press("Tab")
        row = page.locator("#trending .item:focus")
        await expect(row).to_have_count(1)
        chosen = await row.evaluate("row => row.parentElement.dataset.item")
        await page.keyboard.press("Enter")
        await expect(page.locator("#session li")).to_have_count(1)
        # The list may have moved on meanwhile; the focus stays with the item.
        await expect(page.locator(f"#trending [data-item='{chosen}'] .item")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_needs_no_sideways_scrolling(
    chromium: str, live: Stack, tmp_path: Path, scheme: str
) -> None:
    async with opened(chromium, live, PHONE, color_scheme=scheme) as page:
        await page.locator("#recommended .item").first.click()
        await expect(page.locator("#session li")).to_have_count(1)
        assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        cells = "[...document.querySelectorAll('#evaluation :is(th, td)')]"
        assert await page.evaluate(
            # The widest that they can say.
            f"{cells}.every(cell => {{ if (cell.dataset.share) cell.textContent = '100.0';"
            "return cell.scrollWidth <= cell.clientWidth; })"
        )
        assert (await brightness(page) < 200) == (scheme == "dark")
        await page.screenshot(path=tmp_path / f"phone-{scheme}.png", full_page=True)


async def test_titles_are_text_whatever_they_hold(chromium: str, live: Stack) -> None:
    async with opened(chromium, live) as page:
        title = "<img src=x onerror=alert(1)>"
        item = f"{DEPARTMENTS[0]}-0"
        put = await page.request.put(f"{live.http_url}/v1/items/{item}", data={"title": title})
        assert put.status == 202
        await page.locator("#user").fill("u0")
        row = page.locator(f"#recommended li[data-item='{item}'] .name")

        async def read() -> str:
            await page.locator("#who button[type=submit]").click()
            await expect(row).to_have_count(1)
            return await row.inner_text()

        await eventually(read, lambda text: title in text)
        assert await page.locator("main img").count() == 0
