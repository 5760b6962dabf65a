"""Two real workers are killed and frozen while events flow; afterwards everything that stands in
Redis is compared with an oracle that reads the log once, slowly."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from pathlib import Path
from random import Random

import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition
from redis.asyncio import Redis

from commands.stack import Stack
from config.settings import Settings, load_settings
from config.supervisor import Child
from store.connect import connect
from store.keys import Keys
from store.writer import StoreWriter
from streams.event import Event
from streams.producer import EventProducer
from streams.topics import bootstrap_of
from tests.conftest import StackFactory
from tests.oracle import Click, Forget, Oracle
from tests.test_store import assert_store_is

CATCH_UP_SECONDS = 120.0
SESSION_TIMEOUT = 6.0
USERS, ITEMS = 400, 60
MINUTE = 60_000


def make_events(rng: Random, count: int, now: int) -> list[Event]:
    """Sessions of many users, with late events, repeated ids and every type."""
    clock = {n: now - rng.randrange(600) * MINUTE for n in range(USERS)}
    kinds = ["view", "view", "view", "click", "cart", "purchase", "like", "dislike"]
    events: list[Event] = []
    for number in range(count):
        if events and rng.random() < 0.01:
            events.append(rng.choice(events[-500:]))
            continue
        user = rng.randrange(USERS)
        clock[user] = min(now, clock[user] + rng.choice([1, 5_000, 20_000, 40 * MINUTE]))
        late = rng.choice([5_000, 3 * MINUTE]) if rng.random() < 0.02 else 0
        events.append(
            Event(
                f"user-{user}",
                f"item-{min(rng.randrange(ITEMS), rng.randrange(ITEMS))}",
                rng.choice(kinds),
                clock[user] - late,
                event_id=f"e{number}",
                session_id=f"s{number % 3}" if user % 7 == 0 else None,
            )
        )
    return events


def read_log(settings: Settings) -> list[Click | Forget]:
    """Every record of the topic, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_of(settings),
            "group.id": f"reader-{secrets.token_hex(4)}",
            "enable.auto.commit": False,
        }
    )
    log: list[Click | Forget] = []
    try:
        for partition in range(settings.kafka.partitions):
            at = TopicPartition(settings.kafka.events_topic, partition, 0)
            _, end = consumer.get_watermark_offsets(at, timeout=10)
            consumer.assign([at])
            position = 0
            while position < end:
                message = consumer.poll(10)
                assert message is not None
                assert message.error() is None
                position = (message.offset() or 0) + 1
                if message.value() is None:
                    log.append(Forget(position - 1, (message.key() or b"").decode()))
                    continue
                value = orjson.loads(message.value() or b"")
                log.append(
                    Click(
                        position - 1,
                        value["user_id"],
                        value["item_id"],
                        value["type"],
                        value["timestamp"],
                        value.get("event_id", ""),
                        value.get("session_id", ""),
                    )
                )
    finally:
        consumer.close()
    return log


async def until_applied(redis: Redis, settings: Settings, ends: dict[int, int]) -> None:
    """Wait until every shard contains every partition to its end."""
    writer = StoreWriter(redis, settings)
    limit = time.monotonic() + CATCH_UP_SECONDS
    topic = settings.kafka.events_topic
    while True:
        behind = [
            (partition, marks.lowest, end)
            for partition, end in ends.items()
            if (marks := await writer.read_marks(topic, partition)).lowest < end - 1
        ]
        if not behind:
            return
        if time.monotonic() > limit:
            pytest.fail(f"(partition, contained, end) after {CATCH_UP_SECONDS} s: {behind}")
        await asyncio.sleep(0.1)


async def check_everything(settings: Settings) -> Oracle:
    """Wait for lag 0, then compare the store with the oracle of the log."""
    log = await asyncio.to_thread(read_log, settings)
    oracle = Oracle(settings).learn(log)
    ends: dict[int, int] = dict.fromkeys(range(settings.kafka.partitions), 0)
    consumer = Consumer({"bootstrap.servers": bootstrap_of(settings), "group.id": "ends"})
    for partition in ends:
        at = TopicPartition(settings.kafka.events_topic, partition)
        ends[partition] = (consumer.get_watermark_offsets(at, timeout=10) or (0, 0))[1]
    consumer.close()
    redis = connect(settings)
    try:
        await until_applied(redis, settings, ends)
        await assert_store_is(oracle, redis, settings)
    finally:
        await redis.aclose()
    return oracle


