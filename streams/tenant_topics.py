"""The topics of tenants: which there are, who reads them, and deleting them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from config.errors import StreamError
from config.kafka_access import address_of, client_options
from config.settings import Settings

__all__ = ["TenantTopics", "topics_of"]

_SECONDS = 10.0
_LOOK_SECONDS = 0.5
_T = TypeVar("_T")


def topics_of(settings: Settings) -> list[str]:
    """All that a tenant has."""
    kafka = settings.kafka
    return [
        kafka.events_topic,
        kafka.items_topic,
        kafka.dead_topic,
        kafka.recommendations_topic,
    ]


class TenantTopics:
    """Asks Kafka. Blocks: to be called in a thread. Raises StreamError where Kafka does not answer
    within seconds.
    """

    def __init__(self, settings: Settings) -> None:
        """Of a deployment."""
        self._settings = settings
        self._address = address_of(settings.kafka)
        self._admin = AdminClient(client_options(settings.kafka))

    def partitions(self) -> dict[str, int]:
        """How many each topic has that there is."""
        try:
            found = self._admin.list_topics(timeout=_SECONDS).topics
        except KafkaException as error:
            raise self._silent(error) from None
        return {name: len(one.partitions) for name, one in found.items() if not one.error}

    def tenants(self) -> list[str]:
        """Whose topics there are, be they in the file or not."""
        end = f".{self._settings.kafka.events_topic}"
        return sorted(one.removesuffix(end) for one in self.partitions() if one.endswith(end))

    def wait_until_unread(self, tenant: Settings, seconds: float) -> bool:
        """Whether no worker reads a tenant's topics any more; waits for that."""
        limit = time.monotonic() + seconds
        while any(self._read(tenant)):
            if time.monotonic() > limit:
                return False
            time.sleep(_LOOK_SECONDS)
        return True

    def delete(self, tenant: Settings) -> list[str]:
        """Delete those that a tenant has; returns their names."""
        there = self.partitions()
        topics = [topic for topic in topics_of(tenant) if topic in there]
        deleting = self._admin.delete_topics(topics) if topics else {}
        for done in deleting.values():
            try:
                self._result(done)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise self._silent(error) from None
        return topics

    def _read(self, tenant: Settings) -> Iterator[bool]:
        """Of each group of workers, whether it reads the tenant's topics."""
        topics = set(topics_of(tenant))
        builders = f"{tenant.kafka.group}.generation-"
        try:
            known = self._result(self._admin.list_consumer_groups(request_timeout=_SECONDS))
            names = [one.group_id for one in known.valid]
            wanted = [
                one
                for one in names
                if one == self._settings.kafka.group or one.startswith(builders)
            ]
            groups = self._admin.describe_consumer_groups(wanted) if wanted else {}
            for described in groups.values():
                group = self._result(described)
                # One that settles who reads what does not say so yet.
                yield group.state in (
                    ConsumerGroupState.PREPARING_REBALANCING,
                    ConsumerGroupState.COMPLETING_REBALANCING,
                )
                for member in group.members:
                    yield any(at.topic in topics for at in member.assignment.topic_partitions)
        except KafkaException as error:
            raise self._silent(error) from None

    def _result(self, future: Future[_T]) -> _T:
        try:
            return future.result(_SECONDS)
        except TimeoutError as error:
            raise self._silent(error) from None

    def _silent(self, error: Exception) -> StreamError:
        return StreamError(
            f"Kafka at {self._address} does not do as it is asked ({error}): check the address and "
            "whether it runs"
        )
