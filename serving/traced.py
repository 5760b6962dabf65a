"""Spans of requests, around `front.py`; only there while traces are on (`config/traces.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from config.traces import span
from serving import request_id
from serving.front import ROUTE, Front
from serving.routes_console import STREAM

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["TracedFront"]

_DEGRADED = b'"degraded":true'


class TracedFront:
    """Handles requests as a front does, each in a span."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response."""
        if request.rel_url.raw_path == STREAM:  # it would end when somebody looks away
            return await self._front(request)
        method = request.method
        with span(
            method, "SERVER", {"http.request.method": method}, parent=request.headers
        ) as made:
            response = await self._front(request)
            if made is not None:
                _describe(made, method, request, response)
            return response


def _describe(
    made: Span, method: str, request: web.BaseRequest, response: web.StreamResponse
) -> None:
    """No path: users' ids stand in it."""
    route = request.get(ROUTE, "none")
    if route != "none":
        made.update_name(f"{method} {route}")
        made.set_attribute("http.route", route)
    made.set_attribute("http.response.status_code", response.status)
    made.set_attribute("headwater.request_id", request_id.current())
    body: Any = getattr(response, "body", None)
    if isinstance(body, bytes) and response.status == 200:
        made.set_attribute("headwater.degraded", _DEGRADED in body)
    if response.status >= 500:
        from opentelemetry.trace import StatusCode

        made.set_status(StatusCode.ERROR)
