"""The topics: which there are, and making those that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from config.errors import SettingsError, StreamError
from config.settings import Settings

__all__ = ["bootstrap_of", "ensure_topics"]

_HOUR_MS = 3_600_000
_WAIT_SECONDS = 30


def bootstrap_of(settings: Settings) -> str:
    """The address of Kafka. Raises SettingsError where none is set."""
    if settings.kafka.bootstrap is None:
        raise SettingsError(
            "setting kafka.bootstrap (HEADWATER_KAFKA__BOOTSTRAP) is unset: give the host:port of "
            "a Kafka, or run `headwater up`, which starts one and sets it"
        )
    return settings.kafka.bootstrap


def ensure_topics(settings: Settings) -> None:
    """Make the topics that do not exist yet; leave those that do as they are.

    Raises StreamError when Kafka cannot be reached or refuses.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap_of(settings), "log_level": 2})
    futures: Mapping[str, Future[None]] = admin.create_topics(_topics(settings))
    for topic, future in futures.items():
        try:
            future.result(_WAIT_SECONDS)
        except TimeoutError:
            raise StreamError(
                f"Kafka at {settings.kafka.bootstrap} does not answer within {_WAIT_SECONDS} s; "
                "check the address and whether it runs"
            ) from None
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise StreamError(
                    f"topic {topic} cannot be made at {settings.kafka.bootstrap}: "
                    f"{error.args[0].str()}; check the address and the broker's log"
                ) from None


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
