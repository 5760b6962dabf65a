"""One lane for each partition: its batches in order, those of different lanes overlapping.

While Redis applies one partition's batch, the next one's is decoded and folded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from streams.transport import RecordBatch

__all__ = ["Lanes"]

_WAITING = 1
"""Batches that wait in a lane; more would only be memory."""


class Lanes:
    """Runs `apply` on batches; an error that it raises goes to `failed` and ends its lane."""

    def __init__(
        self,
        apply: Callable[[RecordBatch], Awaitable[None]],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._apply = apply
        self._failed = failed
        self._lanes: dict[tuple[str, int], tuple[asyncio.Queue[RecordBatch], asyncio.Task[None]]]
        self._lanes = {}

    async def put(self, batch: RecordBatch) -> None:
        """Hand over a batch; waits while its lane is full, which holds the reader back."""
        name = batch.topic, batch.partition
        if name not in self._lanes:
            queue: asyncio.Queue[RecordBatch] = asyncio.Queue(_WAITING)
            task = asyncio.get_running_loop().create_task(self._run(queue))
            task.add_done_callback(self._ended)
            self._lanes[name] = queue, task
        await self._lanes[name][0].put(batch)

    def drop(self, topic: str, partition: int) -> None:
        """End a lane wherever it is; a commit that it was in is complete or did nothing."""
        lane = self._lanes.pop((topic, partition), None)
        if lane is not None:
            queue, task = lane
            task.cancel()
            # Whoever waits in `put` would wait for ever: nobody takes from this queue again.
            while not queue.empty():
                queue.get_nowait()

    def close(self) -> None:
        """End all lanes."""
        for topic, partition in list(self._lanes):
            self.drop(topic, partition)

    async def _run(self, queue: asyncio.Queue[RecordBatch]) -> None:
        while True:
            await self._apply(await queue.get())

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
