"""Two real workers are killed and frozen while events flow; afterwards everything that stands in
Redis is compared with an oracle that reads the log once, slowly."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio

from config.settings import Settings
from config.supervisor import Child
from store.connect import connect
from store.keys import Keys
from streams.columns import hash_names
from streams.event import Event
from streams.producer import EventProducer
from streams.topics import bootstrap_of
from tests.chaos.checking import compare, ends_of, read_log, until_contained
from tests.chaos.run import run
from tests.chaos.table import FAULTS
from tests.chaos.traffic import make_events
from tests.chaos.world import World, world
from tests.conftest import StackFactory

pytestmark = pytest.mark.asyncio(loop_scope="module")

CATCH_UP_SECONDS = 120.0
SESSION_TIMEOUT = 6.0


async def check_everything(settings: Settings) -> int:
    """Wait for lag 0, then compare the store with the oracle; returns how many events count."""
    redis = connect(settings)
    try:
        ends = await asyncio.to_thread(ends_of, settings)
        behind = await until_contained(redis, settings, ends, CATCH_UP_SECONDS)
        assert not behind, f"(partition, contained, end) after {CATCH_UP_SECONDS} s: {behind}"
        log = await asyncio.to_thread(read_log, settings)
        found = await compare(redis, settings, log.all())
    finally:
        await redis.aclose()
    assert (found.lost, found.doubled, found.wrong) == (0, 0, "")
    return found.events


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
            counted = await check_everything(stack.settings)
        finally:
            said = "".join(worker.log.read_text() for worker in stack.workers)
            print(f"{len(events)} events, {done}, {said.count('commit refused')} refused")
            print(f"{said.count('reading again')} times read again")
    # Nothing was deleted from the log, so nobody may have believed in a gap.
    assert "the log lacks records" not in said
    assert done["kill"] >= 4
    assert done["freeze"] >= 2
    assert counted > 0.95 * len(events)


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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chaos_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Services behind proxies, which rows may break one after the other."""
    async with world(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.mark.parametrize(
    "name",
    [
        "worker-kill-items-users",
        "redis-kill-everysec",
        "kafka-kill",
    ],
)
async def test_a_row_of_the_table_of_faults(name: str, chaos_world: World, tmp_path: Path) -> None:
    """The others are run by `make chaos`, which takes half an hour."""
    seed = secrets.randbelow(1 << 32)
    print(f"seed {seed}")
    row = await run(FAULTS[name], chaos_world, tmp_path, seed)
    print(row.line, *row.notes, sep="\n")
    assert not row.failures


async def test_a_worker_that_cannot_go_on_ends(stack_factory: StackFactory) -> None:
    """What stands in the store is none of ours; while events flow, the worker ends and says so."""
    events = make_events(Random(7), 4_000, int(time.time() * 1000))
    async with stack_factory(workers=1, processes=0, worker={"max_poll_records": 300}) as stack:
        sending = asyncio.create_task(send_slowly(stack.settings, events, 10))
        redis = connect(stack.settings)
        try:
            (key,) = Keys(stack.settings.store).sessions(hash_names([b"user-1"]))
            await redis.set(key, b"somebody else's")
            limit = time.monotonic() + 30
            while not stack.workers[0].restarts:
                assert time.monotonic() < limit, "the worker hangs, or goes on"
                await asyncio.sleep(0.1)
            await redis.delete(key)
        finally:
            await redis.aclose()
        await sending
        assert "this worker cannot go on" in stack.workers[0].log.read_text()
        await check_everything(stack.settings)
