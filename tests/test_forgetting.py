"""A user is forgotten over HTTP: at once, and again by whoever reads the log from its beginning."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
from redis.asyncio import Redis

from commands.stack import Stack
from config.services import Services
from config.settings import Settings
from store.connect import connect
from store.keys import Keys
from streams.columns import hash_names
from tests.conftest import own_settings
from tests.live import click, eventually, get, post
from tests.test_recovery import check_everything

SEED = 11
USERS = [f"user-{n}" for n in range(30)]
GONE, BACK = USERS[3], USERS[4]


def events_of(random: Random, now: int) -> list[dict[str, Any]]:
    """Sessions of all users; the ids of events tell which were remembered."""
    return [
        click(user, f"item {random.randrange(12)}", timestamp=now + 1000 * n, event_id=f"e{n}")
        for n in range(8)
        for user in USERS
    ]


def session_key(settings: Settings, user: str) -> bytes:
    return Keys(settings.store).sessions(hash_names([user.encode()]))[0]


async def test_a_forgotten_user_stays_forgotten(services: Services, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    settings = own_settings(services, tmp_path, partitions=3, learn={"share": 0, "first_events": 0})
    now = time.time_ns() // 1_000_000 - 100_000
    sent = events_of(Random(SEED), now)
    async with (
        Stack(settings, workers=1, services=services) as stack,
        aiohttp.ClientSession(stack.http_url) as http,
    ):
        redis = connect(stack.settings)
        try:
            await post(http, "/v1/events", sent, 202)
            await _until_known(http, dict.fromkeys(USERS, 8))
            assert await redis.exists(session_key(settings, GONE))
            # Both are forgotten while the worker dies; one of them has a new history since, which
            # begins with an event_id that was counted before.
            await _forget(http, GONE)
            stack.workers[0].kill()
            await _forget(http, BACK)
            again = click(BACK, "item 1", timestamp=now, event_id="e0")
            await post(http, "/v1/events", [again], 202)
            stack.workers[0].kill()
            expected = {**dict.fromkeys(USERS, 8), GONE: 0, BACK: 1}
            await _until_known(http, expected)
            await _check(stack.settings, http, redis)

            # What a new worker makes of the whole log, into an empty store.
            await stack.stop_workers()
            pattern = Keys(stack.settings.store).pattern
            await redis.delete(*[key async for key in redis.scan_iter(match=pattern)])
            stack.start_workers(1)
            await check_everything(stack.settings)
            await _until_known(http, expected)
            await _check(stack.settings, http, redis)
        finally:
            await redis.aclose()


async def _forget(http: aiohttp.ClientSession, user: str) -> None:
    async with http.delete(f"/v1/users/{user}") as answer:
        assert answer.status == 202
        assert await answer.json() == {"user_id": user}


async def _until_known(http: aiohttp.ClientSession, counts: dict[str, int]) -> None:
    for user, count in counts.items():
        await eventually(
            lambda user=user: get(http, f"/v1/users/{user}"),  # type: ignore[misc]
            lambda known, count=count: known["count"] == count,  # type: ignore[misc]
            60,  # a worker that was killed takes its time to start where other things run, too
        )


async def _answers(http: aiohttp.ClientSession, *users: str) -> list[Any]:
    return [await get(http, f"/v1/recommendations/{user}?n=5") for user in users]


async def _check(settings: Settings, http: aiohttp.ClientSession, redis: Redis) -> None:
    assert not await redis.exists(session_key(settings, GONE))
    nothing = {"user_id": GONE, "count": 0, "session": [], "history": []}
    assert await get(http, f"/v1/users/{GONE}") == nothing
    # A server process that looked at what is trending while the store was empty answers with that
    # for up to two seconds, another one does not.
    await eventually(
        lambda: _answers(http, "nobody", GONE),
        lambda answers: (
            len(answers[0]["items"]) == 5 and answers[0]["items"] == answers[1]["items"]
        ),
        10,
    )
    known = await get(http, f"/v1/users/{BACK}")
    assert [event["item_id"] for event in known["session"]] == ["item 1"]
    await check_everything(settings)
