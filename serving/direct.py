"""The plainest request, told by its bytes, and the bytes that answer it.

Nearly every request is `GET /v1/recommendations/<id>?n=…` with nothing in it to decode. Such a one,
whole in one piece on a connection with nothing else to do, needs no parser, request or response:
`protocol.py` answers it from here. All others go aiohttp's own way, which answers this one the
same (`front.py`).
"""

from __future__ import annotations

import re
import time

from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

from serving.bodies import plain_n

__all__ = ["asked_plainly", "ready_response"]

_MOST_BYTES = 4096
_PLAINLY = re.compile(
    rb"GET /v1/recommendations/([A-Za-z0-9_~:@-][A-Za-z0-9_.~:@-]{0,127})(?:\?(n=[0-9]{1,3}))?"
    rb" HTTP/1\.1\r\n"
    # Any headers but those that change how it is to be answered, and by whom, and those only
    # aiohttp can read.
    rb"(?:(?!content-length:|transfer-encoding:|expect:|upgrade:|origin:|http2-settings:"
    rb"|x-request-id:|traceparent:|headwater-tenant:|connection:(?![ \t]*keep-alive\r))"
    rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+:[\t -~]*\r\n){0,100}\r\n",
    re.IGNORECASE,
)


def asked_plainly(data: bytes) -> tuple[str, int] | None:
    """The user's id and n, if these bytes are one whole request that asks for nothing else."""
    if len(data) > _MOST_BYTES or not data.startswith(b"GET /v1/"):
        return None
    found = _PLAINLY.fullmatch(data)
    if found is None:
        return None
    user_id, query = found.groups()
    n = plain_n("" if query is None else query.decode())
    return None if n is None else (user_id.decode(), n)


class _Head:
    """What responses begin with: the same for a second."""

    def __init__(self) -> None:
        self._second, self._bytes = 0, b""

    def now(self) -> bytes:
        """Everything before the length."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._bytes = (
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                f"Date: {rfc822_formatted_time()}\r\nServer: {SERVER_SOFTWARE}\r\nContent-Length: "
            ).encode()
        return self._bytes


_HEAD = _Head()


def ready_response(body: bytes, asked_as: str) -> bytes:
    """200 with JSON, on a connection of HTTP/1.1 that stays open, to the request of that id."""
    return b"%b%d\r\nX-Request-ID: %b\r\n\r\n%b" % (
        _HEAD.now(),
        len(body),
        asked_as.encode(),
        body,
    )
