"""GET /headwater.js: the script that web pages include."""

from __future__ import annotations

from importlib.resources import files

from aiohttp import ETag, web
from xxhash import xxh3_64_hexdigest

from serving.bodies import parameters

__all__ = ["routes"]

_script = files("serving").joinpath("page_script", "headwater.js").read_bytes()
_etag = xxh3_64_hexdigest(_script)
_HEADERS = {
    "Cache-Control": "public, max-age=3600",
    # It is the same for everybody, and says nothing of anybody.
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}


async def script(request: web.Request) -> web.Response:
    """GET /headwater.js; 304 where the browser has it."""
    parameters(request, {"v"})
    known = {tag.value for tag in request.if_none_match or ()}
    if known & {_etag, "*"}:
        response = web.Response(status=304, headers=_HEADERS)
    else:
        response = web.Response(
            body=_script, content_type="text/javascript", charset="utf-8", headers=_HEADERS
        )
    response.etag = ETag(_etag)
    return response


routes = [web.get("/headwater.js", script)]
