"""/openapi.json, the description of the API as it is with the settings that answer now, and /docs,
a page to read it and to try requests.
"""

from __future__ import annotations

from functools import lru_cache

import orjson
from aiohttp import web

from serving.context import CONTEXT, json_response
from serving.openapi_operations import describe
from serving.pages import file_route

__all__ = ["prepare_description", "routes"]


@lru_cache(maxsize=8)
def _description(scenarios: tuple[str, ...], kinds: tuple[str, ...]) -> bytes:
    return orjson.dumps(describe(scenarios, kinds))


def _described(app: web.Application) -> bytes:
    context = app[CONTEXT]
    kinds = context.view.settings.events.weights
    return _description(tuple(context.scenarios.known), tuple(kinds))


async def prepare_description(app: web.Application) -> None:
    """Make the description before anybody asks: that takes longer than requests should wait."""
    _described(app)


async def description(request: web.Request) -> web.Response:
    """GET /openapi.json."""
    return json_response(_described(request.app))


routes = [
    web.get("/openapi.json", description),
    file_route("/docs", "docs", "index.html"),
    *(
        file_route(f"/docs/{name}", "docs", name)
        for name in ("docs.css", "docs.js", "dom.js", "request.js", "schema.js")
    ),
]
