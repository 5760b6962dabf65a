"""How far the store is behind the log, as this server finds out by itself once a second.

It compares where the log of events ends, asked of Kafka, with what all shards of the store contain,
asked of Redis. So it does not matter where the workers run, whether their metrics can be read, or
whether there are any.

An end is remembered with the time at which it was first seen, until the store contains the log up
to it. The lag is the age of the oldest one that is remembered: what came into the log so many
seconds ago, or later, is not all in the store yet. What was in the log before this server began to
look is as old as the broker says of its first record. A log may end with markers of transactions,
which nobody reads: where the store does not move, the log is looked into before that counts.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from config.errors import StoreError, StreamError
from streams.ends import LogEnds

__all__ = ["Backlog", "Lag"]

log = structlog.get_logger("headwater.http")

_LOOK_SECONDS = 1.0
_PRECISION = 1 / 300
"""Of the lag."""


@dataclass(slots=True)
class _Partition:
    contained: int
    """Last offset that the store contains."""
    ends: deque[tuple[float, int]] = field(default_factory=deque)
    """Those that are not contained, and when they were seen, rising."""
    empty: int = 0
    """Up to here there is nothing to contain behind what is contained."""
    sure: bool = False
    """Whether a record is known to be there that is not contained."""
    new: bool = True
    """Whether the ends may be older than they were seen."""


class Lag:
    """What was seen of one topic. Times are in seconds, of one clock."""

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}
        self._seen: float | None = None

    def see(
        self, now: float, ends: Mapping[int, int], contained: Mapping[int, int]
    ) -> dict[int, int]:
        """Take in where the log ended at `now`, and what the store contained a moment later, by
        partition. Returns offsets at which it is to be looked whether there is a record.
        """
        unsure: dict[int, int] = {}
        before, self._partitions = self._partitions, {}
        for partition, end in ends.items():
            at = contained[partition]
            one = before.get(partition)
            # A store that contains less than before has lost its end, or is another one.
            if one is None or at < one.contained:
                one = _Partition(at)
            moved = at > one.contained
            if moved:
                one.contained, one.sure, one.new = at, False, False
            self._partitions[partition] = one
            _drop(one)
            if end > max(at + 1, one.empty):
                _add(one, now, end)
            if one.ends and not one.sure and not moved:
                unsure[partition] = at + 1
        if not unsure:
            self._seen = now
        return unsure

    def look(self, now: float, asked: Mapping[int, int], ages: Mapping[int, float]) -> None:
        """Take in what a look brought: how old the first record was at each offset asked for, and
        nothing where there was none. `now` is that of `see`.
        """
        self._seen = now
        for partition in asked:
            one = self._partitions[partition]
            if partition not in ages:
                one.empty = one.ends[-1][1]
                _drop(one)
                continue
            one.sure = True
            if one.new:
                one.new = False
                seen, end = one.ends[0]
                one.ends[0] = min(seen, now - ages[partition]), end

    def seconds(self, now: float) -> float | None:
        """The lag; None where nothing was seen yet."""
        if self._seen is None:
            return None
        oldest = [one.ends[0][0] for one in self._partitions.values() if one.ends]
        return max(0.0, now - min(oldest)) if oldest else 0.0

    def unseen(self, now: float) -> float | None:
        """Since when nothing was seen any more; None where nothing was seen yet."""
        return None if self._seen is None else now - self._seen


def _add(one: _Partition, now: float, end: int) -> None:
    """Remember an end. The older the first, the fewer are told apart from each other: they are
    taken for as old as the one before, which keeps their number to some thousands.
    """
    if one.ends and one.ends[-1][1] >= end:
        return
    if one.ends and now - one.ends[-1][0] < _PRECISION * (now - one.ends[0][0]):
        one.ends[-1] = one.ends[-1][0], end
    else:
        one.ends.append((now, end))


def _drop(one: _Partition) -> None:
    """Forget ends that are contained."""
    while one.ends and one.ends[0][1] <= max(one.contained + 1, one.empty):
        one.ends.popleft()


class Backlog:
    """Looks once a second."""

    def __init__(
        self,
        ends: LogEnds,
        contained: Callable[[Sequence[int]], Awaitable[list[int]]],
    ) -> None:
        """`contained` tells of partitions the last offset that the store contains, -1 for none."""
        self._ends = ends
        self._contained = contained
        self._lag = Lag()
        self._silent = False

    async def run(self, rarer: Callable[[], float]) -> None:
        """Look, forever; so many times rarer than once a second."""
        while True:
            try:
                await self._look()
                self._silent = False
            except StreamError as error:
                if not self._silent:
                    log.warning("lag is not known", error=str(error))
                self._silent = True
            except StoreError:
                pass  # told by whoever guards the store
            await asyncio.sleep(_LOOK_SECONDS * rarer())

    def seconds(self) -> float | None:
        """The lag; None where it is not known."""
        return self._lag.seconds(time.monotonic())

    def unseen(self) -> float | None:
        """Since when Kafka or the store were not asked with success; None for never."""
        return self._lag.unseen(time.monotonic())

    async def _look(self) -> None:
        now = time.monotonic()
        ends = await asyncio.to_thread(self._ends.ends)
        contained = await self._contained(list(ends))
        unsure = self._lag.see(now, ends, dict(zip(ends, contained, strict=True)))
        if unsure:
            began = time.time()
            times = await asyncio.to_thread(self._ends.first_at, unsure)
            ages = {partition: began - time for partition, time in times.items()}
            self._lag.look(now, unsure, ages)
