"""One tenant in a worker: its pipeline, which follows the live generation as that changes.

Knows neither Faust nor the other tenants of the worker; `worker.py` hands it what comes from its
topics. A builder stays with the generation that it was given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from config.settings import Settings
from processors.apply import ReadAgain
from processors.pipeline import Pipeline
from processors.remade import TopicWatch
from store.generations import Generation, Generations, begin_at
from streams.dead import DeadLetters
from streams.records import RecordBatch

__all__ = ["Follower", "Seat", "follow_all"]

log = structlog.get_logger("headwater.worker")

_RETRY_SECONDS = 0.25

Seat = tuple[Settings, Generation]
"""Whom a worker works for, and the generation that it begins with."""
Applied = Callable[[str, int, int], None]
"""Is told of a partition (topic, number) up to which offset the store contains it."""
Seek = Callable[[str, int, int], Awaitable[None]]
"""Has a partition read on from an offset."""


class Follower:
    """Counts one tenant's records into the generation that is live."""

    def __init__(
        self,
        redis: Redis,
        seat: Seat,
        dead: DeadLetters,
        topics: TopicWatch,
        failed: Callable[[BaseException], None],
        *,
        builds: bool,
    ) -> None:
        """Raises SettingsError."""
        self.tenant, generation = seat
        """Its settings."""
        self.generations = Generations(redis, self.tenant)
        self._redis, self._dead, self._topics, self._failed = redis, dead, topics, failed
        self._builds = builds
        self.applied: Applied
        self.seek: Seek
        self.share: Callable[[str], float]
        """Says what part of a topic's partitions is read here."""
        self.now = self._pipeline(generation)
        """What applies to the generation."""

    @property
    def event_topic(self) -> str:
        """Where its events are."""
        return self.tenant.kafka.events_topic

    @property
    def other_topics(self) -> list[str]:
        """Where its catalogue is, and what was shown."""
        return [self.tenant.kafka.items_topic, self.tenant.kafka.recommendations_topic]

    async def position(self, topic: str, partition: int) -> int:
        """The offset from which a partition has to be read; waits until the store tells."""
        while True:
            try:
                await self._topics.follow(self.tenant, self.now.generation)
                return await self.now.position(topic, partition)
            except RedisError as error:
                log.warning("positions cannot be read yet", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def change_to(self, live: Generation, *, lost: bool) -> bool:
        """Take a generation as the live one, which Redis had `lost`; whether it is another one.
        Raises redis.RedisError.
        """
        if lost:
            await begin_at(self._redis, self.tenant, live)
        before = self.now
        if live.number == before.generation.number:
            return False
        log.info(
            "another generation is live",
            tenant=self.tenant.tenant,
            before=before.generation.number,
            now=live.number,
        )
        self.now = self._pipeline(live)
        await before.close()
        return True

    async def find_lost(self, places: Sequence[tuple[str, int, int]]) -> None:
        """A Redis that came back without its end contains less than was applied of partitions
        (topic, number, offset): have them read again.
        """
        looking = self.now
        try:
            contained = await looking.contained([place[:2] for place in places])
        except RedisError:
            return  # the next batch waits for Redis anyway
        for (topic, partition, applied), at in zip(places, contained, strict=True):
            if looking is not self.now:
                return
            if at < applied:
                offset = await looking.position(topic, partition)
                log.warning("the store lost its end", topic=topic, partition=partition)
                self.applied(topic, partition, offset - 1)
                await self.seek(topic, partition, offset)

    def _pipeline(self, one: Generation) -> Pipeline:
        async def applied(batch: RecordBatch, result: ReadAgain | int) -> None:
            # What was still under way when another generation became live says nothing of that.
            if self.now is not made:
                return
            if isinstance(result, ReadAgain):
                log.warning(
                    "reading again",
                    topic=batch.topic,
                    partition=batch.partition,
                    batch=batch.start,
                    offset=result.offset,
                )
                await self.seek(batch.topic, batch.partition, result.offset)
            else:
                self.applied(batch.topic, batch.partition, result)

        made = Pipeline(
            self.tenant,
            one,
            self._dead,
            applied,
            self._failed,
            lambda: self.share(self.event_topic),
            builds=self._builds,
        )
        return made


async def follow_all(followers: Sequence[Follower]) -> list[Follower]:
    """Look which generations are live, of all tenants at once; returns those that have changed."""
    offered = [(one.generations, one.now.generation) for one in followers]
    try:
        found = await followers[0].generations.ensure_all_live(offered)
        both = zip(followers, found, strict=True)
        return [one for one, (live, lost) in both if await one.change_to(live, lost=lost)]
    except RedisError:
        return []
