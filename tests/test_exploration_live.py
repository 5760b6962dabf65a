"""New items over the wire: the server shows them, the log tells of it, the workers count."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from commands.stack import Stack
from config.services import Services
from store.connect import connect
from store.exposures import read_new_items
from store.keys import Keys
from streams.columns import hash_id
from streams.producer import RecordProducer
from streams.shown import Shown
from tests.live import USERS, click, eventually, get, ids, post, shop
from tests.test_poison import read

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEW = ("fresh-1", "fresh-2", "fresh-3")
EVENTS = 3
SHARE = 0.5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("exploration")
    explore = {"share": SHARE, "events": EVENTS}
    async with shop(services, home, explore=explore) as stack:
        yield stack


async def number(http: aiohttp.ClientSession, name: str) -> float | None:
    """A metric; None where no process has told it yet."""
    async with http.get("/metrics") as answer:
        text = await answer.text()
    found = re.search(rf'^{name}{{tenant="default"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else None


async def exposures(stack: Stack) -> dict[int, int]:
    redis = connect(stack.settings)
    found = await read_new_items(redis, Keys(stack.settings.store), 10**9)
    await redis.aclose()
    return dict(zip(found.item.tolist(), found.exposures.astype(int).tolist(), strict=True))


def tried(answer: dict[str, Any]) -> str | None:
    """The new item of an answer; only the last one may be marked."""
    ids(answer)
    marks = [item.get("explored") for item in answer["items"]]
    assert not any(marks[:-1])
    assert marks[-1] in (None, True)
    return answer["items"][-1]["item_id"] if marks[-1] else None


async def test_a_new_item_is_shown_counted_and_stands_on_its_own(live: Stack) -> None:
    settings = live.settings
    async with aiohttp.ClientSession(live.http_url) as http:
        for item in NEW:
            async with http.put(f"/v1/items/{item}", json={"title": item.title()}) as answer:
                assert answer.status == 202
        seen: Counter[str] = Counter()
        keys: dict[str, str | None] = {}
        cost = 0.0
        deleted: list[str] = []

        async def ask(user: int) -> dict[str, Any]:
            nonlocal cost
            body: dict[str, Any] = {"n": 10, "session": ["tea-1", "tea-2"]}
            found: dict[str, Any]
            if user % 2:
                found = await get(http, f"/v1/recommendations/u{user % USERS}?n=10")
            else:
                found = await post(http, "/v1/recommendations", body)
            assert len(found["items"]) == 10
            if (item := tried(found)) is not None:
                # For a moment after its entry, an item may still be at hand.
                assert found["items"][-1].get("title") == item.title() or item in deleted
                seen[item] += 1
                cost += found["items"][-1]["score"]
                keys[found["recommendation_id"]] = f"u{user % USERS}" if user % 2 else None
            return found

        # The server looks for new items once a second.
        await eventually(lambda: ask(1), lambda _: len(seen) == len(NEW))
        asked = 0
        before = seen.total()
        while asked < 200:
            await ask(asked)
            asked += 1
        assert seen.total() - before == pytest.approx(SHARE * asked, abs=29)  # four deviations
        for path in ("/v1/recommendations/u1?n=4", "/v1/trending", "/v1/items/tea-1/similar"):
            for _ in range(20):
                assert tried(await get(http, path)) is None

        counted = {hash_id(item): seen[item] for item in NEW}
        await eventually(lambda: exposures(live), lambda found: found == counted)
        assert await number(http, "headwater_explored_total") == seen.total()
        assert await number(http, "headwater_explored_cost_total") == pytest.approx(cost)
        assert await number(http, "headwater_explored_unpublished_total") == 0
        await eventually(
            lambda: number(http, "headwater_recommendations_applied_total"),
            lambda told: told == seen.total(),
        )
        await eventually(lambda: number(http, "headwater_new_items"), lambda told: told == len(NEW))

        topic = settings.kafka.recommendations_topic
        told = {}
        for _, (key, value), _ in read(settings, topic, seen.total()):
            shown = msgspec.json.decode(value or b"", type=Shown)
            told[shown.recommendation_id] = (key or b"").decode()
            assert set(shown.explored) <= set(NEW)
        assert told == {one: user or one for one, user in keys.items()}

        # What a worker that comes reads again is not counted again; what is no record, never.
        await live.stop_workers()
        assert settings.kafka.bootstrap is not None
        with RecordProducer(settings.kafka.bootstrap) as producer:
            producer.publish(topic, b"u1", b'{"explored":["fresh-1"]}')
        live.start_workers(1)
        [(_, (_, value), headers)] = read(settings, settings.kafka.dead_topic, 1)
        assert value == b'{"explored":["fresh-1"]}'
        assert (headers["source.topic"], headers["reason"]) == (topic, "invalid")
        before = seen.total()
        await eventually(lambda: ask(2), lambda _: seen.total() > before)
        counted = {hash_id(item): seen[item] for item in NEW}
        await eventually(lambda: exposures(live), lambda found: found == counted)

        proof = [click(f"buyer-{n}", NEW[0]) for n in range(EVENTS)]
        await post(http, "/v1/events", proof, 202)
        deleted.append(NEW[1])
        async with http.delete(f"/v1/items/{NEW[1]}") as answer:
            assert answer.status == 202
        await eventually(lambda: number(http, "headwater_new_items"), lambda told: told == 1)
        assert set(await exposures(live)) == {hash_id(NEW[2])}

        async def lately() -> set[str]:
            seen.clear()
            for user in range(40):
                await ask(user)
            return set(seen)

        await eventually(lately, lambda found: found == {NEW[2]})
