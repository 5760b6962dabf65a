"""Records to Kafka from request handlers: with a deadline, and never blocking the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from config.errors import StreamError
from config.traces import span, traceparent
from streams.producer import Headers, RecordProducer

__all__ = ["Publisher"]

_SECONDS = 3.0
_MOST_WAITING = 20_000
_MOST_BYTES = 256 * 1024 * 1024
"""Both a fraction of what librdkafka queues: behind a full queue, the event loop would stand."""


_Outgoing = tuple[str, bytes | None, bytes | None, Headers | None]
"""Topic, key, value, headers."""


class Publisher:
    """Sends through a producer whose queue must be longer than what may wait here."""

    def __init__(self, producer: RecordProducer) -> None:
        self._producer = producer
        self._waiting = self._bytes = 0
        self._tasks: set[asyncio.Task[list[str | None]]] = set()

    async def send(self, records: Sequence[_Outgoing]) -> None:
        """Return once the broker has all of (topic, key, value, headers).

        Raises StreamError when it has not within three seconds; it may still get them later.
        """
        with span("publish", "PRODUCER", {"messaging.system": "kafka"}) as made:
            if made is not None:
                topics = ",".join(sorted({topic for topic, *_ in records}))
                made.set_attribute("messaging.destination.name", topics)
                made.set_attribute("messaging.batch.message_count", len(records))
                records = _told(records)
            await self._send(records)

    async def _send(self, records: Sequence[_Outgoing]) -> None:
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


def _told(records: Sequence[_Outgoing]) -> Sequence[_Outgoing]:
    """The records, with the span that sends them in their headers where it is kept."""
    found = traceparent()
    if found is None:
        return records
    return [
        (topic, key, value, [*(headers or ()), ("traceparent", found)])
        for topic, key, value, headers in records
    ]
