"""Load is shed early: at once, cheaply, and only where the server itself is what is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from aiohttp import web

from config.settings import load_settings
from serving.admission import ADMISSION
from serving.context import SETTINGS
from serving.gate import Gate, is_plain_get
from serving.protocol import ProblemRunner
from tests.live import PROBLEM
from tests.test_http_front import Connection

GET = b"GET /v1/recommendations/u?n=3 HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (GET, True),
        (GET[:-1], False),
        (GET + GET, False),
        (GET.replace(b"/v1/", b"/health/"), False),
        (GET.replace(b"GET", b"POST"), False),
        (GET.replace(b"1.1", b"1.0"), False),
        (GET.replace(b"Host: a", b"Connection: close"), False),
        (GET.replace(b"Host: a", b"content-length: 4"), False),
        (GET.replace(b"Host: a", b"Transfer-Encoding: chunked"), False),
        (GET.replace(b"Host: a", b"X: " + b"a" * 9000), False),
        (b"", False),
    ],
)
def test_what_is_one_whole_request(data: bytes, plain: bool) -> None:
    # Again, for heads that were plain are known then.
    assert [is_plain_get(data), is_plain_get(data)] == [plain, plain]


class Clock:
    """Time, and what of it was worked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.worked = 100.0, 7.0
        monkeypatch.setattr("serving.gate.time.monotonic", lambda: self.now)
        monkeypatch.setattr("serving.gate.time.thread_time", lambda: self.worked)

    def passes(self, seconds: float, busy: float) -> None:
        """So long, of which that share was worked."""
        self.now += seconds
        self.worked += busy * seconds


def filled(gate: Gate, most: int) -> int:
    """How many are let in, up to `most`."""
    for number in range(most):
        if gate.is_full:
            return number
        gate.enter()
    return most


def answered(gate: Gate, count: int) -> None:
    """So many leave."""
    for _ in range(count):
        gate.leave()


def test_only_who_is_busy_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    gate = Gate(2)
    assert filled(gate, 7) == 7
    clock.passes(0.2, busy=0.5)
    assert filled(gate, 50) == 50
    for _ in range(20):
        clock.passes(0.05, busy=0.5)
        # The store is what they wait for.
        assert not gate.is_full
    for _ in range(4):
        clock.passes(0.05, busy=0.95)
        assert not gate.is_full  # they may soon be gone
    clock.passes(0.06, busy=0.95)
    assert gate.is_full
    clock.passes(0.01, busy=0)
    assert gate.is_full  # too short a time to say anything else
    clock.passes(0.1, busy=0.2)
    assert not gate.is_full


def test_only_a_crowd_that_stays_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    gate = Gate(4)
    clock.passes(0.5, busy=1)
    assert filled(gate, 11) == 11
    clock.passes(0.2, busy=1)
    assert not gate.is_full
    answered(gate, 8)
    # It went within the time: the next one has as long.
    assert filled(gate, 6) == 6
    clock.passes(0.2, busy=1)
    assert not gate.is_full
    clock.passes(0.1, busy=1)
    assert gate.is_full
    # From then on no more than may be, though all are answered at once,
    answered(gate, 9)
    assert filled(gate, 10) == 4
    # until there was room for a while.
    gate.leave()
    clock.passes(0.15, busy=1)
    assert filled(gate, 10) == 1
    gate.leave()
    clock.passes(0.21, busy=1)
    assert filled(gate, 10) == 10


def test_a_crowd_that_lasts_is_too_much_for_whoever_it_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    gate = Gate(4)
    assert filled(gate, 30) == 30
    for _ in range(14):
        clock.passes(0.1, busy=0.4)
        gate.leave()
        assert filled(gate, 1) == 1
    clock.passes(0.2, busy=0.4)
    # They wait together: more are let in than where the server itself is what is slow.
    assert filled(gate, 90) == 10
    clock.passes(0.1, busy=0.4)
    gate.leave()
    assert filled(gate, 9) == 1
    # Once nobody is answered any more, the store has to answer first.
    clock.passes(0.6, busy=0)
    assert filled(gate, 9) == 9


