"""How connections are handled. Requests pass `front.py` first; those that are no HTTP at all are
answered with a problem too, and do not fill the log.
"""

from __future__ import annotations

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from serving.front import Front
from serving.problems import problem

__all__ = ["ProblemRunner"]

log = structlog.get_logger("headwater.http")


class _Protocol(RequestHandler):
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called for what aiohttp cannot parse, and for what failed outside the handlers."""
        if status >= 500:
            log.error("request failed", exc_info=exc)
            response = problem(status, "something went wrong here; the server's log says what")
        else:
            log.debug("not HTTP", error=str(exc))
            first = (message or "the request is not valid HTTP").strip().splitlines()[0]
            response = problem(status, first.rstrip(":"), field="request")
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class ProblemRunner(web.AppRunner):
    """An AppRunner whose requests pass `Front`, and whose connections answer with problems."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        made.__class__ = _Server  # there is no other way to choose what a Server makes
        made.request_handler = Front(self.app, made.request_handler)
        return made
