"""What a worker that builds a generation does in another way than one that follows the live one."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis

from config.settings import Settings
from store.commit import read_item_marks
from store.generations import Generations
from store.keys import Keys
from store.writer import StoreWriter
from streams.dead import DeadLetters
from streams.decode import RejectedRecord
from streams.producer import RecordProducer

__all__ = ["LateLetters", "builders_group"]


def builders_group(settings: Settings, generation: int) -> str:
    """The consumer group of the workers that build a generation."""
    return f"{settings.kafka.group}.generation-{generation}"


class LateLetters(DeadLetters):
    """Buries what the live generation's workers have not come to yet: they bury the others."""

    def __init__(
        self, producer: RecordProducer, redis: Redis, generations: Generations, settings: Settings
    ) -> None:
        super().__init__(producer, settings.kafka.dead_topic)
        self._redis = redis
        self._generations = generations
        self._settings = settings

    async def bury(self, source: str, partition: int, rejected: Sequence[RejectedRecord]) -> None:
        """As `DeadLetters.bury`. Raises redis.RedisError too."""
        known = await self._contained(source, partition)
        await super().bury(
            source, partition, [one for one in rejected if one.record.offset > known]
        )

    async def _contained(self, topic: str, partition: int) -> int:
        live = await self._generations.live()
        if live is None:
            return -1
        own = live.overlaid(self._settings)
        if topic == own.kafka.events_topic:
            writer = StoreWriter(self._redis, own, live.number)
            return (await writer.read_marks(topic, partition)).lowest
        keys = Keys(own.store, live.number)
        return int((await read_item_marks(self._redis, keys, topic, partition)).min())
