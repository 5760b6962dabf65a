"""The console page, and its live numbers as server-sent events."""

from __future__ import annotations

import asyncio
from importlib.resources import files

import orjson
from aiohttp import web

from serving.context import CONTEXT

__all__ = ["STREAM", "end_streams", "routes"]

STREAM = "/console/stream"
_KINDS = {"index.html": "text/html", "console.js": "text/javascript", "console.css": "text/css"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_STOPPING = web.AppKey("stopping", asyncio.Event)
_page = {name: files("serving").joinpath("console", name).read_bytes() for name in _KINDS}


def _file(name: str) -> web.Response:
    return web.Response(
        body=_page[name], content_type=_KINDS[name], charset="utf-8", headers=_HEADERS
    )


async def index(_request: web.Request) -> web.Response:
    """GET /."""
    return _file("index.html")


async def script(_request: web.Request) -> web.Response:
    """GET /console/console.js."""
    return _file("console.js")


async def style(_request: web.Request) -> web.Response:
    """GET /console/console.css."""
    return _file("console.css")


async def stream(request: web.Request) -> web.StreamResponse:
    """GET /console/stream: one JSON object a second until the client or the server ends."""
    status = request.app[CONTEXT].status
    stopping = request.app[_STOPPING]
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    await response.prepare(request)
    stopped = asyncio.create_task(stopping.wait())
    numbers = status.latest
    try:
        while not stopping.is_set():
            if numbers:
                await response.write(b"data: " + orjson.dumps(numbers) + b"\n\n")
            following = asyncio.create_task(status.next())
            await asyncio.wait({following, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                break
            numbers = following.result()
    except ConnectionError:
        pass  # whoever watched has gone
    finally:
        stopped.cancel()
    return response


async def start_streams(app: web.Application) -> None:
    """Make the event that ends the streams."""
    app[_STOPPING] = asyncio.Event()


async def end_streams(app: web.Application) -> None:
    """Let everybody who watches go, so that a stopping server need not wait for them."""
    app[_STOPPING].set()


routes = [
    web.get("/", index),
    web.get("/console/console.js", script),
    web.get("/console/console.css", style),
    web.get(STREAM, stream),
]
