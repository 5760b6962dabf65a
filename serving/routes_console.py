"""The console page, and its live numbers as server-sent events."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web

from serving import request_id
from serving.admission import on_admin_port
from serving.context import CONTEXT, SETTINGS
from serving.pages import file_names, file_response, file_route, read_file

__all__ = ["STREAM", "end_streams", "routes"]

STREAM = "/console/stream"
_STOPPING = web.AppKey("stopping", asyncio.Event)
_INDEX = "index.html"
_files = sorted(set(file_names("console")) - {_INDEX})
_page = read_file("console", _INDEX)
_admin_page = _page.replace(b'data-admin="no"', b'data-admin="yes"')


async def index(request: web.Request) -> web.Response:
    """GET /: on the admin port, with what is done there."""
    admin = on_admin_port(request, request.app[SETTINGS].http.admin_port)
    return file_response(_admin_page if admin else _page, _INDEX)


async def stream(request: web.Request) -> web.StreamResponse:
    """GET /console/stream: one JSON object a second until the client or the server ends."""
    status = request.app[CONTEXT].status
    stopping = request.app[_STOPPING]
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            request_id.HEADER: request_id.current(),
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
    *(file_route(f"/console/{name}", "console", name) for name in _files),
    web.get(STREAM, stream),
]
