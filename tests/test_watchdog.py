"""A worker that commits nothing while its lag grows ends, says why, and its successor goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from random import Random

import pytest
from redis.asyncio import Redis

from config.settings import Settings
from processors.watchdog import PartitionState, Watchdog
from store.connect import connect
from streams.producer import EventProducer
from streams.topics import bootstrap_of
from tests.chaos.traffic import make_events
from tests.conftest import StackFactory
from tests.live import eventually
from tests.test_recovery import check_everything

LOOKS = 3


def at(contained: int, lag: int, partition: int = 0) -> PartitionState:
    return PartitionState("events", partition, contained, lag)


def looks(watchdog: Watchdog, *states: PartitionState) -> list[PartitionState | None]:
    return [watchdog.look([one]) for one in states]


def test_lag_that_grows_while_nothing_is_committed_is_told() -> None:
    stuck = at(5, 9)
    told = looks(Watchdog(LOOKS), at(5, 0), at(5, 2), at(5, 9), stuck, stuck)
    assert told == [None, None, None, stuck, stuck]


def test_lag_alone_is_not() -> None:
    # Markers of transactions behind the last record, and a backlog that is being worked off.
    assert looks(Watchdog(LOOKS), *[at(5, 2)] * 9) == [None] * 9
    assert looks(Watchdog(LOOKS), *[at(n, 1000 + n) for n in range(9)]) == [None] * 9


def test_each_commit_begins_anew() -> None:
    watchdog = Watchdog(LOOKS)
    states = [at(5, 0), at(5, 2), at(5, 9), at(6, 20), at(6, 20), at(6, 30), at(6, 30), at(6, 40)]
    assert looks(watchdog, *states) == [None] * 7 + [at(6, 40)]


def test_one_partition_of_several_is_enough_unless_it_went() -> None:
    watchdog = Watchdog(LOOKS)
    for n in range(LOOKS):
        assert watchdog.look([at(n, 0), at(5, n, partition=1)]) is None
    assert watchdog.look([at(9, 0), at(5, 9, partition=1)]) == at(5, 9, partition=1)
    assert watchdog.look([at(9, 0)]) is None
    assert watchdog.look([at(9, 0), at(5, 10, partition=1)]) is None


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = connect(settings)
    yield client
    await client.config_set("maxmemory", 0)
    await client.aclose()


async def test_a_worker_whose_redis_is_full_ends_and_its_successor_counts_everything(
    stack_factory: StackFactory, redis: Redis
) -> None:
    events = make_events(Random(8), 600, int(time.time() * 1000))
    stack = stack_factory(workers=1, processes=0, worker={"stuck_seconds": 5})
    async with stack:
        (worker,) = stack.workers
        topic = stack.settings.kafka.events_topic
        with EventProducer(bootstrap_of(stack.settings), topic) as producer:
            for event in events[:100]:
                producer.send(event)
        await check_everything(stack.settings)
        await redis.config_set("maxmemory", 1)
        left = iter(events[100:])

        async def restarts() -> int:
            with EventProducer(bootstrap_of(stack.settings), topic) as producer:
                for _ in range(5):
                    if (event := next(left, None)) is not None:
                        producer.send(event)
            await asyncio.sleep(0.2)
            return worker.restarts

        await eventually(restarts, bool, 60)
        said = worker.log.read_text()
        assert f"nothing of {topic}-" in said
        assert "was committed for 5 s" in said
        assert "'maxmemory'" in said, "what kept it stands above"
        await redis.config_set("maxmemory", 0)
        with EventProducer(bootstrap_of(stack.settings), topic) as producer:
            for event in left:
                producer.send(event)
        await check_everything(stack.settings)
