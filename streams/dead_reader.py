"""Reads dead letters: the newest ones, or one by its place."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from config.errors import StreamError
from config.kafka_access import Kafka, Refusals, address_of, client_options
from streams.producer import Headers

__all__ = ["DeadLetter", "DeadReader"]

_SECONDS = 5.0
"""Longest wait for Kafka, in all."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be counted."""

    partition: int
    """Where it stands among the dead letters."""
    offset: int
    timestamp: int
    """When it was buried, in milliseconds since 1970."""
    reason: str
    message: str
    field: str
    source_topic: str
    """Where it came from."""
    source_partition: int
    source_offset: int
    key: bytes | None
    value: bytes | None


class DeadReader:
    """Asks Kafka. Blocks: to be called in a thread. Raises StreamError where Kafka does not answer
    within seconds.
    """

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic

    def newest(self, n: int) -> tuple[list[DeadLetter], int]:
        """The n newest letters, newest first, and how many are kept in all."""
        limit = time.monotonic() + _SECONDS
        found: list[DeadLetter] = []
        kept = 0
        with self._consumer() as consumer:
            for partition in self._partitions(consumer):
                at = TopicPartition(self._topic, partition)
                low, end = consumer.get_watermark_offsets(at, timeout=_SECONDS)
                kept += end - low
                found += self._read(consumer, partition, max(low, end - n), end, limit)
        found.sort(key=lambda one: (-one.timestamp, one.partition, -one.offset))
        return found[:n], kept

    def at(self, partition: int, offset: int) -> DeadLetter | None:
        """The letter at a place; None where there is none any more, or not yet."""
        with self._consumer() as consumer:
            if partition not in self._partitions(consumer):
                return None
            at = TopicPartition(self._topic, partition)
            low, end = consumer.get_watermark_offsets(at, timeout=_SECONDS)
            if not low <= offset < end:
                return None
            limit = time.monotonic() + _SECONDS
            found = next(self._read(consumer, partition, offset, offset + 1, limit), None)
            return found if found is not None and found.offset == offset else None

    def _read(
        self, consumer: Consumer, partition: int, begin: int, end: int, limit: float
    ) -> Iterator[DeadLetter]:
        if begin >= end:
            return
        consumer.assign([TopicPartition(self._topic, partition, begin)])
        at = begin
        while at < end:
            message = consumer.poll(max(0.0, limit - time.monotonic()))
            if message is None:
                raise StreamError(f"Kafka at {address_of(self._kafka)} does not send {self._topic}")
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its only name
                    return
                if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                    continue  # it is never joined, and so needs no right
                raise KafkaException(error)
            at = (message.offset() or 0) + 1
            yield _letter(message)

    def _partitions(self, consumer: Consumer) -> Collection[int]:
        described = consumer.list_topics(self._topic, _SECONDS).topics[self._topic]
        error = described.error
        if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise KafkaException(error)
        return cast(Collection[int], described.partitions)

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        refusals = Refusals(self._kafka)
        options = {
            "group.id": f"dead-letters-{secrets.token_hex(4)}",
            "enable.auto.commit": False,
            # Markers of transactions are no records: their partition ends before its end.
            "enable.partition.eof": True,
            "error_cb": refusals,
        }
        consumer = Consumer(client_options(self._kafka, options))
        try:
            yield consumer
        except KafkaException as error:
            said = refusals.explain(error.args[0], "is Kafka up?")
            raise StreamError(f"{self._topic} cannot be read: {said}") from None
        finally:
            consumer.close()


def _letter(message: Message) -> DeadLetter:
    headers = {
        name: (value if isinstance(value, bytes) else str(value or "").encode()).decode(
            errors="replace"
        )
        for name, value in cast(Headers, message.headers() or [])
    }

    def number(name: str) -> int:
        text = headers.get(name, "")
        return int(text) if text.isdigit() else -1

    return DeadLetter(
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
        headers.get("reason", ""),
        headers.get("message", ""),
        headers.get("field", ""),
        headers.get("source.topic", ""),
        number("source.partition"),
        number("source.offset"),
        message.key(),
        message.value(),
    )
