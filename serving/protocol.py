"""How connections are handled. The plainest requests are answered here (`direct.py`); all others
pass `front.py`. Those that are no HTTP at all are answered with a problem too, and do not fill the
log. While the server is full (`gate.py`), plain requests are refused here, before anything is made
of them.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import cast

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from config.settings import DEFAULT_TENANT
from config.traces import traces_on
from serving import request_id
from serving.context import SETTINGS
from serving.direct import asked_plainly, ready_response
from serving.front import Front
from serving.gate import Gate, is_plain_get
from serving.problems import problem
from serving.routes_recommendations import FOR_USER
from serving.traced import TracedFront

__all__ = ["ProblemRunner"]

log = structlog.get_logger("headwater.http")

_MOST_WAITING_BYTES = 65_536
"""Of a connection's next requests, while one is answered: no more is read."""


class _Protocol(RequestHandler):
    gate: Gate
    front: Front
    admitted = False
    """Whether the gate counts a request of this connection that `front.py` has not seen yet."""
    _whole = True
    """Whether all that came so far were whole plain requests: then nothing is half read."""
    _direct: asyncio.Future[bytes] | None = None
    """The answer that is worked out here, without aiohttp."""
    _behind = b""
    """What came meanwhile: answers come in the order of requests."""
    _ends = False
    """Whether the connection is to be closed after that answer."""

    def data_received(self, data: bytes) -> None:
        """Answer or refuse a plain request, and hand on all others."""
        if self._direct is not None:
            self._behind += data
            if len(self._behind) > _MOST_WAITING_BYTES:
                self._pause_reading_for_buffer()
            return
        # One that waits for an answer keeps its place: answers come in the order of requests.
        idle = self._whole and self._is_idle()
        if idle and self.gate.is_full and is_plain_get(data):
            if self.transport is not None:
                self.transport.write(self.gate.refusal())
            return
        asked = asked_plainly(data) if idle else None
        self._whole = self._whole and (asked is not None or is_plain_get(data))
        if self._whole and idle:
            # At once: of many that come in one turn of the loop, no more are let in than may be.
            self.gate.enter()
            self.admitted = True
            if asked is not None and self._answers(data, *asked):
                return
        super().data_received(data)

    def _is_idle(self) -> bool:
        return self._waiter is not None and not self._messages and not self.admitted

    def _answers(self, data: bytes, user_id: str, n: int) -> bool:
        """Whether a plain request is answered here: `data`, which has been admitted."""
        if self._close or self._force_close or self.writing_paused:
            return False
        answer = self.front.plainly(user_id, n)
        if answer is None:
            return False
        self.admitted, self._direct = False, answer
        answer.add_done_callback(partial(self._answered, data, time.perf_counter()))
        return True

    def _answered(self, data: bytes, started: float, answer: asyncio.Future[bytes]) -> None:
        """Send the answer to `data`, and go on with what came behind."""
        self._direct = None
        if answer.cancelled() or self.transport is None:
            self.gate.leave()
            return
        if answer.exception() is None:
            self.gate.leave()
            body, asked_as = answer.result(), request_id.new()
            self.transport.write(ready_response(body, asked_as))
            seconds = time.perf_counter() - started
            self.front.note(DEFAULT_TENANT, "GET", FOR_USER, 200, body, seconds, asked_as)
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        else:  # aiohttp's way tells what is wrong, in an answer that names it
            self.admitted = True
            super().data_received(data)
        if self._ends:
            super().close()
            return
        behind, self._behind = self._behind, b""
        if behind:
            if self._buffer_paused:
                self._resume_reading_for_buffer()
            self.data_received(behind)

    def close(self) -> None:
        """Close once the answer that is worked out has been sent."""
        if self._direct is None:
            super().close()
        else:
            self._ends = True

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 # as it is called
        """Wait for that answer, too."""
        if self._direct is not None:
            await asyncio.wait([self._direct], timeout=timeout)
        await super().shutdown(timeout)

    def _process_keepalive(self) -> None:
        if self._direct is not None:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Who has gone before being looked at is not worked on."""
        if self.admitted:
            self.admitted = False
            self.gate.leave()
        if self._direct is not None:
            self._direct.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called for what aiohttp cannot parse, and for what failed outside the handlers."""
        asked_as = request_id.begin(request.headers)
        if status >= 500:
            log.error("request failed", exc_info=exc)
            response = problem(status, "something went wrong here; the server's log says what")
        else:
            log.debug("not HTTP", error=str(exc))
            first = (message or "the request is not valid HTTP").strip().splitlines()[0]
            response = problem(status, first.rstrip(":"), field="request")
        response.headers[request_id.HEADER] = asked_as
        response.force_close()
        return response


class _Server(web.Server):
    gate: Gate
    front: Front

    def __call__(self) -> RequestHandler:
        made = _Protocol(self, loop=self._loop, **self._kwargs)
        made.gate, made.front = self.gate, self.front
        return made


class ProblemRunner(web.AppRunner):
    """An AppRunner whose requests pass `Front`, and whose connections answer with problems."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # there is no other way to choose what a Server makes
        made = cast(_Server, server)
        made.gate = Gate(self.app[SETTINGS].http.max_concurrent)
        made.front = Front(self.app, made.request_handler, made.gate)
        made.request_handler = TracedFront(made.front) if traces_on() else made.front
        return made
