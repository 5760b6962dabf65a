"""The shortest way to an answer: what it says is what the application's own way says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Settings
from serving import metrics
from serving.app import make_app
from serving.bodies import plain_n
from tests.live import HereServer

_HEAD = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@pytest_asyncio.fixture
async def server(settings: Settings) -> AsyncIterator[HereServer]:
    running = HereServer(make_app(settings))
    async with running:
        yield running


class Connection:
    """One connection on which requests are written as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[dict[str, str], bytes]:
        """Headers, the status line as that of "", and the body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = _HEAD.search(head)
        assert length
        status, *lines = head.decode().rstrip().split("\r\n")
        headers = {"": status, **dict(line.split(": ", 1) for line in lines)}
        return headers, await self.reader.readexactly(int(length[1]))

    async def ask(self, request: str) -> tuple[dict[str, str], bytes]:
        self.writer.write(request.encode())
        return await self.answer()


@pytest_asyncio.fixture
async def connection(server: HereServer) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    async with asyncio.timeout(20):
        yield Connection(reader, writer)
    writer.close()
    await writer.wait_closed()


async def test_both_ways_send_the_same(connection: Connection) -> None:
    found = [
        await connection.ask(f"GET /v1/recommendations/u{query} HTTP/1.1\r\nHost: a\r\n\r\n")
        for query in ("", "?n=20", "?n=020", "?explain=false", "?n=20&diversity=0")
    ]
    heads = [{**head, "Date": "", "X-Request-ID": ""} for head, _ in found]
    assert len({head["X-Request-ID"] for head, _ in found}) == len(found)
    assert heads[0][""] == "HTTP/1.1 200 OK"
    assert heads[0]["Content-Type"] == "application/json"
    assert all(re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", h["Date"]) for h, _ in found)
    assert heads == [heads[0]] * len(heads)
    bodies = [re.sub(rb'"recommendation_id":"\w+",', b"", body) for _, body in found]
    assert bodies == [b'{"items":[],"degraded":false}'] * len(bodies)


async def test_what_arrives_together_is_answered_in_order(connection: Connection) -> None:
    paths = ["/v1/recommendations/u", "/health/live", "/v1/recommendations/v?n=x"] * 3
    connection.writer.write(
        b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() for path in paths)
    )
    bodies = [(await connection.answer())[1] for _ in paths]
    keys = (b"recommendation_id", b'"live"', b'"field":"n"')
    assert all(key in body for key, body in zip(keys * 3, bodies, strict=True))


@pytest.mark.parametrize(
    ("request_text", "head"),
    [
        (
            "GET /v1/recommendations/u HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            {"": "HTTP/1.1 200 OK", "Connection": "close"},
        ),
        ("GET /v1/recommendations/u HTTP/1.0\r\n\r\n", {"": "HTTP/1.0 200 OK"}),
    ],
)
async def test_a_connection_that_is_to_close_closes(
    connection: Connection, request_text: str, head: dict[str, str]
) -> None:
    found, body = await connection.ask(request_text)
    assert found.items() >= head.items()
    assert body.startswith(b"{")
    assert await connection.reader.read() == b""


async def test_a_head_request_has_no_body(connection: Connection) -> None:
    connection.writer.write(b"HEAD /v1/recommendations/u HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await connection.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    head, _ = await connection.ask("GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
    assert head[""] == "HTTP/1.1 200 OK"


async def test_who_waits_to_be_told_to_go_on_is_told(connection: Connection) -> None:
    connection.writer.write(
        b"GET /v1/recommendations/u HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n"
    )
    assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await connection.answer())[0][""] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    "path", ["", "%zz", "x" * 129, "a/b", "u?n=0", "u?n=101", "u?n=", "u?n=5&n=5", "u?N=5"]
)
async def test_the_rules_are_the_same(connection: Connection, path: str) -> None:
    head, body = await connection.ask(f"GET /v1/recommendations/{path} HTTP/1.1\r\nHost: a\r\n\r\n")
    assert head[""].split()[1] == ("404" if "/" in path else "400")
    assert head["Content-Type"].startswith("application/problem+json")
    assert b'"field"' in body


async def test_every_request_is_counted(connection: Connection) -> None:
    def counted() -> float:
        metrics.flush()
        name, route = "headwater_request_seconds_count", "/v1/recommendations/{user_id}"
        return sum(
            sample.value
            for metric in metrics.collect()
            for sample in metric.samples
            if sample.name == name and sample.labels["route"] == route
        )

    before = counted()
    for query in ("", "?n=7", "?explain=true", "?n=0"):
        await connection.ask(f"GET /v1/recommendations/u{query} HTTP/1.1\r\nHost: a\r\n\r\n")
    # The last one is counted before the next request of its connection is looked at.
    await connection.ask("GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
    assert counted() - before == 4


@given(
    st.text(st.sampled_from("n=0123456789&+-%_ ٣"), max_size=6)
    | st.integers(-5, 2000).map("n={}".format)
)
def test_a_plain_query_is_a_number_that_is_allowed_or_left_to_others(query: str) -> None:
    found = plain_n(query)
    if found is not None:
        assert 1 <= found <= 100
        assert query == "" or int(query.removeprefix("n=")) == found
    elif re.fullmatch("n=[0-9]{1,3}", query, re.ASCII):
        assert not 1 <= int(query[2:]) <= 100
