"""Dead letters: events that cannot be counted, kept with the reason and where they came from."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from config.errors import StreamError
from streams.decode import RejectedRecord
from streams.producer import Headers, RecordProducer

__all__ = ["DeadLetters"]

log = structlog.get_logger("headwater.dead")

_MOST_TOLD = 10
"""Lines of one batch: a producer gone wrong must not fill the disk."""


class DeadLetters:
    """Writes to `events.dead` and returns only when the broker has it.

    A worker that dies between this and its commit writes the same letters again: their source
    topic, partition and offset tell copies apart.
    """

    def __init__(self, producer: RecordProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def bury(self, source: str, partition: int, rejected: Sequence[RejectedRecord]) -> None:
        """Send records with their reasons. Raises StreamError when the broker does not take one."""
        outcomes = await self._producer.publish_all(
            [
                (
                    self._topic,
                    dead.record.key,
                    dead.record.value,
                    _headers(source, partition, dead),
                )
                for dead in rejected
            ]
        )
        problem = next((outcome for outcome in outcomes if outcome is not None), None)
        if problem is not None:
            raise StreamError(f"{self._topic} did not take a dead letter: {problem}")
        for dead in rejected[:_MOST_TOLD]:
            log.warning(
                "dead letter",
                topic=source,
                partition=partition,
                offset=dead.record.offset,
                reason=dead.rejection.reason,
                field=dead.rejection.field,
            )
        if (more := len(rejected) - _MOST_TOLD) > 0:
            last = rejected[-1].record.offset
            log.warning("more", topic=source, partition=partition, offset=last, letters=more)


def _headers(source: str, partition: int, dead: RejectedRecord) -> Headers:
    rejection = dead.rejection
    return [
        ("reason", rejection.reason),
        ("message", str(rejection)[:500]),
        ("field", rejection.field or ""),
        ("source.topic", source),
        ("source.partition", str(partition)),
        ("source.offset", str(dead.record.offset)),
    ]
