"""What every request passes: the shortest way to the busiest answer, problems, and counting.

Nearly every request is `GET /v1/recommendations/<id>?n=…` with nothing in it to decode. Such a one
is told by its bare path and answered without the router, and its response has no headers that are
put together one by one. All others go the application's own way, which answers this one the same.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

from serving import metrics, routes_console
from serving.bodies import plain_n
from serving.context import CONTEXT
from serving.problems import problem_of
from serving.routes_recommendations import FOR_USER
from serving.wanted import Choice
from streams.columns import hash_id
from streams.event import MOST_CHARACTERS

__all__ = ["Front"]

_BEFORE_ID = FOR_USER.partition("{")[0]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Front:
    """Handles the requests of one application, in place of its middlewares."""

    def __init__(self, app: web.Application, handle: Handler) -> None:
        """`handle` is the application's own way: routes, then handlers."""
        self._app = app
        self._handle = handle

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response. Exceptions become problems, and every request is counted."""
        started = time.perf_counter()
        plain = _plain(request)
        response: web.StreamResponse
        try:
            if plain is None:
                response = await self._handle(request)
            else:
                user_id, n = plain
                answers = self._app[CONTEXT].answers
                body = await answers.recommend(Choice(n, hash_id(user_id)), user_id)
                response = _ReadyResponse(request, body)
        except Exception as error:  # the one place where everything unexpected ends
            response = problem_of(error, request)
        route = _route_of(request) if plain is None else FOR_USER
        if route != routes_console.STREAM:  # that one takes as long as somebody watches
            metrics.observe(route, response.status, time.perf_counter() - started)
        return response


def _plain(request: web.BaseRequest) -> tuple[str, int] | None:
    """The user's id and n, if that is all that is asked, in the plainest way."""
    path = request.rel_url.raw_path
    if not path.startswith(_BEFORE_ID) or request.method != hdrs.METH_GET:
        return None
    user_id = path[len(_BEFORE_ID) :]
    if not 1 <= len(user_id) <= MOST_CHARACTERS or not user_id.isascii():
        return None
    if "%" in user_id or "/" in user_id or hdrs.EXPECT in request.headers:
        return None
    if request.version != HttpVersion11 or not request.keep_alive:
        return None
    n = plain_n(request.rel_url.raw_query_string)
    return None if n is None else (user_id, n)


def _route_of(request: web.BaseRequest) -> str:
    """For metrics: few different ones, whatever is asked."""
    if not isinstance(request, web.Request):
        return "none"
    resource = request.match_info.route.resource
    return "none" if resource is None else resource.canonical


class _ReadyResponse(web.StreamResponse):
    """200 with JSON to a GET of HTTP/1.1, on a connection that stays open."""

    _status = 200
    _keep_alive = True
    _second, _head = 0, b""

    def __init__(self, request: web.BaseRequest, body: bytes) -> None:
        # The base class would make room for headers, which are bytes already.
        self._writer = request.writer
        self._ready = body

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to do."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send all of it. Raises ConnectionError where the client has gone."""
        body = self._ready
        await self._writer.write(b"%b%d\r\n\r\n%b" % (self._head_now(), len(body), body))
        await self._writer.drain()

    @classmethod
    def _head_now(cls) -> bytes:
        """Everything before the length: the same for a second."""
        now = int(time.time())
        if now != cls._second:
            cls._second = now
            cls._head = (
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                f"Date: {rfc822_formatted_time()}\r\nServer: {SERVER_SOFTWARE}\r\nContent-Length: "
            ).encode()
        return cls._head
