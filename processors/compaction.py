"""When neighbour lists are compacted: soon while there is time, late in a backlog.

A list that grows past its bound is named once, and compacted when the worker has caught up. One
that grows past twice the bound is named again, and compacted at once: in a backlog, that is once
for many batches instead of nearly every time. Knows the store, not Faust.
"""

from __future__ import annotations

import time
from itertools import islice

from store.commit import Outcome
from store.writer import StoreWriter

__all__ = ["Compaction"]

_TOGETHER, _SECONDS = 100, 1.0
"""So many long lists, or those of so long, are compacted together, since that goes to Redis twice.
One that is forgotten with its worker is named again when it grows to twice its bound."""
_BACKLOG = 1000
"""A batch of so many records is one of a backlog."""
_AT_A_TIME = 500
_MOST_GROWN = 500_000


class Compaction:
    """Remembers which lists have grown. Raises redis.RedisError as redis-py does."""

    def __init__(self, writer: StoreWriter) -> None:
        self._writer = writer
        self._long: set[bytes] = set()
        self._grown: dict[bytes, None] = {}
        self._last = 0.0
        self._busy_until = 0.0

    async def after(self, outcome: Outcome, records: int) -> None:
        """After a batch of so many records was committed."""
        now = time.monotonic()
        if records >= _BACKLOG:
            self._busy_until = now + _SECONDS
        self._long.update(outcome.long_lists)
        if len(self._grown) < _MOST_GROWN:
            self._grown.update(dict.fromkeys(outcome.grown_lists))
        due = now >= self._last + _SECONDS
        if self._long and (due or len(self._long) >= _TOGETHER):
            self._last = now
            await self._compact([])

    async def finish(self) -> None:
        """Compact all that is known to have grown, now."""
        while self._long or self._grown:
            await self._compact(list(self._grown))

    async def some(self) -> None:
        """Now and then: compact some of the lists that have grown, unless there is a backlog."""
        if (self._long or self._grown) and time.monotonic() >= self._busy_until:
            await self._compact(list(islice(self._grown, _AT_A_TIME)))

    async def _compact(self, grown: list[bytes]) -> None:
        lists, self._long = [*self._long, *grown], set()
        for key in grown:
            del self._grown[key]
        again = lists
        try:
            # What came in between may have taken one past its bound, where no commit names it.
            again = (await self._writer.compact(lists)).grown
        finally:
            self._grown.update(dict.fromkeys(again))