def test_a_rush_that_waits_for_others_is_let_in_further(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    gate = Gate(4)
    clock.passes(0.1, busy=1)
    assert filled(gate, 30) == 16
    answered(gate, 15)
    assert filled(gate, 30) == 3
    for _ in range(4):
        clock.passes(0.1, busy=0.5)
        gate.leave()
        assert filled(gate, 2) == 1
    clock.passes(0.15, busy=0.5)
    assert filled(gate, 90) == 36
    # Once it is busy at a stretch, it is what is slow.
    for _ in range(3):
        clock.passes(0.1, busy=1)
        assert filled(gate, 1) == 0
    answered(gate, 37)
    assert filled(gate, 30) == 1


def test_nobody_is_refused_while_nothing_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    gate = Gate(4)
    for _ in range(40):
        clock.passes(0.1, busy=0.1)
        assert filled(gate, 5) == 5


def test_far_too_many_at_once_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    gate = Gate(3)
    clock.passes(0.06, busy=1)
    assert filled(gate, 20) == 12
    answered(gate, 12)
    clock.passes(1, busy=0)
    # They came before it could be known whether they are too many.
    assert filled(gate, 20) == 20
    clock.passes(0.06, busy=1)
    assert gate.is_full
    answered(gate, 20)
    clock.passes(1, busy=0)
    assert not gate.is_full
    # As many that came one by one are let be for as long as any crowd.
    for _ in range(20):
        assert not gate.is_full
        clock.passes(0.012, busy=1)
        gate.enter()
    clock.passes(0.1, busy=1)
    assert gate.is_full


class Slow:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.two = asyncio.Event()
        self.asked = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.asked == 2:
            self.two.set()
        await self.go.wait()
        return web.json_response({"path": request.path})


class Shop:
    """A server that works on two requests at a time."""

    def __init__(self, port: int, slow: Slow) -> None:
        self.port, self.slow = port, slow

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port))


@asynccontextmanager
async def shop(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    monkeypatch.setattr("serving.gate.BUSY_SHARE", 0.0)  # whatever it does, it is busy
    monkeypatch.setattr("serving.gate._RUSH_SECONDS", -1.0)
    monkeypatch.setattr("serving.gate._SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr("serving.gate._STANDING_SECONDS", 0.0)
    slow = Slow()
    app = web.Application()
    app[SETTINGS] = load_settings(http={"max_concurrent": 2})
    app[ADMISSION] = cast(Any, SimpleNamespace(asks_for_keys=False, asks=lambda _request: False))
    app.router.add_route("*", "/v1/slow", slow.answer)
    app.router.add_get("/health/live", _live)
    runner = ProblemRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with asyncio.timeout(30):
            yield Shop(runner.addresses[0][1], slow)
    finally:
        await runner.cleanup()


async def _live(_request: web.Request) -> web.Response:
    return web.json_response({"live": True})


SLOW = "GET /v1/slow HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_too_many_are_refused_and_the_others_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with shop(monkeypatch) as place:
        inside = [await place.connect() for _ in range(2)]
        for one in inside:
            one.writer.write(SLOW.encode())
        await place.slow.two.wait()
        late = await place.connect()
        said = []
        posted = SLOW.replace("GET", "POST").replace(
            "a\r\n\r\n", "a\r\nContent-Length: 2\r\n\r\n{}"
        )
        # Before it is read, after it was read in two parts, and with a body.
        said.append(await late.ask(SLOW))
        late.writer.write(SLOW[:20].encode())
        await late.writer.drain()
        said.append(await late.ask(SLOW[20:]))
        said.append(await late.ask(posted))
        for head, body in said:
            assert head[""] == "HTTP/1.1 503 Service Unavailable"
            assert head["Content-Type"].startswith(PROBLEM)
            assert head["Retry-After"] == "1"
            problem = orjson.loads(body)
            assert (problem["status"], problem["cause"]) == (503, "overload")
            assert problem == orjson.loads(said[0][1])
        assert place.slow.asked == 2
        # Who watches is let in.
        head, _ = await late.ask("GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert head[""] == "HTTP/1.1 200 OK"
        # A request behind one that waits for its answer waits, too.
        inside[0].writer.write(SLOW.encode())
        place.slow.go.set()
        for one in inside:
            head, _ = await one.answer()
            assert head[""] == "HTTP/1.1 200 OK"
        head, _ = await inside[0].answer()
        assert head[""] == "HTTP/1.1 200 OK"
        # And who was refused may ask again on the same connection.
        head, _ = await late.ask(SLOW)
        assert head[""] == "HTTP/1.1 200 OK"
        for one in (*inside, late):
            one.writer.close()
