"""A whole deployment with a small shop in it, for tests that talk to the server over the wire.

Four departments of ten items; sessions stay within a department, so what belongs together is known.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from commands.stack import Stack
from config.services import Services
from processors.popularity import WINDOWS
from serving.protocol import ProblemRunner
from tests.conftest import own_settings

__all__ = [
    "DEPARTMENTS",
    "PROBLEM",
    "HereServer",
    "click",
    "eventually",
    "get",
    "ids",
    "post",
    "shop",
]

PROBLEM = "application/problem+json"
DEPARTMENTS = ("tea", "bread", "fish", "soap")
ITEMS = 10
USERS = 40
SEED = 20_260_101


class HereServer(TestServer):
    """Serves an application in this process, as `headwater serve` does."""

    __test__ = False

    async def _make_runner(self, **arguments: Any) -> web.AppRunner:
        return ProblemRunner(self.app, **arguments)


@asynccontextmanager
async def shop(
    services: Services, home: Path, *, processes: int = 1, **groups: dict[str, Any]
) -> AsyncIterator[Stack]:
    """Worker and server, with every event counted and every title known."""
    settings = own_settings(services, home, partitions=2, **groups)
    async with Stack(settings, workers=1, processes=processes, services=services) as stack:
        async with aiohttp.ClientSession(stack.http_url) as http:
            await _fill(http)
        yield stack


async def eventually(
    ask: Callable[[], Awaitable[Any]], good: Callable[[Any], object], seconds: float = 20
) -> Any:
    """The first answer that is good; fails after `seconds`."""
    limit = time.monotonic() + seconds
    while True:
        answer = await ask()
        if good(answer):
            return answer
        if time.monotonic() > limit:
            pytest.fail(f"not within {seconds} s; the last answer was {answer!r}")
        await asyncio.sleep(0.02)


async def get(http: aiohttp.ClientSession, path: str, status: int = 200) -> Any:
    async with http.get(URL(path, encoded=True)) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(content_type=None)


async def post(http: aiohttp.ClientSession, path: str, body: Any, status: int = 200) -> Any:
    async with http.post(path, json=body) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(content_type=None)


def ids(answer: dict[str, Any]) -> list[str]:
    assert answer["degraded"] is False
    assert answer["recommendation_id"]
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    found = [item["item_id"] for item in answer["items"]]
    assert len(set(found)) == len(found)
    return found


def click(user: str, item: str, **more: Any) -> dict[str, Any]:
    now = time.time_ns() // 1_000_000
    return {"user_id": user, "item_id": item, "type": "click", "timestamp": now, **more}


async def _fill(http: aiohttp.ClientSession) -> None:
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    # Recent, so that what tests do now does not push it out of the trending of an hour.
    now = time.time_ns() // 1_000_000 - 600_000
    events = []
    for user in range(USERS):
        department = DEPARTMENTS[user % len(DEPARTMENTS)]
        for step, item in enumerate(chance.sample(range(ITEMS), 6)):
            events.append(
                {
                    "user_id": f"u{user}",
                    "item_id": f"{department}-{item}",
                    "type": "view",
                    "timestamp": now + user * 1000 + step * 20_000,
                    "event_id": f"e{user}-{step}",
                }
            )
    async with http.post("/v1/events", json=events) as answer:
        assert await answer.json() == {"accepted": len(events), "rejected": []}
    for department in DEPARTMENTS:
        for item in range(ITEMS):
            entry = {
                "title": f"{department.title()} no. {item}",
                "attributes": {"kind": department},
            }
            async with http.put(f"/v1/items/{department}-{item}", json=entry) as answer:
                assert answer.status == 202

    async def ready() -> tuple[int, set[int], list[int]]:
        async with http.get("/health/ready") as answer:
            counted = (await answer.json())["events"]
        statuses = set()
        for department in DEPARTMENTS:
            for item in range(ITEMS):
                async with http.get(f"/v1/items/{department}-{item}") as answer:
                    statuses.add(answer.status)
        trending = []
        for window in WINDOWS:
            async with http.get(f"/v1/trending?n=100&window={window}") as answer:
                trending.append(len((await answer.json())["items"]))
        return counted, statuses, trending

    everything = len(events), {200}, [len(DEPARTMENTS) * ITEMS] * len(WINDOWS)
    await eventually(ready, lambda found: found == everything)
