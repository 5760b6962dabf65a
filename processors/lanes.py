"""One lane for each partition: its batches in order, those of different lanes overlapping.

What waits in a lane is applied as one batch: an idle stream is committed record by record, as soon
as can be, and a backlog in thousands. In between, a lane rests before its next small batch: each
costs a millisecond or two whatever it holds. While Redis applies one lane's batch, the next one's
is decoded and folded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable

from streams.transport import RecordBatch, join_batches

__all__ = ["Lanes"]

_AT_ONCE = 4
"""Lanes that apply a batch at the same time: enough to keep this process and Redis busy, and few
enough that Redis answers everybody else soon."""
_REST_SECONDS = 0.003
"""From the begin of a lane's batch to that of its next, for each lane: half of a worker's time at
most goes to what a batch costs beside its events."""
_PLENTY = 1000
"""Records that are not made to wait: what their batch costs beside them is little."""


class Lanes:
    """Runs `apply` on batches; an error that it raises goes to `failed` and ends its lane."""

    def __init__(
        self,
        apply: Callable[[RecordBatch], Awaitable[None]],
        failed: Callable[[BaseException], None],
        most: int,
    ) -> None:
        """`most` records are applied at once, and wait in a lane before `put` does."""
        self._apply = apply
        self._failed = failed
        self._most = most
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._lanes: dict[tuple[str, int], tuple[_Lane, asyncio.Task[None]]] = {}

    async def put(self, batch: RecordBatch) -> None:
        """Hand over a batch; waits while its lane is full, which holds the reader back.

        A batch whose lane is dropped meanwhile goes with it.
        """
        name = batch.topic, batch.partition
        if name not in self._lanes:
            lane = _Lane(self._most)
            task = asyncio.get_running_loop().create_task(self._run(lane))
            task.add_done_callback(self._ended)
            self._lanes[name] = lane, task
        await self._lanes[name][0].put(batch)

    def drop(self, topic: str, partition: int) -> None:
        """End a lane wherever it is; a commit that it was in is complete or did nothing."""
        found = self._lanes.pop((topic, partition), None)
        if found is not None:
            lane, task = found
            task.cancel()
            lane.clear()

    def close(self) -> None:
        """End all lanes."""
        for topic, partition in list(self._lanes):
            self.drop(topic, partition)

    async def _run(self, lane: _Lane) -> None:
        while True:
            await lane.filled.wait()
            async with self._at_once:
                due = asyncio.get_running_loop().time() + _REST_SECONDS * len(self._lanes)
                await self._apply(lane.take())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await lane.plenty.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)


class _Lane:
    """Batches that wait."""

    def __init__(self, most: int) -> None:
        self.filled = asyncio.Event()
        self.plenty = asyncio.Event()
        self._most = most
        self._room = asyncio.Event()
        self._room.set()
        self._batches: deque[RecordBatch] = deque()
        self._records = 0

    async def put(self, batch: RecordBatch) -> None:
        await self._room.wait()
        self._batches.append(batch)
        self._count(len(batch.records))

    def take(self) -> RecordBatch:
        """What waits, as far as it is consecutive and not too much; something must wait."""
        taken = [self._batches.popleft()]
        found = len(taken[0].records)
        # After a seek, what was read before it still stands in front of what is read since.
        while self._batches and found < self._most and self._batches[0].start == taken[-1].last + 1:
            taken.append(self._batches.popleft())
            found += len(taken[-1].records)
        batch = join_batches(taken)
        if found > self._most:
            batch, rest = batch.cut(self._most)
            self._batches.appendleft(rest)
        self._count(-len(batch.records))
        return batch

    def clear(self) -> None:
        """Forget what waits, and let go of who waits to put more."""
        self._batches.clear()
        self._count(-self._records)

    def _count(self, more: int) -> None:
        self._records += more
        _set(self.filled, self._records > 0)
        _set(self.plenty, self._records >= min(_PLENTY, self._most))
        _set(self._room, self._records < self._most)


def _set(event: asyncio.Event, on: bool) -> None:
    if on:
        event.set()
    else:
        event.clear()
