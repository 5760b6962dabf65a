"""A log line of a request: of each that failed or took long, or of all (setting `log.requests`).

The line names the route, not the path: ids of users stand in paths, and who is forgotten must not
live on in a log. What fails when everything fails is bounded: some lines a second, and how many
were left out.
"""

from __future__ import annotations

import re
import time

import structlog

from config.settings import LogSettings

__all__ = ["RequestLog"]

log = structlog.get_logger("headwater.request")

_MOST_A_SECOND = 20
_MOST_IDS = 100
_RECOMMENDATION_ID = re.compile(rb'"recommendation_id":"([^"]+)"')


class RequestLog:
    """Writes the lines of one process."""

    def __init__(self, settings: LogSettings) -> None:
        self._all = settings.requests == "all"
        self.slow_seconds = settings.slow_ms / 1000
        self._second, self._lines, self._left_out = 0, 0, 0

    def wants(self, status: int, seconds: float) -> bool:
        """Whether a request has a line."""
        return status >= 500 or seconds >= self.slow_seconds or self._all

    def tell(
        self, method: str, route: str, status: int, body: object, seconds: float, asked_as: str
    ) -> None:
        """Write the line of a request, of the id `asked_as`, that was answered with `body`."""
        trouble = status >= 500 or seconds >= self.slow_seconds
        if trouble and not self._all and not self._has_room():
            return
        told: dict[str, object] = {
            "method": method,
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
            "request_id": asked_as,
        }
        if isinstance(body, bytes) and (found := _RECOMMENDATION_ID.findall(body)):
            ids = [one.decode() for one in found[:_MOST_IDS]]
            told["recommendation_id"] = ids[0] if len(ids) == 1 else ids
        if self._left_out:
            told["left_out"], self._left_out = self._left_out, 0
        if trouble:
            log.warning("request failed" if status >= 500 else "slow request", **told)
        else:
            log.info("request", **told)

    def _has_room(self) -> bool:
        now = int(time.monotonic())
        if now != self._second:
            self._second, self._lines = now, 0
        self._lines += 1
        if self._lines > _MOST_A_SECOND:
            self._left_out += 1
            return False
        return True
