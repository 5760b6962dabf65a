"""What who looks after a deployment does through a server: generations and dead letters."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from config.ending import end_tasks
from config.errors import BadInput, StoreError
from config.settings import Settings
from serving.publishing import Publisher
from store.dropping import delete_keys
from store.generation_report import report_generations
from store.generations import Generation, Generations
from store.keys import Keys
from store.reader import StoreReader
from streams.dead_reader import DeadLetter, DeadReader
from streams.event import EventRules, Rejection, time_of

__all__ = ["Conflict", "Desk"]

log = structlog.get_logger("headwater.admin")


class Conflict(StoreError):
    """What is asked for cannot be done as things stand."""


class Desk:
    """Changes are made through the same scripts and topics as those of the commands."""

    def __init__(self, settings: Settings, redis: Redis, publisher: Publisher) -> None:
        self._settings = settings
        self._redis = redis
        self._publisher = publisher
        self._known = Generations(redis, settings)
        self._dead = DeadReader(settings.kafka, settings.kafka.dead_topic)
        self._dropping: dict[int, asyncio.Task[None]] = {}

    async def generations(self) -> list[dict[str, Any]]:
        """All of them. Raises redis.RedisError and StoreError."""
        return await report_generations(self._redis, self._settings)

    async def activate(self, number: int, *, now: bool) -> Generation:
        """Make a generation the live one. Raises Conflict where it is not whole, or, unless `now`,
        where it lacks records that the live one has; StoreError where there is none.
        """
        one = await self._known.get(number)
        if one.state != "ready":
            raise Conflict(f"generation {number} is {one.state}, and not ready")
        live = await self._known.live()
        if live is not None and live.number == number:
            return one
        if not now and live is not None and (behind := await self._behind(one, live)):
            raise Conflict(
                f"generation {number} lacks {behind:,} records that the live one has: bring it up "
                f"to date by `headwater generations activate {number}`, or switch now, and the "
                "workers count them afterwards"
            )
        log.info("generation activated", generation=number)
        return await self._known.activate(one)

    async def drop(self, number: int) -> None:
        """Begin to delete a generation that is not live; what is left of an earlier attempt, too.
        Raises StoreError.
        """
        live = await self._known.live()
        if live is not None and live.number == number:
            raise Conflict(f"generation {number} is the live one: switch to another one first")
        one = await self._known.mark(await self._known.get(number), "dropping")
        task = self._dropping.get(number)
        if task is None or task.done():
            self._dropping[number] = asyncio.create_task(self._delete(one))

    async def dead(self, n: int) -> tuple[list[DeadLetter], int]:
        """The newest dead letters, and how many are kept. Raises StreamError."""
        return await asyncio.to_thread(self._dead.newest, n)

    async def resend(self, partition: int, offset: int, event: bytes | None) -> str | None:
        """Send a dead letter to where it came from once more, as it was or as a mended event;
        returns the topic, None where there is no such letter.

        Raises Conflict, BadInput for an event that would be refused again, and StreamError.
        """
        letter = await asyncio.to_thread(self._dead.at, partition, offset)
        if letter is None:
            return None
        kafka = self._settings.kafka
        topics = (kafka.events_topic, kafka.items_topic, kafka.recommendations_topic)
        if letter.source_topic not in topics:
            raise Conflict(f"it came from {letter.source_topic!r}, which is none of {topics}")
        key, value = letter.key, letter.value
        if event is not None:
            if letter.source_topic != kafka.events_topic:
                raise Conflict("it is no event: send what is right to where it came from")
            key = self._user_of(event).encode()
            value = event
        await self._publisher.send([(letter.source_topic, key, value, None)])
        log.info("dead letter sent again", partition=partition, offset=offset)
        return letter.source_topic

    def _user_of(self, event: bytes) -> str:
        """Raises BadInput for an event that a worker would refuse."""
        rules = EventRules(self._settings.events)
        try:
            found = rules.decode(event)
            rules.kind_of(found)
            rules.check_time(time_of(found), time.time_ns() // 1_000_000)
        except Rejection as rejection:
            field = f"event.{rejection.field}" if rejection.field else "event"
            raise BadInput(str(rejection), field) from None
        return found.user_id

    async def close(self) -> None:
        """Leave off what is being deleted; who asks for it again goes on."""
        await end_tasks(self._dropping.values())

    async def _behind(self, one: Generation, live: Generation) -> int:
        """Records of events that the live one has and another one lacks."""
        topic = self._settings.kafka.events_topic
        partitions = range(self._settings.kafka.partitions)
        ends = []
        for each in (live, one):
            reader = StoreReader(self._redis, each.overlaid(self._settings), each.number)
            ends.append(await reader.contained(topic, partitions))
        return sum(max(0, a - b) for a, b in zip(*ends, strict=True))

    async def _delete(self, one: Generation) -> None:
        keys = Keys(one.overlaid(self._settings).store, one.number)
        try:
            deleted = 0
            async for some in delete_keys(self._redis, keys):
                deleted += some
            await self._known.remove(one)
        except (RedisError, StoreError) as error:
            log.error("a generation is not dropped yet", generation=one.number, error=str(error))
        else:
            log.info("generation dropped", generation=one.number, keys=deleted)
