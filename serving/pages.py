"""Files of the server's own pages: in the package, with nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web

__all__ = ["file_names", "file_response", "file_route", "read_file"]

_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def file_route(path: str, folder: str, name: str) -> web.RouteDef:
    """Answers GET `path` with a file of a folder of this package, read now."""
    body = read_file(folder, name)

    async def send(_request: web.Request) -> web.Response:
        return file_response(body, name)

    return web.get(path, send)


def file_names(folder: str) -> list[str]:
    """Of a folder of this package: the files that pages load."""
    names = (one.name for one in files("serving").joinpath(folder).iterdir())
    return [name for name in names if name.endswith(tuple(_KINDS))]


def read_file(folder: str, name: str) -> bytes:
    """A file of a folder of this package."""
    return files("serving").joinpath(folder, name).read_bytes()


def file_response(body: bytes, name: str) -> web.Response:
    """What a file of that name says, in a response."""
    kind = _KINDS[name[name.rindex(".") :]]
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=_HEADERS)
