"""What waits to be applied, a lane for each partition; several lanes' records make one batch.

An idle stream is committed record by record, as soon as can be, and a backlog in thousands. In
between there is a rest from one small batch to the next, since each costs a millisecond or two
whatever it holds, and a batch takes along what waits in all lanes. A lane is in one batch at a
time, so that its records stay in order. While Redis applies one batch, the next is decoded and
folded from other lanes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from streams.records import RecordBatch, join_batches

__all__ = ["Lanes"]

_AT_ONCE = 4
"""Batches that are applied at the same time: enough to keep this process and Redis busy, and few
enough that Redis answers everybody else soon."""
_REST_SECONDS = 0.01
"""From the begin of a batch to that of the next: what a batch costs beside its records takes a
small part of a worker's time."""
_PLENTY = 1000
"""Records that are not made to wait: what their batch costs beside them is little."""


class Lanes:
    """Runs `apply` on batches' parts, one of each partition; an error that it raises goes to
    `failed`.
    """

    def __init__(
        self,
        apply: Callable[[Sequence[RecordBatch]], Awaitable[None]],
        failed: Callable[[BaseException], None],
        most: int,
    ) -> None:
        """`most` records are applied at once, and wait in a lane before `put` does."""
        self._apply = apply
        self._failed = failed
        self._most = most
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._rested = 0.0
        """Time of the loop until which small batches wait."""
        self._alarm: asyncio.TimerHandle | None = None
        self._next: asyncio.Handle | None = None
        """Begins what is being handed over, in the loop's next turn."""

    async def put(self, batch: RecordBatch) -> None:
        """Hand over a batch; waits while its lane is full, which holds the reader back.

        A batch whose lane is dropped meanwhile goes with it.
        """
        lane = self._lanes.setdefault((batch.topic, batch.partition), _Lane(self._most))
        await lane.put(batch)
        if lane.records >= _PLENTY:
            # Of one partition alone a batch meets fewer sessions, each of them more often.
            self._begin()
        elif self._next is None:
            # What was read at once goes together: begun right here, a batch would take its first
            # partition along, and the others would have to rest.
            self._next = asyncio.get_running_loop().call_soon(self._begin_next)

    def drop(self, topic: str, partition: int) -> None:
        """Forget what waits of a partition. A batch that it has a part in goes on: whoever owns
        the partition now will find that part contained, or this batch refused.
        """
        lane = self._lanes.pop((topic, partition), None)
        if lane is not None:
            lane.clear()

    def close(self) -> None:
        """Forget what waits, and end what is being applied: a commit is complete or did nothing."""
        for topic, partition in list(self._lanes):
            self.drop(topic, partition)
        for task in self._running:
            task.cancel()
        for handle in (self._alarm, self._next):
            if handle is not None:
                handle.cancel()

    def _begin(self) -> None:
        """Begin as many batches as may be."""
        loop = asyncio.get_running_loop()
        while len(self._running) < _AT_ONCE:
            waiting = [lane for lane in self._lanes.values() if lane.records and not lane.busy]
            if not waiting:
                return
            small = sum(lane.records for lane in waiting) < min(_PLENTY, self._most)
            if small and loop.time() < self._rested:
                if self._alarm is None:
                    self._alarm = loop.call_at(self._rested, self._ring)
                return
            self._rested = loop.time() + _REST_SECONDS
            task = loop.create_task(self._run(self._take(waiting)))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _begin_next(self) -> None:
        self._next = None
        self._begin()

    def _ring(self) -> None:
        self._alarm = None
        self._begin()

    def _take(self, waiting: list[_Lane]) -> list[tuple[_Lane, RecordBatch]]:
        """Who has waited longest comes first."""
        taken: list[tuple[_Lane, RecordBatch]] = []
        room = self._most
        for lane in sorted(waiting, key=lambda one: one.since):
            taken.append((lane, batch := lane.take(room)))
            lane.busy = True
            room -= len(batch.records)
            if room <= 0:
                break
        return taken

    async def _run(self, taken: list[tuple[_Lane, RecordBatch]]) -> None:
        try:
            await self._apply([batch for _, batch in taken])
        finally:
            for lane, _ in taken:
                lane.busy = False

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._failed(error)
        else:
            self._begin()


class _Lane:
    """Batches that wait."""

    def __init__(self, most: int) -> None:
        self.records = 0
        self.since = 0.0
        """When what waits first came."""
        self.busy = False
        self._most = most
        self._room = asyncio.Event()
        self._room.set()
        self._batches: deque[RecordBatch] = deque()

    async def put(self, batch: RecordBatch) -> None:
        await self._room.wait()
        if not self.records:
            self.since = asyncio.get_running_loop().time()
        self._batches.append(batch)
        self._count(len(batch.records))

    def take(self, most: int) -> RecordBatch:
        """What waits, as far as it is consecutive and not too much; something must wait."""
        taken = [self._batches.popleft()]
        found = len(taken[0].records)
        # After a seek, what was read before it still stands in front of what is read since.
        while self._batches and found < most and self._batches[0].start == taken[-1].last + 1:
            taken.append(self._batches.popleft())
            found += len(taken[-1].records)
        batch = join_batches(taken)
        if found > most:
            batch, rest = batch.cut(most)
            self._batches.appendleft(rest)
        self._count(-len(batch.records))
        self.since = asyncio.get_running_loop().time()
        return batch

    def clear(self) -> None:
        """Forget what waits, and let go of who waits to put more."""
        self._batches.clear()
        self._count(-self.records)

    def _count(self, more: int) -> None:
        self.records += more
        if self.records < self._most:
            self._room.set()
        else:
            self._room.clear()
