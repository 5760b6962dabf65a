"""Pages of other origins: which may send events and ask for recommendations (setting
`http.cors_origins`), by the rules of the Fetch standard.

aiohttp-cors, which Faust brings along, does not fit: it never says `Vary: Origin`, so that a cache
between would hand one origin's answer to another, it answers preflights with 200, and it mirrors
every header that is asked for. What is needed is less than what would have to be put around it.

An answer to a request without `Origin` may leave by the short way of `front.py`, which says no
`Vary`; nothing keeps it, for it names neither a lifetime nor a validator.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aiohttp import hdrs, web

from serving.problems import problem

__all__ = ["allow_origins", "foreign", "is_for_pages", "let_read"]

_METHODS = {
    "/v1/events": "POST",
    "/v1/events/segment": "POST",
    "/v1/events/ga4": "POST",
    "/v1/recommendations": "POST",
    "/v1/recommendations/batch": "POST",
    "/v1/recommendations/{user_id}": "GET",
    "/v1/items/{item_id}/similar": "GET",
    "/v1/trending": "GET",
}
"""Routes that pages of other origins may use; all others are for services and for our own pages."""
_PATHS = re.compile("|".join(re.sub(r"\{\w+\}", "[^/]*", canonical) for canonical in _METHODS))
"""Their paths."""
_HEADERS = "Authorization, Content-Type, Headwater-Tenant, X-API-Key"
_MAX_AGE_SECONDS = "3600"
_ORIGINS = web.AppKey("cors_origins", frozenset)


def allow_origins(app: web.Application, origins: Sequence[str]) -> None:
    """Let pages of `origins` (`*`: of all) use the routes that are theirs. The routes must be
    there; without origins all stays as it is, and browsers refuse.
    """
    if not origins:
        return
    app[_ORIGINS] = frozenset(origins)
    for resource in app.router.resources():
        if resource.canonical in _METHODS and isinstance(resource, web.Resource):
            resource.add_route(hdrs.METH_OPTIONS, _preflight)
    app.on_response_prepare.append(_tell)


def is_for_pages(path: str) -> bool:
    """Whether a path, as it was sent, is that of a route that pages may use."""
    return _PATHS.fullmatch(path) is not None


def let_read(app: web.Application, request: web.BaseRequest, response: web.Response) -> None:
    """Let a page that may read answers read this one, which is given before routes are looked at:
    it may say when to try again.
    """
    if _ORIGINS in app and is_for_pages(request.rel_url.raw_path):
        _say(app, request, response)


def foreign(request: web.Request) -> str | None:
    """The origin of a page that may not send what it sends here; None for all others.

    A browser asks nobody before it sends plain text, and only keeps the answer from the page.
    """
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or _allowed(request.app, origin) is not None:
        return None
    # Our own pages name their origin, too. A proxy may have changed the Host, but not what the
    # browser says of both.
    site = request.headers.get("Sec-Fetch-Site")
    own = origin.partition("://")[2] == request.host if site is None else site == "same-origin"
    return None if own else origin


def _allowed(app: web.Application, origin: str) -> str | None:
    """What Access-Control-Allow-Origin says to an origin."""
    origins = app.get(_ORIGINS, frozenset())
    if "*" in origins:
        return "*"
    return origin if origin in origins else None


async def _preflight(request: web.Request) -> web.Response:
    """OPTIONS: what a page of this origin may send. `_tell` adds the origin."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or _allowed(request.app, origin) is None:
        return problem(
            403, "pages of this origin may not ask here: setting http.cors_origins", field="Origin"
        )
    resource = request.match_info.route.resource
    methods = "" if resource is None else _METHODS[resource.canonical]
    return web.Response(
        status=204,
        headers={
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: methods,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _HEADERS,
            hdrs.ACCESS_CONTROL_MAX_AGE: _MAX_AGE_SECONDS,
        },
    )


async def _tell(request: web.Request, response: web.StreamResponse) -> None:
    """Tell the browser whether the page may read the answer, be it a problem or not."""
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical in _METHODS:
        _say(request.app, request, response)


def _say(app: web.Application, request: web.BaseRequest, response: web.StreamResponse) -> None:
    if "*" not in app[_ORIGINS]:
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    origin = request.headers.get(hdrs.ORIGIN)
    allowed = None if origin is None else _allowed(app, origin)
    if allowed is not None:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = allowed
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = "Retry-After, X-Request-ID"
