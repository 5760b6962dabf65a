"""The topics: which there are, and making those that are missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from config.errors import StreamError
from config.kafka_access import Refusals, address_of, client_options
from config.settings import Settings

__all__ = ["bootstrap_of", "ensure_topics"]

_HOUR_MS = 3_600_000
_WAIT_SECONDS = 30


def bootstrap_of(settings: Settings) -> str:
    """The address of Kafka. Raises SettingsError where none is set."""
    return address_of(settings.kafka)


def ensure_topics(*tenants: Settings, needed: Collection[str] | None = None) -> None:
    """Make the topics of these that do not exist yet; leave those that do as they are.

    `needed` are those without which the caller cannot go on: all of them unless told; one that
    may not see or make the others does without. Raises StreamError when Kafka cannot be reached or
    refuses.
    """
    kafka = tenants[0].kafka
    refusals = Refusals(kafka)
    address = kafka.bootstrap
    futures: Mapping[str, Future[None]] = {}
    with AdminClient(client_options(kafka, {"error_cb": refusals})) as admin:
        try:
            # Who may not make topics is not asked to where all are there.
            known = admin.list_topics(timeout=_WAIT_SECONDS).topics
            wanted = [topic for one in tenants for topic in _topics(one)]
            if missing := [one for one in wanted if one.topic not in known]:
                futures = admin.create_topics(missing)
            for future in futures.values():
                future.exception(_WAIT_SECONDS)
        except (TimeoutError, KafkaException):
            admin.poll(0)
            raise StreamError(
                f"Kafka at {address} does not answer within {_WAIT_SECONDS} s; "
                f"{refusals.said or 'check the address and whether it runs'}"
            ) from None
    for topic, future in futures.items():
        error = future.exception()
        if isinstance(error, KafkaException):
            accepted = {KafkaError.TOPIC_ALREADY_EXISTS}
            if needed is not None and topic not in needed:
                accepted.add(KafkaError.TOPIC_AUTHORIZATION_FAILED)
            if error.args[0].code() not in accepted:
                said = refusals.explain(error.args[0], "check the address and the broker's log")
                raise StreamError(f"topic {topic} cannot be made at {address}: {said}")
        elif error is not None:
            raise error


def _topics(settings: Settings) -> list[NewTopic]:
    kafka = settings.kafka
    retention = str(kafka.retention_hours * _HOUR_MS)
    largest = str(kafka.max_record_bytes)
    # A dead letter is its event and headers that say why: it needs a little more room.
    roomier = str(kafka.max_record_bytes + 16_384)
    # Broker time: "broker time to committed" means something whatever producers' clocks say.
    stamped = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": largest}
    return [
        NewTopic(name, kafka.partitions, kafka.replication, config=config)
        for name, config in (
            (kafka.events_topic, {**stamped, "retention.ms": retention}),
            (kafka.items_topic, {**stamped, "cleanup.policy": "compact"}),
            (kafka.dead_topic, {"retention.ms": retention, "max.message.bytes": roomier}),
            (kafka.recommendations_topic, {**stamped, "retention.ms": retention}),
        )
    ]
