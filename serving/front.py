"""What every request passes: the shortest way to the busiest answer, problems, and counting.

Nearly every request is `GET /v1/recommendations/<id>?n=…` with nothing in it to decode. Such a one
is told by its bytes (`direct.py`), or by its bare path, and answered without the router, and its
response has no headers that are put together one by one. All others go the application's own way,
which answers this one the same.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import HttpVersion11, hdrs, web

from config.settings import DEFAULT_TENANT
from config.traces import traces_on
from serving import metrics, request_id, routes_console
from serving.admission import ADMIN, ADMISSION, API, EVERYBODY, Admitted, on_admin_port
from serving.bodies import plain_n
from serving.context import CONTEXT, SETTINGS
from serving.cors import let_read
from serving.direct import ready_response
from serving.gate import OVERLOADED, RETRY_SECONDS, Gate
from serving.problems import problem, problem_of
from serving.request_log import RequestLog
from serving.routes_recommendations import FOR_USER, plain_request
from serving.tenants import TENANTS, Handler
from streams.event import MOST_CHARACTERS

__all__ = ["ROUTE", "Front"]

ROUTE = web.RequestKey("route", str)
"""Under which a request that was answered has its route."""
_BEFORE_ID = FOR_USER.partition("{")[0]


class Front:
    """Handles the requests of one application, in place of its middlewares."""

    def __init__(self, app: web.Application, handle: Handler, gate: Gate) -> None:
        """`handle` is the application's own way: routes, then handlers."""
        self._app = app
        self._handle = handle
        self._gate = gate
        self._log = RequestLog(app[SETTINGS].log)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response. Exceptions become problems, and every request is counted."""
        started = time.perf_counter()
        asked_as = request_id.begin(request.headers)
        plain = _plain(request)
        path = request.rel_url.raw_path
        # Who looks after the server, or watches it, is let in whatever there is to do.
        if plain is None and not path.startswith(API):
            let_in = await (self._admin if path.startswith(ADMIN) else self._admitted)(request)
            response = await self._answer(request, None, let_in)
            route = _route_of(request) if let_in.refusal is None else "none"
        elif not self._enters(request):
            metrics.SHED.inc()
            headers = {"Retry-After": str(RETRY_SECONDS)}
            told = problem(503, OVERLOADED, headers=headers, cause="overload")
            let_read(self._app, request, told)
            told.headers[request_id.HEADER] = asked_as
            return told
        else:
            try:
                let_in = await self._admitted(request)
                response = await self._answer(request, plain, let_in)
            finally:
                self._gate.leave()
            # One that is refused was not looked at: it has no route yet.
            asked = _route_of(request) if let_in.refusal is None and plain is None else "none"
            route = asked if plain is None else FOR_USER
        request[ROUTE] = route
        if route != routes_console.STREAM:  # that one takes as long as somebody watches
            seconds = time.perf_counter() - started
            body = getattr(response, "body", None)
            self.note(
                let_in.tenant, request.method, route, response.status, body, seconds, asked_as
            )
        if isinstance(response, _ReadyResponse):
            response.asked_as = asked_as
        elif not response.prepared:
            response.headers[request_id.HEADER] = asked_as
        return response

    def plainly(self, user_id: str, n: int) -> asyncio.Future[bytes] | None:
        """The body that answers who asks for nothing but that; None where who asks must be known
        first, or is traced. The future raises what working it out raises.
        """
        if self._app[ADMISSION].asks_for_keys or traces_on():
            return None
        return plain_request(self._app[CONTEXT], user_id, n).soon()

    def note(
        self,
        tenant: str,
        method: str,
        route: str,
        status: int,
        body: object,
        seconds: float,
        asked_as: str,
    ) -> None:
        """Count a request that was answered with `body`, and log it where that is wanted."""
        metrics.observe(tenant, route, status, seconds)
        if self._log.wants(status, seconds):
            self._log.tell(method, route, status, body, seconds, asked_as)

    def _enters(self, request: web.BaseRequest) -> bool:
        """Whether the gate counts a request, as it may have done when that came."""
        protocol: Any = request.protocol
        if getattr(protocol, "admitted", False):
            protocol.admitted = False
            return True
        if self._gate.is_full:
            return False
        self._gate.enter()
        return True

    async def _admin(self, request: web.BaseRequest) -> Admitted:
        """On every other port there is nothing at such a path."""
        if not on_admin_port(request, self._app[SETTINGS].http.admin_port):
            told = problem(404, f"there is nothing at {request.path[:200]}", field="path")
            return Admitted(DEFAULT_TENANT, told)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and origin.partition("://")[2] != request.host:
            told = problem(403, "pages of other origins change nothing here", field="Origin")
            return Admitted(DEFAULT_TENANT, told)
        return await self._admitted(request)

    async def _admitted(self, request: web.BaseRequest) -> Admitted:
        admission = self._app[ADMISSION]
        if not admission.asks(request):
            return EVERYBODY
        let_in = await admission.admit(request)
        if let_in.refusal is not None:
            let_read(self._app, request, let_in.refusal)
        return let_in

    async def _answer(
        self, request: web.BaseRequest, plain: tuple[str, int] | None, let_in: Admitted
    ) -> web.StreamResponse:
        if let_in.refusal is not None:
            return let_in.refusal
        try:
            app, handle = self._app, self._handle
            if let_in.tenant != DEFAULT_TENANT:
                app, handle = app[TENANTS].served(let_in.tenant)
            if plain is None:
                return await handle(request)
            user_id, n = plain
            return _ReadyResponse(request, await plain_request(app[CONTEXT], user_id, n).answer())
        except Exception as error:  # the one place where everything unexpected ends
            return problem_of(error, request)


def _plain(request: web.BaseRequest) -> tuple[str, int] | None:
    """The user's id and n, if that is all that is asked, in the plainest way."""
    path = request.rel_url.raw_path
    if not path.startswith(_BEFORE_ID) or request.method != hdrs.METH_GET:
        return None
    user_id = path[len(_BEFORE_ID) :]
    if not 1 <= len(user_id) <= MOST_CHARACTERS or not user_id.isascii():
        return None
    if "%" in user_id or "/" in user_id:
        return None
    if hdrs.EXPECT in request.headers or hdrs.ORIGIN in request.headers:
        return None
    if request.version != HttpVersion11 or not request.keep_alive:
        return None
    n = plain_n(request.rel_url.raw_query_string)
    return None if n is None else (user_id, n)


def _route_of(request: web.BaseRequest) -> str:
    """For metrics, logs and traces: few different ones, whatever is asked."""
    if not isinstance(request, web.Request):
        return "none"
    resource = request.match_info.route.resource
    return "none" if resource is None else resource.canonical


class _ReadyResponse(web.StreamResponse):
    """200 with JSON to a GET of HTTP/1.1, on a connection that stays open."""

    _status = 200
    _keep_alive = True
    asked_as: str
    """The request's id."""

    def __init__(self, request: web.BaseRequest, body: bytes) -> None:
        # The base class would make room for headers, which are bytes already.
        self._writer = request.writer
        self.body = body

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to do."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send all of it. Raises ConnectionError where the client has gone."""
        await self._writer.write(ready_response(self.body, self.asked_as))
        await self._writer.drain()
