"""Notices topics that were deleted and made again, whose offsets mean something else than before.

A worker that has read the old one ends: its client, its lanes and its marks are all of a log that
is gone. The next one finds the marks of the old topic and drops them, so that the new one is
counted from its beginning.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from redis.asyncio import Redis

from config.kafka_access import client_options
from config.settings import Settings
from processors import metrics
from store.generations import Generation
from store.topics import follow_topics

__all__ = ["TopicWatch"]

log = structlog.get_logger("headwater.worker")

_ANSWER_SECONDS = 3.0
_FRESH_SECONDS = 1.0


class TopicWatch:
    """Knows which topics a worker reads, of all tenants."""

    def __init__(self, redis: Redis, tenants: Sequence[Settings]) -> None:
        self._redis = redis
        self._topics = [topic for one in tenants for topic in _topics_of(one)]
        self._admin = AdminClient(client_options(tenants[0].kafka, {"log_level": 0}))
        self._known: dict[str, tuple[str, int]] = {}
        self._followed: dict[tuple[str, int], float] = {}
        self._told: dict[str, tuple[str, int]] = {}
        self._looked = -_FRESH_SECONDS

    async def remade(self) -> list[str]:
        """Topics that are others than when this worker first saw them."""
        told = await asyncio.to_thread(self._describe)
        changed = [topic for topic, one in told.items() if self._known.get(topic, one)[0] != one[0]]
        self._known = {**told, **self._known}
        return changed

    async def follow(self, settings: Settings, one: Generation) -> None:
        """Have the marks of a tenant's generation be those of the topics that there are. Raises
        redis.RedisError.
        """
        name = settings.tenant, one.number
        if time.monotonic() - self._followed.get(name, -_FRESH_SECONDS) < _FRESH_SECONDS:
            return
        if time.monotonic() - self._looked >= _FRESH_SECONDS:
            self._told = await asyncio.to_thread(self._describe)
            self._known = {**self._told, **self._known}
            self._looked = time.monotonic()
        told = {topic: self._told[topic] for topic in _topics_of(settings) if topic in self._told}
        for topic in await follow_topics(self._redis, settings, one, told):
            metrics.TOPICS_REMADE.labels(settings.tenant, topic).inc()
            log.error(
                "the topic was deleted and made again: it is counted from its beginning, and what "
                "the old one had and nobody had read is lost",
                topic=topic,
            )
        self._followed[name] = time.monotonic()

    def _describe(self) -> dict[str, tuple[str, int]]:
        """Identity and number of partitions, of those topics that Kafka tells of now."""
        found: dict[str, tuple[str, int]] = {}
        futures = self._admin.describe_topics(
            TopicCollection(self._topics), request_timeout=_ANSWER_SECONDS
        )
        limit = time.monotonic() + _ANSWER_SECONDS
        for topic, future in futures.items():
            try:
                one = future.result(max(0.0, limit - time.monotonic()))
            except (KafkaException, TimeoutError):
                continue  # it is being made, or Kafka is away: looked at again soon
            found[topic] = str(one.topic_id), len(one.partitions)
        return found


def _topics_of(settings: Settings) -> list[str]:
    kafka = settings.kafka
    return [kafka.events_topic, kafka.items_topic, kafka.recommendations_topic]
