"""Every kind of bad request, over the wire: each is told which field breaks a rule."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from commands.stack import Stack
from config.services import Services
from config.settings import DEFAULT_SCENARIOS
from tests.live import PROBLEM, get, post, shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST_BODY = 50_000
LONG = "x" * 129
GOOD_EVENT = {"user_id": "u", "item_id": "i", "type": "view", "timestamp": 1}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("http")
    async with shop(services, home, http={"max_body_bytes": MOST_BODY}) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(live: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(live.http_url) as session:
        yield session


def deep(opening: str, closing: str = "") -> bytes:
    return (opening * 30_000 + closing)[: MOST_BODY - 1].encode()


def event(**changes: Any) -> bytes:
    return json.dumps({**GOOD_EVENT, **changes}).encode()


BAD_REQUESTS: list[tuple[str, str, bytes | None, int, str]] = [
    *(
        ("GET", f"/v1/recommendations/u?n={n}", None, 400, "n")
        for n in ("0", "101", "-1", "x", "1.5", "", "1e1", "%D9%A3", "%00", "9" * 400)
    ),
    ("GET", "/v1/recommendations/u?n=1&n=2", None, 400, "n"),
    ("GET", "/v1/recommendations/u?m=1", None, 400, "m"),
    *(
        ("GET", f"/v1/recommendations/u?{name}={value}", None, 400, name)
        for name, values in {
            "diversity": ("", "-0.1", "1.01", "x", "nan", "inf", "1e999", "0,5", "%D9%A1", "1_0"),
            "exclude_seen": ("", "1", "yes", "True", "null", "%FF"),
            "explain": ("", "0", "no", "TRUE", "true%20"),
            "scenario": ("", "News", "news%20", "none", "%00", "x" * 400),
            "filter": ("a",),
            "boost": ("a",),
            "relation": ("viewed",),
        }.items()
        for value in values
    ),
    ("GET", "/v1/recommendations/u?explain=true&explain=true", None, 400, "explain"),
    ("GET", "/v1/recommendations/u?scenario=news&n=0", None, 400, "n"),
    ("GET", "/v1/recommendations/%FF?scenario=news", None, 400, "user_id"),
    ("GET", "/v1/recommendations/", None, 400, "user_id"),
    ("GET", f"/v1/recommendations/{LONG}", None, 400, "user_id"),
    ("GET", "/v1/recommendations/%FF", None, 400, "user_id"),
    ("GET", "/v1/recommendations/%ED%A0%80", None, 400, "user_id"),
    ("GET", "/v1/recommendations/%zz", None, 400, "user_id"),
    ("GET", "/v1/recommendations/a%2", None, 400, "user_id"),
    *(
        ("GET", f"/v1/items{query}", None, 400, field)
        for query, field in (
            ("", "search"),
            ("?search=", "search"),
            (f"?search={LONG}", "search"),
            ("?search=a&search=b", "search"),
            ("?search=a&n=0", "n"),
            ("?search=a&offset=1", "offset"),
        )
    ),
    ("GET", "/v1/items//similar", None, 400, "item_id"),
    ("GET", "/v1/items/i/similar?n=0", None, 400, "n"),
    *(
        ("GET", f"/v1/items/i/similar?relation={relation}", None, 400, "relation")
        for relation in ("", "liked", "Viewed", "viewed,bought", "%00")
    ),
    ("GET", "/v1/items/i/similar?relation=bought&relation=viewed", None, 400, "relation"),
    ("GET", "/v1/items/i/similar?relation=bought&n=x", None, 400, "n"),
    ("GET", "/v1/items/i/similar?scenario=news", None, 400, "scenario"),
    ("GET", "/v1/items/%80", None, 400, "item_id"),
    ("GET", f"/v1/items/{LONG}", None, 400, "item_id"),
    ("GET", "/v1/items/unknown-item", None, 404, "item_id"),
    ("GET", f"/v1/users/{LONG}", None, 400, "user_id"),
    ("GET", "/v1/users/%FF", None, 400, "user_id"),
    ("DELETE", f"/v1/users/{LONG}", None, 400, "user_id"),
    ("DELETE", "/v1/users/", None, 400, "user_id"),
    ("DELETE", "/v1/users/u?now=1", None, 400, "now"),
    ("GET", "/v1/trending?n=x", None, 400, "n"),
    ("GET", "/v1/trending?window=2h", None, 400, "window"),
    ("GET", "/v1/trending?window=", None, 400, "window"),
    ("POST", "/v1/recommendations", b"", 400, "body"),
    ("POST", "/v1/recommendations", b"{", 400, "body"),
    ("POST", "/v1/recommendations", b"[]", 400, "body"),
    ("POST", "/v1/recommendations", b"null", 400, "body"),
    ("POST", "/v1/recommendations", b'"text"', 400, "body"),
    ("POST", "/v1/recommendations", b"{} {}", 400, "body"),
    ("POST", "/v1/recommendations", b"\xff\xfe", 400, "body"),
    ("POST", "/v1/recommendations", b'{"user_id": "\xff"}', 400, "body"),
    ("POST", "/v1/recommendations", b'{"user_id": "\\ud800"}', 400, "body"),
    ("POST", "/v1/recommendations", b'{"n": NaN}', 400, "body"),
    ("POST", "/v1/recommendations", b'{"n": Infinity}', 400, "body"),
    ("POST", "/v1/recommendations", b'{"n": 0}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"n": 101}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"n": "5"}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"n": true}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"n": 1.5}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"n": 1e999}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"n": null}', 400, "n"),
    ("POST", "/v1/recommendations", b'{"user_id": ""}', 400, "user_id"),
    ("POST", "/v1/recommendations", b'{"user_id": 5}', 400, "user_id"),
    ("POST", "/v1/recommendations", b'{"user_id": "%b"}' % LONG.encode(), 400, "user_id"),
    ("POST", "/v1/recommendations", b'{"session": "a"}', 400, "session"),
    ("POST", "/v1/recommendations", b'{"session": ["a", ""]}', 400, "session[1]"),
    ("POST", "/v1/recommendations", b'{"session": [null]}', 400, "session[0]"),
    (
        "POST",
        "/v1/recommendations",
        json.dumps({"session": ["a"] * 1001}).encode(),
        400,
        "session",
    ),
    ("POST", "/v1/recommendations", b'{"exclude": {"a": 1}}', 400, "exclude"),
    ("POST", "/v1/recommendations", b'{"exclude_seen": "yes"}', 400, "exclude_seen"),
    ("POST", "/v1/recommendations", b'{"userid": "a"}', 400, "userid"),
    *(
        ("POST", "/v1/recommendations", b'{"%b": 1}' % name, 400, name.decode())
        for name in (b"filter", b"boost")
    ),
    *(
        ("POST", "/v1/recommendations", b'{"%b": %b}' % (name.encode(), value), 400, name)
        for name, values in {
            "diversity": (b"-0.1", b"1.01", b'"0.5"', b"true", b"[]", b"1e999"),
            "exclude_seen": (b"1", b'"true"', b"{}"),
            "explain": (b"1", b'"true"', b"null"),
            "scenario": (b'""', b'"News"', b'"none"', b'"news "', b'"\\u0000"', b"5", b"[]"),
        }.items()
        for value in values
    ),
    ("POST", "/v1/recommendations", b'{"diversity": NaN}', 400, "body"),
    ("POST", "/v1/recommendations?n=1", b"{}", 400, "n"),
    ("POST", "/v1/recommendations", deep("["), 400, "body"),
    ("POST", "/v1/recommendations", deep('{"session":'), 400, "session"),
    ("POST", "/v1/recommendations", b" " * (MOST_BODY + 1), 413, "body"),
    ("POST", "/v1/recommendations/batch", b"{}", 400, "body"),
    ("POST", "/v1/recommendations/batch", b"[]", 400, "body"),
    ("POST", "/v1/recommendations/batch", b'[{}, {"n": 0}]', 400, "[1].n"),
    ("POST", "/v1/recommendations/batch", b'[{"x": 0}]', 400, "[0].x"),
    ("POST", "/v1/recommendations/batch", b'[{}, {"scenario": "x"}]', 400, "[1].scenario"),
    ("POST", "/v1/recommendations/batch", b'[{}, {}, {"diversity": 2}]', 400, "[2].diversity"),
    ("POST", "/v1/recommendations/batch", b'[{"boost": {}}]', 400, "[0].boost"),
    ("POST", "/v1/recommendations/batch", b"[" + b"{}," * 100 + b"{}]", 400, "body"),
    ("POST", "/v1/events", b"", 400, "body"),
    ("POST", "/v1/events", b"[]", 400, "body"),
    ("POST", "/v1/events", b"[1", 400, "body"),
    ("POST", "/v1/events", b"5", 400, "body"),
    ("POST", "/v1/events", b"{", 400, "body"),
    ("POST", "/v1/events", deep("["), 400, "body"),
    ("POST", "/v1/events", deep('{"x":'), 400, "body"),
    ("POST", "/v1/events", b"[" + b"0," * 1000 + b"0]", 400, "body"),
    ("POST", "/v1/events", b'[{"user_id": "u"}]', 400, "[0].item_id"),
    ("POST", "/v1/events", event(user_id=""), 400, "user_id"),
    ("POST", "/v1/events", event(user_id=LONG), 400, "user_id"),
    ("POST", "/v1/events", event(user_id=7), 400, "user_id"),
    ("POST", "/v1/events", event(user_id="\ud800"), 400, "body"),
    ("POST", "/v1/events", event(item_id=None), 400, "item_id"),
    ("POST", "/v1/events", event(type="stare"), 400, "type"),
    ("POST", "/v1/events", event(type=1), 400, "type"),
    ("POST", "/v1/events", event(timestamp=-1), 400, "timestamp"),
    ("POST", "/v1/events", event(timestamp=1.5), 400, "timestamp"),
    ("POST", "/v1/events", event(timestamp="yesterday"), 400, "timestamp"),
    ("POST", "/v1/events", event(timestamp="2024-01-01T00:00:00"), 400, "timestamp"),
    ("POST", "/v1/events", event(timestamp=10**400), 400, "timestamp"),
    ("POST", "/v1/events", event(timestamp=2**53), 400, "timestamp"),
    ("POST", "/v1/events", event(timestamp=float("nan")), 400, "body"),
    ("POST", "/v1/events", event(event_id="x" * 65), 400, "event_id"),
    ("POST", "/v1/events", event(position=-1), 400, "position"),
    ("POST", "/v1/events", event(more="x" * MOST_BODY), 413, "body"),
    ("PUT", "/v1/items/i", b"", 400, "body"),
    ("PUT", "/v1/items/i", b"[]", 400, "body"),
    ("PUT", "/v1/items/i", b'{"item_id": "j"}', 400, "item_id"),
    ("PUT", "/v1/items/i", b'{"title": 5}', 400, "title"),
    ("PUT", "/v1/items/i", json.dumps({"title": "x" * 513}).encode(), 400, "title"),
    ("PUT", "/v1/items/i", b'{"price": 5}', 400, "price"),
    ("PUT", "/v1/items/i", b'{"attributes": {"a": {"b": 1}}}', 400, "attributes[...]"),
    ("PUT", "/v1/items/", b"{}", 400, "item_id"),
    ("PUT", f"/v1/items/{LONG}", b"{}", 400, "item_id"),
    ("DELETE", "/v1/items/%FF", None, 400, "item_id"),
    ("GET", "/nothing", None, 404, "path"),
    ("GET", "/v1/recommendations/a/b", None, 404, "path"),
    ("GET", "/console/../pyproject.toml", None, 404, "path"),
    ("POST", "/v1/nothing", b"{}", 404, "path"),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    BAD_REQUESTS,
    ids=[f"{n}-{m}-{p[:40]}" for n, (m, p, *_) in enumerate(BAD_REQUESTS)],
)
async def test_a_bad_request_is_told_which_field(
    http: aiohttp.ClientSession, method: str, path: str, body: bytes | None, status: int, field: str
) -> None:
    async with http.request(method, URL(path, encoded=True), data=body) as answer:
        assert answer.status == status, await answer.text()
        assert answer.content_type == PROBLEM
        problem = await answer.json(content_type=None)
    assert problem["field"] == field
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]


async def test_an_unknown_scenario_is_told_which_are_known(http: aiohttp.ClientSession) -> None:
    for problem in (
        await get(http, "/v1/recommendations/u?scenario=books", 400),
        await post(http, "/v1/recommendations", {"scenario": "books"}, 400),
    ):
        assert problem["detail"] == "unknown scenario 'books'; known: " + ", ".join(
            DEFAULT_SCENARIOS
        )


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/users/u", "DELETE,GET,HEAD"),
        ("POST", "/v1/recommendations/u", "GET,HEAD"),
        ("PATCH", "/v1/items/i", "DELETE,GET,HEAD,PUT"),
        ("GET", "/v1/events", "POST"),
        ("POST", "/", "GET,HEAD"),
    ],
)
async def test_a_method_that_is_not_there(
    http: aiohttp.ClientSession, method: str, path: str, allowed: str
) -> None:
    async with http.request(method, path) as answer:
        assert answer.status == 405
        assert answer.content_type == PROBLEM
        assert answer.headers["Allow"].replace(" ", "") == allowed


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /v1/users/\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: 4\r\n\r\nnope",
    ],
)
async def test_what_is_no_http_is_a_problem_too(live: Stack, request_bytes: bytes) -> None:
    url = URL(live.http_url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(request_bytes)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert PROBLEM.encode() in head
