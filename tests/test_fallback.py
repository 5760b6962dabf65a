"""What is answered while Redis is frozen, dead, slow or empty: the ladder of `serving/fallback.py`,
over the wire, and that all of it heals by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import orjson
import pytest
import pytest_asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from commands.stack import Stack
from config.services import Services
from config.settings import Settings, load_settings
from serving.answers import Answers
from serving.experiments import Assigned
from serving.exposures import Exposures
from serving.outage import Outage, StoreDown
from serving.recommend import Recommender
from serving.wanted import Choice
from store.connect import connect
from store.keys import Keys
from store.reader import StoreReader
from store.writer import StoreWriter
from streams.columns import hash_id
from streams.producer import RecordProducer
from streams.topics import bootstrap_of
from tests.live import eventually, get, ids, post, shop
from tests.oracle import BASE, Click
from tests.test_store import commit

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECONDS = 0.5
"""Longest wait for Redis."""
LITTLE = 0.5
"""What an answer may take beside that, on a machine that does other things meanwhile."""
SESSION = {"session": ["tea-1", "tea-2"], "n": 6}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """A shop on a Redis of its own, which tests may break and must heal."""
    home = tmp_path_factory.mktemp("fallback")
    own = load_settings(
        kafka={"bootstrap": services.kafka_bootstrap}, services={"data_dir": home / "own"}
    )
    with Services(own) as breakable:
        async with shop(breakable, home / "home", redis={"timeout_seconds": SECONDS}) as stack:
            yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def http(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        stack.http_url, connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        # Everything that is to be held has been read once.
        await _until_full(session)
        assert _departments(await post(session, "/v1/recommendations", SESSION)) == {"tea"}
        await get(session, "/v1/items/fish-1/similar?n=5")
        assert ids(await get(session, "/v1/trending"))
        yield session
        await _until_full(session)


async def _until_full(http: aiohttp.ClientSession) -> None:
    """Until answers are full, and from then on all are."""
    # A user's own session is read for each answer; a posted one's lists may be of a moment ago.
    await eventually(lambda: get(http, "/v1/recommendations/u1"), _is_full)
    for _ in range(20):
        assert ids(await post(http, "/v1/recommendations", SESSION))
        assert ids(await get(http, "/v1/recommendations/u1"))


def _is_full(answer: dict[str, Any]) -> bool:
    return answer["degraded"] is False and bool(answer["items"])


def _departments(answer: dict[str, Any]) -> set[str]:
    return {item["item_id"].split("-")[0] for item in answer["items"]}


async def _timed(ask: Any) -> tuple[float, dict[str, Any]]:
    started = time.monotonic()
    answer = await ask
    return time.monotonic() - started, answer


async def _degraded(http: aiohttp.ClientSession) -> dict[str, float]:
    """Answers so far that were not full, by labels."""
    async with http.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    found = [line.rsplit(" ", 1) for line in lines if line.startswith("headwater_degraded_total{")]
    return {
        labels.partition("{")[2].removesuffix(',tenant="default"}'): float(count)
        for labels, count in found
    }


async def _check_lower_rungs(http: aiohttp.ClientSession) -> None:
    """What is held answers; where nothing is, what was trending does."""
    asked = {**SESSION, "exclude": ["tea-3"], "exclude_seen": True, "explain": True}
    answer = await post(http, "/v1/recommendations", asked)
    assert answer["degraded"] is True
    assert _departments(answer) == {"tea"}
    assert len(answer["items"]) == 6
    assert not {"tea-1", "tea-2", "tea-3"} & {item["item_id"] for item in answer["items"]}
    for item in answer["items"]:
        assert item["title"].startswith("Tea no. ")
        assert item["explanation"]["contributions"]
    similar = await get(http, "/v1/items/fish-1/similar?n=5")
    assert similar["degraded"] is True
    assert _departments(similar) == {"fish"}
    assert len(similar["items"]) == 5
    for path in ("/v1/recommendations/u1?n=7", "/v1/items/unknown/similar?n=7"):
        answer = await get(http, path)
        assert answer["degraded"] is True
        assert len(answer["items"]) == 7
        assert all(item["title"] for item in answer["items"])
    nothing = await post(http, "/v1/recommendations", {"session": ["unknown"], "n": 3})
    assert nothing["degraded"] is True
    assert len(nothing["items"]) == 3


async def test_a_frozen_redis(stack: Stack, http: aiohttp.ClientSession) -> None:
    redis = stack.services.redis
    assert redis is not None
    before = await _degraded(http)
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        # All at once, and no more than are let in: none waits for another's deadline.
        burst = [post(http, "/v1/recommendations", SESSION) for _ in range(35)]
        burst += [get(http, f"/v1/recommendations/u{n % 40}") for n in range(35)]
        answers = await asyncio.gather(*map(_timed, burst))
        print(f"slowest of 70 at once: {max(seconds for seconds, _ in answers):.3f} s")
        assert max(seconds for seconds, _ in answers) < SECONDS + 2 * LITTLE
        assert all(answer["items"] for _, answer in answers)
        # What a posted session needs may have been read a moment ago; a user's own is always read.
        assert all(answer["degraded"] for _, answer in answers[35:])
        started = time.monotonic()
        await _check_lower_rungs(http)
        # The store is known to be down: nobody waits for it any more.
        assert time.monotonic() - started < LITTLE
        assert await get(http, "/health/live") == {"live": True}
        async with http.get("/health/ready") as answer:
            assert answer.status == 503
    finally:
        os.kill(redis.pid, signal.SIGCONT)
    await _until_full(http)
    counted = await eventually(
        lambda: _degraded(http), lambda now: sum(now.values()) >= sum(before.values()) + 40
    )
    for source in ("lists", "trending"):
        labels = f'cause="store_timeout",source="{source}"'
        assert counted[labels] > before.get(labels, 0)


async def test_filters_hold_without_the_store(stack: Stack, http: aiohttp.ClientSession) -> None:
    body: dict[str, Any] = {"n": 5, "filter": {"kind": "soap"}, "strict": True}
    sessions: list[list[str] | None] = [["soap-8", "soap-9"], ["never-seen"], None]
    asked = [{**body, "session": session} for session in sessions]
    away = {"title": "Soap no. 0", "available": False, "attributes": {"kind": "soap"}}
    async with http.put("/v1/items/soap-0", json=away) as answer:
        assert answer.status == 202
    for one in asked:
        await eventually(
            lambda one=one: post(http, "/v1/recommendations", one),  # type: ignore[misc]
            lambda answer: _departments(answer) == {"soap"} and "soap-0" not in ids(answer),
        )
    redis = stack.services.redis
    assert redis is not None
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        for one in asked:
            answer = await eventually(
                lambda one=one: post(http, "/v1/recommendations", one),  # type: ignore[misc]
                lambda answer: answer["degraded"],
            )
            assert len(answer["items"]) == 5
            assert _departments(answer) == {"soap"}
            assert "soap-0" not in {item["item_id"] for item in answer["items"]}
        # One that is not strict is filled up with what else there is.
        answer = await post(http, "/v1/recommendations", {"n": 20, "filter": {"kind": "soap"}})
        assert answer["degraded"] is True
        outside = [item["item_id"] for item in answer["items"] if item.get("outside_filter")]
        assert len(answer["items"]) == 20
        assert len(outside) == 11 == answer["filled"]["outside_filter"]
        assert not any(one.startswith("soap") for one in outside)
    finally:
        os.kill(redis.pid, signal.SIGCONT)
        async with http.put("/v1/items/soap-0", json={**away, "available": True}) as answer:
            assert answer.status == 202


async def test_a_dead_redis_that_comes_back(stack: Stack, http: aiohttp.ClientSession) -> None:
    redis = stack.services.redis
    assert redis is not None
    await asyncio.to_thread(redis.kill)
    try:
        async with http.get("/v1/users/u1") as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) >= 1
        await _check_lower_rungs(http)
    finally:
        await asyncio.to_thread(redis.start)
    await _until_full(http)


async def test_a_slow_redis_holds_nobody_up(stack: Stack, http: aiohttp.ClientSession) -> None:
    """Each command waits for a script of 0.4 s, less than any deadline: an answer has several."""
    client = connect(stack.settings)
    busy = (
        "local function now() local t = redis.call('TIME') return t[1] + t[2] / 1e6 end "
        "local limit = now() + 0.4 while now() < limit do end"
    )

    async def keep_busy() -> None:
        while True:
            with contextlib.suppress(Exception):
                await client.eval(busy, 0)

    blockers = [asyncio.create_task(keep_busy()) for _ in range(2)]
    try:
        asked = []
        for n in range(150):
            path = f"/v1/recommendations/u{n % 40}?n=5"
            ask = get(http, path) if n % 2 else post(http, "/v1/recommendations", SESSION)
            asked.append(asyncio.create_task(_timed(ask)))
            await asyncio.sleep(0.02)  # the pace of those who ask
        answers = await asyncio.gather(*asked)
    finally:
        for blocker in blockers:
            blocker.cancel()
        await asyncio.gather(*blockers, return_exceptions=True)
        await client.aclose()
    slowest = max(seconds for seconds, _ in answers)
    degraded = sum(answer["degraded"] for _, answer in answers)
    print(f"slowest of {len(answers)}: {slowest:.3f} s, {degraded} degraded")
    assert slowest < SECONDS + LITTLE
    assert all(answer["items"] for _, answer in answers)


async def test_a_redis_that_lost_everything(stack: Stack, http: aiohttp.ClientSession) -> None:
    await stack.stop_workers()
    client = connect(stack.settings)
    try:
        pattern = Keys(stack.settings.store).pattern
        await client.delete(*[key async for key in client.scan_iter(match=pattern)])
        answer = await eventually(
            lambda: get(http, "/v1/recommendations/u1?n=5"), lambda answer: answer["degraded"]
        )
        assert len(answer["items"]) == 5
        for path in ("/v1/trending?n=5", "/v1/recommendations/nobody?n=5"):
            assert len((await get(http, path))["items"]) == 5
    finally:
        await client.aclose()
        stack.start_workers(1)
    # A worker takes its time to start where other things run, too.
    await eventually(lambda: get(http, "/v1/recommendations/u1"), _is_full, 60)


VARIANT = Assigned("x", "a", {}, None, None, b',"experiment":{"name":"x","variant":"a"}')


async def test_a_store_that_goes_away_soon_after_its_first_events(settings: Settings) -> None:
    """Nobody remembered yet what is trending: what one answer has read is all there is."""
    redis = connect(settings)
    clicks = [Click(n, f"u{n % 3}", f"i{n % 5}", "view", BASE + 1000 * n) for n in range(30)]
    await commit(StoreWriter(redis, settings), settings, clicks)
    reader = StoreReader(redis, settings)
    outage = Outage(_fail, 5)
    producer = RecordProducer(bootstrap_of(settings))
    exposures = Exposures(producer, settings.kafka.recommendations_topic, everything=False)
    answers = Answers(Recommender(reader, settings), outage, exposures)
    try:
        full = orjson.loads(await answers.recommend(Choice(5, hash_id("nobody")), "nobody"))
        assert len(ids(full)) == 5
        with pytest.raises(StoreDown):
            await outage.ask(_fail)
        asked = [Choice(3), Choice(3, session=np.array([hash_id("i9")], np.uint64))]
        for choice in asked:
            answer = orjson.loads(await answers.recommend(choice, "u1", VARIANT))
            assert answer["degraded"] is True
            assert "experiment" not in answer  # it says nothing of the variant
            assert answer["items"] == full["items"][:3]
    finally:
        outage.close()
        producer.close()
        await redis.aclose()


async def _fail() -> None:
    raise RedisConnectionError("gone")
