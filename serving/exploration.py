"""Tells the log which new items were shown, without holding up the answers that show them."""

from __future__ import annotations

import asyncio
import time

import msgspec

from config.errors import StreamError
from serving import metrics
from serving.publishing import Publisher
from streams.shown import Shown

__all__ = ["Exposures"]

_encoder = msgspec.json.Encoder()


class Exposures:
    """Publishes a record for each answer with a new item; what fails is counted."""

    def __init__(self, publisher: Publisher, topic: str) -> None:
        self._publisher = publisher
        self._topic = topic
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, recommendation_id: str, user_id: str | None, item_id: str, cost: float) -> None:
        """An answer shows a new item; `cost` is what was given up for it, see `Scored.explored`.

        The record is keyed by user, or by the answer where nobody is named.
        """
        metrics.EXPLORED.inc()
        metrics.EXPLORED_COST.inc(cost)
        shown = Shown(recommendation_id, time.time_ns() // 1_000_000, [item_id])
        key = (user_id or recommendation_id).encode()
        task = asyncio.create_task(self._send(key, _encoder.encode(shown)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for nothing more; what was sent is the producer's to finish."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, key: bytes, value: bytes) -> None:
        try:
            await self._publisher.send([(self._topic, key, value, None)])
        except StreamError:
            metrics.UNTOLD.inc()
