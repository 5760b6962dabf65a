"""How long partitions stand still when a worker joins, goes or dies: those that it takes or leaves,
and those that stay with who reads them.

Events flow at a fixed rate to all partitions; what is watched is when the store contains more of
each. A partition's pause is the longest time without that; between commits there is always some.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined] # not in its __all__
    AdminClient,
    ConsumerGroupDescription,
)
from redis.exceptions import RedisError

from benchmarks.counted import until_exactly
from benchmarks.helper import Helper
from benchmarks.ingest import sender_setup
from benchmarks.report import machine
from benchmarks.setup import measuring_stack
from commands.stack import Stack
from config.errors import ServiceError, StreamError
from config.kafka_access import client_options
from config.settings import Settings
from store.commit import read_lowest_marks
from store.connect import connect
from store.keys import Keys

__all__ = ["group_of", "measure_rebalance", "settled"]

_SEED = 19
_WORKERS = 2
_LOOK_SECONDS = 0.005
_ASK_SECONDS = 0.05
_SETTLED_SECONDS = 60.0
_ANSWER_SECONDS = 3.0
_CALM_SECONDS = 5.0
"""Before each change, and after it."""
_WARM_SECONDS = 15.0
"""Kafka's machine code is compiled."""
_LIMIT_SECONDS = 120.0
_MOST_SECONDS = 300.0
"""Of events, which are prepared."""


class _Watch:
    """When the store contained more of each partition."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self._settings = settings
        self._seen: list[list[float]] = [[] for _ in range(partitions)]

    async def look(self) -> None:
        """Look until cancelled."""
        topic = self._settings.kafka.events_topic
        places = [(topic, partition) for partition in range(len(self._seen))]
        keys, redis = Keys(self._settings.store), connect(self._settings)
        last = [-1] * len(places)
        try:
            while True:
                with suppress(RedisError):
                    found = await read_lowest_marks(redis, keys, places, topic)
                    now = time.monotonic()
                    for partition, mark in enumerate(found):
                        if mark > last[partition]:
                            self._seen[partition].append(now)
                    last = found
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            await redis.aclose()

    def pauses(self, partitions: Sequence[int], begin: float, end: float) -> dict[str, float]:
        """Median and longest of the partitions' pauses between two times, in milliseconds."""
        longest = []
        for partition in partitions:
            seen = np.array([begin, *self._seen[partition], end])
            longest.append(1000 * np.diff(seen[(seen >= begin) & (seen <= end)]).max())
        if not longest:
            return {}
        return {"median": round(float(np.median(longest)), 1), "max": round(max(longest), 1)}


async def measure_rebalance(
    settings: Settings, *, rate: float, items: int, users: int, partitions: int
) -> dict[str, Any]:
    """Two workers read `partitions` partitions at `rate` events a second; a third one joins, is
    told to end, another one joins and is killed.

    Raises StreamError where the group does not settle within a minute, or more is counted than was
    sent; StoreError where less is; ServiceError where a worker ended by itself.
    """
    kafka = settings.kafka.model_copy(update={"partitions": partitions})
    settings = settings.model_copy(update={"kafka": kafka})
    load = {"events": int(rate * _MOST_SECONDS), "items": items, "users": users, "seed": _SEED}
    async with measuring_stack(settings, workers=_WORKERS) as stack:
        owners = await settled(stack.settings, _WORKERS)
        watch, over = _Watch(stack.settings, partitions), asyncio.Event()
        async with Helper("benchmarks.sender", sender_setup(stack.settings, **load)) as sender:
            sending = asyncio.create_task(_send(sender, rate, over))
            watching = asyncio.create_task(watch.look())
            changes = []
            try:
                await asyncio.sleep(_WARM_SECONDS)
                for what, workers, do in _changes(stack):
                    await asyncio.sleep(_CALM_SECONDS)
                    begin = time.monotonic()
                    await do()
                    before, owners = owners, await settled(stack.settings, workers)
                    done = time.monotonic()
                    await asyncio.sleep(_CALM_SECONDS)
                    end = time.monotonic()
                    stay = [one for one, owner in owners.items() if owner == before[one]]
                    moved = [one for one, owner in owners.items() if owner != before[one]]
                    changes.append(
                        {
                            "what": what,
                            "settled_seconds": round(done - begin, 2),
                            "moved": len(moved),
                            "calm_ms": watch.pauses([*owners], begin - _CALM_SECONDS, begin),
                            "stayed_ms": watch.pauses(stay, begin, end),
                            "moved_ms": watch.pauses(moved, begin, end),
                        }
                    )
            finally:
                over.set()
                sent = await sending
                watching.cancel()
        await until_exactly(stack.settings, sent, _LIMIT_SECONDS)
        crashed = [worker.name for worker in stack.workers if worker.restarts]
    if crashed:
        raise ServiceError(f"{', '.join(crashed)} ended without being told to")
    return {
        "changes": changes,
        "events": sent,
        "lost": 0,
        "doubled": 0,
        "partitions": partitions,
        "rate": rate,
        "items": items,
        "users": users,
        "session_timeout_seconds": settings.worker.session_timeout_seconds,
        "machine": machine(),
    }


def _changes(stack: Stack) -> Iterator[tuple[str, int, Callable[[], Awaitable[None]]]]:
    """What is done, and how many workers there are after it."""

    async def join() -> None:
        stack.start_workers(1)

    yield "a third worker joins", _WORKERS + 1, join
    yield "it is told to end", _WORKERS, stack.workers[-1].stop
    yield "another one joins", _WORKERS + 1, join
    yield "it is killed", _WORKERS, stack.workers[-1].lose


async def _send(sender: Helper, rate: float, over: asyncio.Event) -> int:
    """Send until it is over; returns how many events that were."""
    sent = 0
    while not over.is_set():
        told = await sender.ask({"events": max(1, int(rate)), "rate": rate})
        if not told["events"]:
            raise StreamError(f"nothing is left to be sent after {_MOST_SECONDS:.0f} s")
        sent += told["events"]
    return sent


async def group_of(admin: AdminClient, name: str) -> ConsumerGroupDescription:
    """What Kafka says of a group of workers. Raises KafkaException."""
    asked = admin.describe_consumer_groups([name], request_timeout=_ANSWER_SECONDS)[name]
    return await asyncio.to_thread(asked.result, 2 * _ANSWER_SECONDS)


async def settled(settings: Settings, workers: int) -> dict[int, str]:
    """Who reads each partition, by its name in the group, once so many workers have settled it.

    Raises StreamError where they have not within a minute.
    """
    kafka = settings.kafka
    limit = time.monotonic() + _SETTLED_SECONDS
    with AdminClient(client_options(kafka)) as admin:
        while time.monotonic() < limit:
            with suppress(KafkaException):  # a broker that has just begun may not answer
                group = await group_of(admin, kafka.group)
                owners = {
                    at.partition: member.member_id
                    for member in group.members
                    for at in member.assignment.topic_partitions
                    if at.topic == kafka.events_topic
                }
                stable = group.state == ConsumerGroupState.STABLE
                if stable and len(group.members) == workers and len(owners) == kafka.partitions:
                    return owners
            await asyncio.sleep(_ASK_SECONDS)
    raise StreamError(
        f"{workers} workers have not settled within {_SETTLED_SECONDS:.0f} s who reads what: see "
        "their logs"
    )