async def send_slowly(settings: Settings, events: list[Event], seconds: float) -> None:
    """Spread the sending over so many seconds."""
    begin = time.monotonic()
    with EventProducer(bootstrap_of(settings), settings.kafka.events_topic) as producer:
        for number, event in enumerate(events):
            ahead = number / len(events) * seconds - (time.monotonic() - begin)
            if ahead > 0:
                await asyncio.sleep(ahead)
            producer.send(event)


async def torment(rng: Random, workers: list[Child], seconds: float) -> dict[str, int]:
    """Kill and freeze workers in turn; a frozen one comes back after its session has ended."""
    done = {"kill": 0, "freeze": 0}
    limit = time.monotonic() + seconds
    thaws: list[asyncio.Task[None]] = []

    async def thaw(worker: Child) -> None:
        await asyncio.sleep(SESSION_TIMEOUT + 3)
        worker.send(signal.SIGCONT)

    while time.monotonic() < limit:
        await asyncio.sleep(rng.uniform(2, 4))
        worker = rng.choice(workers)
        if not worker.running:
            continue
        frozen = [task for task in thaws if not task.done()]
        if not frozen and done["freeze"] <= done["kill"] // 2:
            worker.send(signal.SIGSTOP)
            thaws.append(asyncio.create_task(thaw(worker)))
            done["freeze"] += 1
        else:
            worker.kill()
            done["kill"] += 1
    await asyncio.gather(*thaws, return_exceptions=True)
    return done


async def test_counts_are_exact_under_kill_and_freeze(stack_factory: StackFactory) -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"seed {seed}")
    rng = Random(seed)
    events = make_events(rng, 60_000, int(time.time() * 1000))
    stack = stack_factory(
        workers=2,
        processes=0,
        worker={"session_timeout_seconds": SESSION_TIMEOUT, "max_poll_records": 300},
        # Lists are compacted all the time; no item has more neighbours than are kept.
        store={"compact_factor": 1.1},
    )
    async with stack:
        sending = asyncio.create_task(send_slowly(stack.settings, events, 45))
        done = await torment(rng, stack.workers, 40)
        await sending
        try:
            oracle = await check_everything(stack.settings)
        finally:
            said = "".join(worker.log.read_text() for worker in stack.workers)
            print(f"{len(events)} events, {done}, {said.count('commit refused')} refused")
            print(f"{said.count('reading again')} times read again")
    # Nothing was deleted from the log, so nobody may have believed in a gap.
    assert "the log lacks records" not in said
    assert done["kill"] >= 4
    assert done["freeze"] >= 2
    assert oracle.events > 0.95 * len(events)


async def test_redis_that_lost_everything_is_rebuilt(stack_factory: StackFactory) -> None:
    rng = Random(5)
    events = make_events(rng, 6_000, int(time.time() * 1000))
    stack = stack_factory(workers=1, processes=0, worker={"max_poll_records": 300})
    async with stack:
        await send_slowly(stack.settings, events, 0.5)
        await check_everything(stack.settings)
        redis = connect(stack.settings)
        pattern = Keys(stack.settings.store).pattern
        await redis.delete(*[key async for key in redis.scan_iter(match=pattern)])
        await redis.aclose()
        # Nothing more is sent: the worker finds out by itself.
        await check_everything(stack.settings)


async def test_killed_redis_loses_no_event(tmp_path: Path) -> None:
    """AOF everysec: a second of writes may be gone after kill -9, and is read again."""
    rng = Random(6)
    events = make_events(rng, 20_000, int(time.time() * 1000))
    own = load_settings(
        services={"data_dir": tmp_path}, worker={"max_poll_records": 300}, kafka={"partitions": 4}
    )
    async with Stack(own, workers=1, processes=0) as stack:
        redis = stack.services.redis
        assert redis is not None
        sending = asyncio.create_task(send_slowly(stack.settings, events, 10))
        for _ in range(3):
            await asyncio.sleep(2.5)
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(redis.start)
        await sending
        await check_everything(stack.settings)
