"""Records to Kafka from request handlers: with a deadline, and never blocking the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from config.errors import StreamError
from streams.producer import Headers, RecordProducer

__all__ = ["Publisher"]

_SECONDS = 3.0
_MOST_WAITING = 20_000
_MOST_BYTES = 256 * 1024 * 1024
"""Both a fraction of what librdkafka queues: behind a full queue, the event loop would stand."""


class Publisher:
    """Sends through a producer whose queue must be longer than what may wait here."""

    def __init__(self, producer: RecordProducer) -> None:
        self._producer = producer
        self._waiting = self._bytes = 0
        self._tasks: set[asyncio.Task[list[str | None]]] = set()

    async def send(
        self, records: Sequence[tuple[str, bytes | None, bytes | None, Headers | None]]
    ) -> None:
        """Return once the broker has all of (topic, key, value, headers).

        Raises StreamError when it has not within three seconds; it may still get them later.
        """
        size = sum(len(key or b"") + len(value or b"") for _, key, value, _ in records)
        if self._waiting + len(records) > _MOST_WAITING or self._bytes + size > _MOST_BYTES:
            raise StreamError("Kafka does not keep up and too much waits for it; try again later")
        self._waiting += len(records)
        self._bytes += size
        task = asyncio.create_task(self._producer.publish_all(records))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(done, len(records), size))
        try:
            async with asyncio.timeout(_SECONDS):
                outcomes = await asyncio.shield(task)
        except TimeoutError:
            raise StreamError(
                f"Kafka did not confirm within {_SECONDS:.0f} s; it may still do. Try again: an "
                "event with an event_id counts once however often it is sent"
            ) from None
        failed = [outcome for outcome in outcomes if outcome is not None]
        if failed:
            raise StreamError(f"Kafka refused {len(failed)} of {len(records)}: {failed[0]}")

    def _done(self, task: asyncio.Task[list[str | None]], count: int, size: int) -> None:
        self._tasks.discard(task)
        self._waiting -= count
        self._bytes -= size
        if not task.cancelled():
            task.exception()  # whoever waited has been told
