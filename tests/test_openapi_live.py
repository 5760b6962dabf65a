"""What the server really sends is what /openapi.json says: every answer is of its type there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
import orjson
import pytest
import pytest_asyncio
from yarl import URL

from commands.stack import Stack
from config.services import Services
from config.settings import DEFAULT_SCENARIOS, DEFAULT_WEIGHTS
from serving.app import make_app
from serving.openapi import HTML, JSON, TEXT, Operation
from serving.openapi_operations import OPERATIONS, describe
from tests.conftest import own_settings
from tests.live import HereServer, eventually, shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

KNOWN = {"user_id": "u1", "item_id": "tea-1", "experiment": "alike"}
EXPERIMENTS = """
[alike]
[alike.variants.one]
[alike.variants.other]
"""
BY_NAME = {one.name: one for one in OPERATIONS}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("openapi")
    file = home / "experiments.toml"
    file.write_text(EXPERIMENTS)
    # The last place of every other answer is given to a new item, where there is one.
    experiments = {"file": str(file)}
    async with shop(services, home, explore={"share": 0.5}, experiments=experiments) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(live: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(live.http_url) as session:
        yield session


async def ask(
    http: aiohttp.ClientSession, one: Operation, body: Any = None, **values: object
) -> tuple[int, Any]:
    """Status and value of an answer, which is of the type that the operation's entry names."""
    method, path = one.route.split()
    values = {**KNOWN, **values}
    path = re.sub(r"\{(\w+)\}", lambda found: str(values.pop(found[1])), path)
    query = urlencode({k: v for k, v in values.items() if k not in KNOWN})
    url = URL(f"{path}?{query}" if query else path, encoded=True)
    data = None if body is None else orjson.dumps(body)
    async with http.request(method, url, data=data, headers={"Content-Type": JSON}) as answer:
        described = one.answers[answer.status]
        assert answer.content_type == described.media
        assert set(described.headers) <= set(answer.headers)
        if described.media in (TEXT, HTML):
            return answer.status, await answer.text()
        read = await answer.read()
    msgspec.json.decode(read, type=described.kind)
    return answer.status, orjson.loads(read)


async def test_the_document_is_that_of_the_settings(http: aiohttp.ClientSession) -> None:
    _, found = await ask(http, BY_NAME["openapi"])
    assert found == describe(DEFAULT_SCENARIOS, DEFAULT_WEIGHTS)


@pytest.mark.parametrize("name", sorted(BY_NAME))
async def test_an_answer_is_of_its_type(http: aiohttp.ClientSession, name: str) -> None:
    one = BY_NAME[name]
    where = {"user_id": "gone", "item_id": "gone"} if one.route.startswith("DELETE") else {}
    fields = () if one.query is None else msgspec.structs.fields(one.query)
    needed = {field.name: one.values[field.name] for field in fields if field.required}
    for body in one.bodies.values() or [None]:
        status, _ = await ask(http, one, body, **where, **needed)
        assert 200 <= status < 300
    if one.body is not None:
        assert (await ask(http, one, [[]]))[0] == 400
    if one.query is not None:
        values = {n: v for n, v in one.values.items() if n not in KNOWN}
        assert (await ask(http, one, **values))[0] == 200
        assert (await ask(http, one, n=0))[0] == 400


async def test_everything_that_an_item_may_have_is_described(http: aiohttp.ClientSession) -> None:
    for number in range(5):
        body: dict[str, Any] = {"title": "New", "attributes": {}}
        assert (await ask(http, BY_NAME["putItem"], body, item_id=f"new-{number}"))[0] == 202
    body = {"session": ["tea-1", "tea-2"], "n": 20, "explain": True}

    async def keys() -> set[str]:
        _, answer = await ask(http, BY_NAME["recommend"], body)
        return {key for item in answer["items"] for key in item}

    everything = {"item_id", "title", "score", "explanation", "explored"}
    await eventually(keys, lambda found: found == everything)
    _, known = await ask(http, BY_NAME["getUser"])
    assert known["session"]
    assert (await ask(http, BY_NAME["getItem"], item_id="none"))[0] == 404


async def test_problems_are_of_their_types(http: aiohttp.ClientSession) -> None:
    bad = {"user_id": "u", "item_id": "i", "type": "stare", "timestamp": 1}
    for body in (bad, [bad, 7], [], 7):
        status, found = await ask(http, BY_NAME["sendEvents"], body)
        assert status == 400
        assert ("rejected" in found) == (body != [])
    _, found = await ask(http, BY_NAME["sendEvents"], [bad, {**bad, "type": "view"}])
    assert found["accepted"] == len(found["rejected"]) == 1


async def test_a_server_without_its_store_says_so_as_described(
    services: Services, tmp_path: Path
) -> None:
    settings = own_settings(services, tmp_path / "home", partitions=2)
    nowhere = settings.redis.model_copy(update={"url": "redis://127.0.0.1:1/0"})
    server = HereServer(make_app(settings.model_copy(update={"redis": nowhere})))
    async with server, aiohttp.ClientSession(server.make_url("/")) as http:
        for name in (
            "experiments",
            "ready",
            "getUser",
            "getItem",
            "trending",
            "recommendForUser",
            "similarItems",
        ):
            status, found = await ask(http, BY_NAME[name])
            assert status == 503, name
            assert ("cause" in found) == (name == "ready")
