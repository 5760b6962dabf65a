"""Where a topic's log ends: for those who compare the store with it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TypeVar

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from config.errors import StreamError
from config.kafka_access import Kafka, Refusals, address_of, client_options

__all__ = ["LogEnds"]

_SECONDS = 2.0
"""Longest wait for Kafka."""
_FETCH_BYTES = 65_536
_T = TypeVar("_T")


class LogEnds:
    """Asks Kafka about one topic. Blocks: to be called in a thread, by one at a time.

    Raises StreamError where Kafka does not answer within seconds.
    """

    def __init__(self, kafka: Kafka, topic: str, admin: AdminClient | None = None) -> None:
        """`admin` is a client of the same Kafka that others use, too. Raises SettingsError."""
        self._kafka = kafka
        self._topic = topic
        self._refusals = Refusals(kafka)
        if admin is None:
            admin = AdminClient(client_options(kafka, {"error_cb": self._refusals}))
        self._admin = admin

    def ends(self) -> dict[int, int]:
        """The offset behind the last record of each partition."""
        try:
            asked = TopicCollection([self._topic])
            described = self._admin.describe_topics(asked, request_timeout=_SECONDS)
            partitions = [one.id for one in described[self._topic].result().partitions]
            latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
            wanted = {TopicPartition(self._topic, p): latest for p in partitions}
            found = self._admin.list_offsets(wanted, request_timeout=_SECONDS)
            return {one.partition: int(future.result().offset) for one, future in found.items()}
        except KafkaException as error:
            raise self._silent(error) from None

    def first_at(self, offsets: Mapping[int, int]) -> dict[int, float]:
        """Of partitions, the time of the first record at or behind an offset, in seconds since
        1970: the broker's, or now where the topic keeps its producers' own. A partition without
        such a record is left out: behind its last one there may be markers of transactions.
        """
        options = {
            "group.id": "headwater-ends",  # asked for, but without a subscription never joined
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.message.max.bytes": _FETCH_BYTES,
            "error_cb": self._refusals,
        }
        consumer = Consumer(client_options(self._kafka, options))
        try:
            return self._first_at(consumer, offsets)
        except KafkaException as error:
            raise self._silent(error) from None
        finally:
            consumer.close()

    def _first_at(self, consumer: Consumer, offsets: Mapping[int, int]) -> dict[int, float]:
        consumer.assign([TopicPartition(self._topic, p, at) for p, at in offsets.items()])
        found: dict[int, float] = {}
        empty: set[int] = set()
        limit = time.monotonic() + _SECONDS
        while len(found) + len(empty) < len(offsets):
            message = consumer.poll(max(0.0, limit - time.monotonic()))
            if message is None:
                raise StreamError(
                    f"Kafka at {address_of(self._kafka)} is silent for {_SECONDS:g} s; "
                    f"{self._refusals.said or 'check the address and whether it runs'}"
                )
            partition = message.partition()
            if partition is None:
                continue
            error = message.error()
            if error is None:
                kind, milliseconds = message.timestamp()
                stamped = kind == TIMESTAMP_LOG_APPEND_TIME
                found.setdefault(partition, milliseconds / 1000 if stamped else time.time())
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its only name
                if partition not in found:
                    empty.add(partition)
            elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:  # which is never joined
                raise KafkaException(error)
        return found

    def _silent(self, error: KafkaException) -> StreamError:
        self._admin.poll(0)
        said = self._refusals.explain(error.args[0], "check the address and whether it runs")
        return StreamError(
            f"Kafka at {address_of(self._kafka)} does not say where {self._topic} ends: {said}"
        )
