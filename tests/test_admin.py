"""The admin port: generations switched and dropped, dead letters read and sent again, over the
wire against real Kafka and Redis.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from commands.stack import Stack, child_environment
from config.daemon import free_port
from config.services import Services
from config.settings import Settings
from store.connect import connect
from store.generations import Generations
from store.keys import Keys
from streams.producer import RecordProducer
from streams.topics import bootstrap_of
from tests.live import PROBLEM, eventually, get, ids, post, shop

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("admin")
    http = {"admin_port": free_port("127.0.0.1")}
    async with shop(services, home, http=http, learn={"share": 0, "first_events": 0}) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admin(live: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    url = f"http://127.0.0.1:{live.settings.http.admin_port}"
    async with aiohttp.ClientSession(url) as session:
        yield session


async def _problem(
    http: aiohttp.ClientSession, method: str, path: str, status: int, **more: Any
) -> dict[str, Any]:
    async with http.request(method, path, **more) as answer:
        assert answer.status == status, await answer.text()
        assert answer.content_type == PROBLEM
        found: dict[str, Any] = await answer.json(content_type=None)
        return found


async def test_the_port_has_everything_and_the_other_one_no_admin(
    live: Stack, admin: aiohttp.ClientSession
) -> None:
    assert ids(await get(admin, "/v1/trending?n=3"))
    async with aiohttp.ClientSession(live.http_url) as http:
        for method, path in (
            ("GET", "/admin/generations"),
            ("GET", "/admin/dead"),
            ("DELETE", "/admin/generations/1"),
            ("POST", "/admin/generations/1/activate"),
        ):
            assert (await _problem(http, method, path, 404))["field"] == "path"
    elsewhere = {"Origin": "https://evil.example"}
    await _problem(admin, "DELETE", "/admin/generations/1", 403, headers=elsewhere)


async def replay(settings: Settings, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commands", "replay", "--json", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(settings),
    )
    _, log = await process.communicate()
    assert process.returncode == 0, log.decode()[-1000:]


async def test_generations_are_switched_back_and_dropped(
    live: Stack, admin: aiohttp.ClientSession
) -> None:
    (only,) = (await get(admin, "/admin/generations"))["generations"]
    assert (only["generation"], only["state"], only["events"]) == (1, "live", 240)
    await replay(live.settings)
    states = await get(admin, "/admin/generations")
    assert [one["state"] for one in states["generations"]] == ["live", "ready"]
    switched = await post(admin, "/admin/generations/2/activate", {})
    assert switched == {"generation": 2, "state": "live"}
    assert await post(admin, "/admin/generations/2/activate", {}) == switched

    def says(number: int) -> bool:
        assert live.server is not None
        logs = [one.log.read_text() for one in (live.server, *live.workers)]
        return all(f"now={number}" in log for log in logs)

    async def follows(number: int) -> None:
        await eventually(lambda: asyncio.to_thread(says, number), bool)

    await follows(2)
    # Something more is counted, which the first one lacks.
    event = {"user_id": "u1", "item_id": "tea-1", "type": "view", "timestamp": 1_700_000_000_000}
    await post(admin, "/v1/events", event, 202)
    await eventually(
        lambda: get(admin, "/admin/generations"),
        lambda found: found["generations"][1]["events"] == 241,
    )
    said = (await _problem(admin, "POST", "/admin/generations/1/activate", 409))["detail"]
    assert "lacks 1 records" in said
    assert "headwater generations activate 1" in said
    await post(admin, "/admin/generations/1/activate", {"now": True})
    await follows(1)
    await eventually(
        lambda: get(admin, "/admin/generations"),
        lambda found: found["generations"][0]["events"] == 241,
    )
    assert (await _problem(admin, "DELETE", "/admin/generations/1", 409))["detail"]
    async with admin.delete("/admin/generations/2") as answer:
        assert answer.status == 202
    left = await eventually(
        lambda: get(admin, "/admin/generations"), lambda found: len(found["generations"]) == 1
    )
    assert left["generations"][0]["state"] == "live"
    redis = connect(live.settings)
    try:
        pattern = Keys(live.settings.store, 2).own_pattern
        assert [key async for key in redis.scan_iter(match=pattern, count=1000)] == []
        assert [one.number for one in await Generations(redis, live.settings).all()] == [1]
    finally:
        await redis.aclose()
    assert (await _problem(admin, "DELETE", "/admin/generations/2", 404))["field"] == "number"
    assert (await _problem(admin, "POST", "/admin/generations/9/activate", 404))["detail"]
    for wrong in ("x", "-1", "1.5", "%C3%A4"):
        path = f"/admin/generations/{wrong}"
        assert (await _problem(admin, "DELETE", path, 400))["field"] == "number"


async def test_a_dead_letter_is_mended_and_counted(
    live: Stack, admin: aiohttp.ClientSession, tmp_path: Path
) -> None:
    topic = live.settings.kafka.events_topic
    good = {"user_id": "late", "item_id": "soap-1", "type": "view", "timestamp": 1_700_000_000_000}
    with RecordProducer(bootstrap_of(live.settings)) as producer:
        for value in (b"{not json", b'{"user_id": "late"}'):
            producer.publish(topic, b"late", value)
    found = await eventually(
        lambda: get(admin, "/admin/dead?n=10"), lambda found: len(found["letters"]) == 2
    )
    assert found["kept"] == 2
    newest, first = found["letters"]
    assert first["reason"] == "not_json"
    assert (newest["reason"], newest["field"]) == ("invalid", "item_id")
    assert newest["source"]["topic"] == topic
    assert (newest["key"], newest["value"]) == ("late", '{"user_id": "late"}')
    assert (await get(admin, "/admin/dead?n=1"))["letters"] == [newest]

    where = f"/admin/dead/{newest['partition']}/{newest['offset']}/resend"
    bad = await _problem(admin, "POST", where, 400, json={"event": {**good, "item_id": ""}})
    assert bad["field"] == "event.item_id"
    bad = await _problem(admin, "POST", where, 400, json={"event": {**good, "type": "stare"}})
    assert bad["field"] == "event.type"
    assert await post(admin, where, {"event": good}, 202) == {"topic": topic}
    await eventually(lambda: get(admin, "/v1/users/late"), lambda known: known["count"] == 1)
    # As it was, it comes back.
    assert await post(admin, where, {}, 202) == {"topic": topic}
    again = await eventually(
        lambda: get(admin, "/admin/dead"), lambda found: len(found["letters"]) == 3
    )
    assert again["letters"][0]["value"] == newest["value"]
    nowhere = f"/admin/dead/{newest['partition']}/99999/resend"
    assert (await _problem(admin, "POST", nowhere, 404))["field"] == "offset"
    assert (await _problem(admin, "POST", "/admin/dead/99/0/resend", 404))["field"] == "offset"
    assert (await _problem(admin, "GET", "/admin/dead?n=0", 400))["field"] == "n"
