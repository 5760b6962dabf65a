"""Every route over the wire: Kafka, Redis, a worker and the server are real."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from commands.stack import Stack
from config.services import Services
from tests.live import DEPARTMENTS, click, eventually, get, ids, post, shop

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("http")
    # Answers to two requests are compared below: nothing may be learned in between.
    async with shop(services, home, learn={"share": 0, "first_events": 0}) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(live: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(live.http_url) as session:
        yield session


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

    async def test_items_are_found_by_their_titles(self, http: aiohttp.ClientSession) -> None:
        found = await get(http, "/v1/items?search=SOAP%20no&n=3")
        assert [one["title"][:9] for one in found["items"]] == ["Soap no. "] * 3
        assert not found["complete"]
        events = [one["events"] for one in found["items"]]
        assert events == sorted(events, reverse=True)
        assert await get(http, "/v1/items?search=nothing") == {"items": [], "complete": True}
        entry = {"title": "Öl für Fässer", "available": False}
        async with http.put("/v1/items/oil", json=entry) as answer:
            assert answer.status == 202
        one = {"item_id": "oil", "title": "Öl für Fässer", "available": False, "events": 0}
        await eventually(
            lambda: get(http, "/v1/items?search=fass%20ol"), lambda found: found["items"] == [one]
        )
        async with http.delete("/v1/items/oil") as answer:
            assert answer.status == 202
        await eventually(
            lambda: get(http, "/v1/items?search=fass"), lambda found: found["items"] == []
        )


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
        assert found['headwater_events_applied_total{tenant="default"}'] >= 240
        assert found['headwater_event_visible_seconds_count{tenant="default"}'] > 0
        assert 'headwater_hit_rate{ranking="served",tenant="default",window="5m"}' in found
        route = 'route="/v1/recommendations/{user_id}"'
        for code in (200, 400):
            name = f'headwater_request_seconds_count{{code="{code}",{route},tenant="default"}}'
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


def shown(answer: dict[str, Any]) -> list[str]:
    """Items in the order in which they are shown, which need not be that of their scores."""
    return [item["item_id"] for item in answer["items"]]


class TestScenarios:
    SESSION: ClassVar = ["bread-1", "tea-1", "tea-2"]

    async def test_what_they_decide_shows(self, http: aiohttp.ClientSession) -> None:
        """Otherwise the tests below would hold of a server that ignores it."""
        orders = set()
        for diversity in (0, 0.3, 0.9):
            for seen in (False, True):
                body = {"session": self.SESSION, "n": 17, "diversity": diversity}
                body["exclude_seen"] = seen
                orders.add(tuple(shown(await post(http, "/v1/recommendations", body))))
        assert len(orders) == 6

    @pytest.mark.parametrize(
        ("asked", "same_as"),
        [
            ({"scenario": "news"}, {"exclude_seen": True, "diversity": 0.3}),
            ({"scenario": "news", "diversity": 0}, {"exclude_seen": True}),
            ({"scenario": "news", "exclude_seen": False}, {"diversity": 0.3}),
            ({"scenario": "news", "exclude_seen": False, "diversity": 0.9}, {"diversity": 0.9}),
            ({"scenario": "news", "exclude_seen": None}, {"exclude_seen": True, "diversity": 0.3}),
            ({"scenario": "cart"}, {"exclude_seen": True}),
            ({"scenario": "cart", "exclude_seen": False}, {}),
            ({"scenario": "grocery"}, {"exclude_seen": False, "diversity": 0}),
            ({"scenario": "grocery", "exclude_seen": True}, {"exclude_seen": True}),
        ],
    )
    async def test_what_a_request_says_goes_over_its_scenario(
        self, http: aiohttp.ClientSession, asked: dict[str, Any], same_as: dict[str, Any]
    ) -> None:
        body = {"session": self.SESSION, "n": 17}
        answer = await post(http, "/v1/recommendations", {**body, **asked})
        assert shown(answer) == shown(await post(http, "/v1/recommendations", {**body, **same_as}))

    async def test_items_seen_are_left_out_where_the_scenario_says_so(
        self, http: aiohttp.ClientSession
    ) -> None:
        async def seen(**asked: object) -> set[str]:
            body = {"session": self.SESSION, "n": 20, **asked}
            return {*self.SESSION} & {*shown(await post(http, "/v1/recommendations", body))}

        assert await seen(scenario="cart") == set()
        assert await seen(scenario="cart", exclude_seen=False) == {*self.SESSION}
        assert await seen(scenario="grocery") == {*self.SESSION}

    async def test_a_query_says_the_same_as_a_body(self, http: aiohttp.ClientSession) -> None:
        known = await get(http, "/v1/users/u0")
        seen = {event["item_id"] for event in known["session"] + known["history"]}
        for query, body in (
            ("n=10&scenario=cart", {"n": 10, "scenario": "cart"}),
            ("exclude_seen=true", {"exclude_seen": True}),
            ("scenario=news&exclude_seen=false", {"scenario": "news", "exclude_seen": False}),
            ("n=7&diversity=0.8", {"n": 7, "diversity": 0.8}),
        ):
            path, asked = f"/v1/recommendations/u0?{query}", {"user_id": "u0", **body}

            async def both(path: str = path, asked: dict[str, Any] = asked) -> list[Any]:
                return [await get(http, path), await post(http, "/v1/recommendations", asked)]

            # What is trending may be read anew between the two.
            answer, _ = await eventually(both, lambda two: two[0]["items"] == two[1]["items"], 5)
            leaves_out = "cart" in query or "seen=true" in query
            assert bool(seen & {*shown(answer)}) != leaves_out

    async def test_each_window_answers_for_its_scenario(self, http: aiohttp.ClientSession) -> None:
        days_ago = time.time_ns() // 1_000_000 - 3 * 86_400_000
        bought = [
            {**click(f"old-{n}", "classic", timestamp=days_ago + n), "type": "purchase"}
            for n in range(40)
        ]
        await post(http, "/v1/events", bought, 202)
        await eventually(
            lambda: get(http, "/v1/trending?window=7d&n=1"),
            lambda answer: shown(answer) == ["classic"],
        )
        for scenario, first in (("grocery", True), ("cart", True), ("news", False)):
            answer = await get(http, f"/v1/recommendations/nobody?scenario={scenario}&diversity=0")
            assert (shown(answer)[0] == "classic") == first


async def test_diversity_brings_another_department_forward(http: aiohttp.ClientSession) -> None:
    body = {"session": ["bread-1", "tea-1", "tea-2", "tea-3"], "n": 20}
    plain = shown(await post(http, "/v1/recommendations", body))
    diverse = shown(await post(http, "/v1/recommendations", {**body, "diversity": 0.8}))
    assert plain[0] == diverse[0]
    assert plain[1].split("-")[0] == "tea"
    assert diverse[1].split("-")[0] == "bread"
    assert shown(await post(http, "/v1/recommendations", {**body, "diversity": 0})) == plain


class TestExplanations:
    async def check(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        """Every explanation, each of which adds up to its score."""
        found = []
        for item in answer["items"]:
            why = item["explanation"]
            assert set(why) == {"contributions", "trending", "factor"}
            parts = [part["co_occurrence"] + part["repeat"] for part in why["contributions"]]
            assert 0 not in parts
            told = why["factor"] * sum(parts) + why["trending"]
            assert told == pytest.approx(item["score"], abs=1e-6, rel=0)
            found.append(why)
        assert found
        return found

    async def test_they_add_up_and_name_the_sessions_items(
        self, http: aiohttp.ClientSession
    ) -> None:
        session = ["bread-1", "tea-1", "never-seen", "tea-2", "tea-1"]
        body = {"session": session, "n": 35, "explain": True}
        answer = await post(http, "/v1/recommendations", body)
        explained = await self.check(answer)
        by_item = dict(zip(shown(answer), explained, strict=True))
        parts = {
            (item, part["item_id"]): part
            for item, why in by_item.items()
            for part in why["contributions"]
        }
        assert {of for _, of in parts} == {"bread-1", "tea-1", "tea-2"}
        assert all(part["title"].endswith(part["item_id"][-1]) for part in parts.values())
        assert parts["tea-1", "tea-1"]["repeat"] > 0
        assert parts["tea-1", "tea-2"]["repeat"] == 0
        assert parts["tea-1", "tea-2"]["co_occurrence"] > 0
        # Fish and soap are in no session with tea or bread.
        filled = [why for item, why in by_item.items() if item.split("-")[0] in ("fish", "soap")]
        assert filled
        assert all(why["trending"] > 0 and not why["contributions"] for why in filled)

    async def test_they_change_nothing_else(self, http: aiohttp.ClientSession) -> None:
        for more in ({}, {"diversity": 0.5}, {"scenario": "cart"}):
            body: dict[str, Any] = {"session": ["soap-1", "soap-2"], "n": 8, **more}
            plain = await post(http, "/v1/recommendations", body)
            explained = await post(http, "/v1/recommendations", {**body, "explain": True})
            await self.check(explained)
            for item in explained["items"]:
                del item["explanation"]
            assert explained["items"] == plain["items"]

    async def test_a_query_asks_for_them_too(self, http: aiohttp.ClientSession) -> None:
        explained = await self.check(await get(http, "/v1/recommendations/u3?explain=true&n=5"))
        assert all(why["contributions"] for why in explained)
        await self.check(await get(http, "/v1/recommendations/nobody?explain=true"))
        plain = await get(http, "/v1/recommendations/u3?explain=false")
        assert not any("explanation" in item for item in plain["items"])


async def test_bought_together_is_not_seen_together(http: aiohttp.ClientSession) -> None:
    for n in range(3):
        session = [("lamp", "view"), ("rug", "view"), ("lamp", "purchase"), ("bulb", "purchase")]
        events = [
            {**click(f"buyer-{n}", item, session_id=f"s{n}"), "type": kind}
            for item, kind in session
        ]
        await post(http, "/v1/events", events, 202)
    for n in range(3):
        await eventually(
            lambda user=f"buyer-{n}": get(http, f"/v1/users/{user}"),  # type: ignore[misc]
            lambda known: known["count"] == 4,
        )
    bought = await get(http, "/v1/items/lamp/similar?relation=bought")
    assert shown(bought) == ["bulb"]
    viewed = await get(http, "/v1/items/lamp/similar?n=5&relation=viewed")
    assert set(shown(viewed)) == {"rug", "bulb"}
    assert viewed["items"] == (await get(http, "/v1/items/lamp/similar"))["items"]
    assert shown(await get(http, "/v1/items/rug/similar?relation=bought")) == []


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
