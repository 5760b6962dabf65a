"""Refuses requests early while there are more than can be answered soon.

A server that takes every request answers all of them late once more come than it can answer. This
one works on `http.max_concurrent` at a time, and whoever comes then is told at once, by 503 with
`Retry-After`, to try again: those that are taken are answered as quickly as ever.

Refusing must cost next to nothing, or a server that refuses most requests has no time left for the
others. A plain GET of the API is therefore counted, and refused, before it is parsed
(`protocol.py`), by bytes that are made once a second. All other requests are refused in `front.py`.

While the store is slow, or does not answer, requests pile up that need no processor: these are not
refused, but answered when it has answered, or without it after their deadline (`fallback.py`). Only
a process that is busy itself, nearly all the time, has too much to do, or one whose crowd does not
get smaller for a second and a half though answers leave it: that one waits for cores that others
have, or for a store that is slower than requests come. More are let in then.

Nor is a crowd too much that is gone within some tens of milliseconds, as after a pause of the
store. What tells overload from that is that it stays, as in CoDel (RFC 8289), while the process was
busy all along; or that it came so quickly that waiting would make it far larger. From then on no
more are taken than may be inside, until that was not needed for a fifth of a second: requests are
answered by the dozen, so that a moment with few inside says nothing.
"""

from __future__ import annotations

import time

import orjson
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

from serving import metrics

__all__ = ["OVERLOADED", "RETRY_SECONDS", "Gate", "is_plain_get"]

RETRY_SECONDS = 1
OVERLOADED = "more requests than this server can answer; try again in a second"
BUSY_SHARE = 0.75
"""Of the time: who works so much has no more to give."""
_SAMPLE_SECONDS = 0.02
_STANDING_SECONDS = 0.25
"""A crowd that is still there after so long, all of it busy, does not go away by itself."""
_LASTING_SECONDS = 1.5
"""The same, of a process that is not busy itself."""
_WAITING_MANY = 10
"""Times as many may be inside such a process: the more share a wait, the more are answered. At ten
times the load on two cores (`headwater bench spike`, whose figures change with the machine's speed)
1,400 to 2,400 of 3,000 a second were, after 0.24 to 0.56 s in the median with 800 inside; 2,450
after 0.93 s with 1,280, which waited for three seconds at times.
"""
_LOOSENED_SECONDS = 0.5
"""Whoever was not busy at a stretch for so long, though it refuses, is not what is slow."""
_FLOW_SECONDS = 0.5
"""Whoever has answered nobody for so long waits for the store."""
_FAR_TOO_MANY = 4
"""Times as many as may be there for good: no more are let in, where they came within"""
_RUSH_SECONDS = 0.1
_CALM_SECONDS = 0.2
"""Nobody had to be refused for so long: it is over."""
_MOST_BYTES = 8192
_BODY = orjson.dumps(
    {
        "type": "about:blank",
        "title": "Not available right now",
        "status": 503,
        "detail": OVERLOADED,
        "cause": "overload",
    }
)


class Gate:
    """Counts the requests of one process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside = 0
        self._busy_since: float | None = None
        self._limit = 0
        """How many may be inside, once there were too many; then no more are let in."""
        self._tightened = 0.0
        self._crowded_since: float | None = None
        self._crowded = 0.0
        self._rushed = False
        self._left = 0.0
        self._sampled, self._worked = time.monotonic(), time.thread_time()
        self._second, self._refusal = 0, b""
        self._refused = 0

    @property
    def is_full(self) -> bool:
        """Whether one more would have to wait for too long."""
        now = time.monotonic()
        if (passed := now - self._sampled) >= _SAMPLE_SECONDS:
            worked = time.thread_time()
            if worked - self._worked < BUSY_SHARE * passed:
                self._busy_since = None
            elif self._busy_since is None:
                self._busy_since = self._sampled
            self._sampled, self._worked = now, worked
            if self._refused:
                metrics.SHED.inc(self._refused)
                self._refused = 0
        if self._inside < self._most:
            if self._limit and now - self._crowded >= _CALM_SECONDS:
                self._limit = 0
            return False
        self._crowded = now
        if self._crowded_since is None:
            self._crowded_since = now
        crowded = now - self._crowded_since
        if crowded <= _RUSH_SECONDS and self._inside >= _FAR_TOO_MANY * self._most:
            self._rushed = True
        busy = 0.0 if self._busy_since is None else now - self._busy_since
        flows = now - self._left < _FLOW_SECONDS
        if not busy and not flows:
            return False
        stands = busy >= _STANDING_SECONDS and (self._limit or crowded >= _STANDING_SECONDS)
        if stands or (busy and self._rushed and not self._limit):
            self._limit, self._tightened = self._most, now
        elif self._limit == self._most and now - self._tightened >= _LOOSENED_SECONDS:
            # What it waits for is not its own work.
            self._limit = _WAITING_MANY * self._most
        elif not self._limit and crowded >= _LASTING_SECONDS and flows:
            self._limit = _WAITING_MANY * self._most
        return 0 < self._limit <= self._inside

    def enter(self) -> None:
        """One more is worked on."""
        self._inside += 1

    def leave(self) -> None:
        """One is answered."""
        self._inside -= 1
        self._left = time.monotonic()
        if self._inside < self._most:
            self._crowded_since, self._rushed = None, False

    def refusal(self) -> bytes:
        """The response to a request that is refused unread, which is counted soon."""
        self._refused += 1
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._refusal = (
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
                b"Retry-After: %d\r\nDate: %b\r\nServer: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (
                    RETRY_SECONDS,
                    rfc822_formatted_time().encode(),
                    SERVER_SOFTWARE.encode(),
                    len(_BODY),
                    _BODY,
                )
            )
        return self._refusal


_plain_heads: set[bytes] = set()
_MOST_HEADS = 500


def is_plain_get(data: bytes) -> bool:
    """Whether these bytes are one whole GET of the API on a connection that stays open."""
    line, _, head = data.partition(b"\r\n")
    return (
        line.startswith(b"GET /v1/")
        and line.endswith(b" HTTP/1.1")
        and len(data) <= _MOST_BYTES
        # Clients send the same headers again and again.
        and (head in _plain_heads or _is_plain_head(head))
    )


def _is_plain_head(head: bytes) -> bool:
    lowered = b"\r\n" + head.lower()
    plain = (
        lowered.find(b"\r\n\r\n") == len(lowered) - 4
        and b"connection: close" not in lowered
        and b"\r\ncontent-length:" not in lowered
        and b"\r\ntransfer-encoding:" not in lowered
    )
    if plain:
        if len(_plain_heads) >= _MOST_HEADS:
            _plain_heads.clear()
        _plain_heads.add(head)
    return plain
