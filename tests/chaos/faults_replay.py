"""Replays beside everything else: interrupted, and of a million events under load."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from random import Random
from typing import Any

import orjson

from commands.stack import child_environment
from store.generations import Generations
from store.writer import StoreWriter
from streams.event import Event
from streams.producer import EventProducer
from tests.chaos.checking import ends_of
from tests.chaos.run import Fault, Run

__all__ = ["FAULTS"]

_PAST = 1_000_000
_USERS, _ITEMS = 20_000, 500
_SECONDS = 300.0
_KINDS = ("view", "view", "view", "click", "cart", "purchase", "like")


async def _replay_under_load(run: Run) -> None:
    """A million events are counted anew while 500 requests a second are answered."""
    await _send_past(run, _PAST)
    if not await run.contained(_SECONDS):
        run.require(False, "the past was not counted")
        return
    # What it takes to count a million new events as they come is not what is looked at here.
    asked, degraded, failed = run.asker.asked, run.asker.degraded, Counter(run.asker.not_2xx)
    replay = await _start(run, "--activate", "--workers", "1")
    switched = asyncio.create_task(_switch(run))
    said, log = await replay.communicate()
    run.require(replay.returncode == 0, f"replay: {log.decode()[-500:]}")
    if replay.returncode:
        switched.cancel()
        return
    built: dict[str, Any] = orjson.loads(said)
    run.injected()
    run.generation = built["generation"]
    seconds = await switched
    run.require(seconds < 1, f"the switch took {seconds:.2f} s")
    await asyncio.sleep(2)
    more = Counter(run.asker.not_2xx) - failed
    run.require(not more, f"answers failed while it was replayed: {dict(more)}")
    run.note(
        f"{run.asker.degraded - degraded} degraded answers while it was replayed, {degraded} "
        "before, while a million new events were counted"
    )
    run.note(
        f"{built['events']:,} events replayed in {built['seconds']:.1f} s, "
        f"{built['events_per_second']:,} a second; {run.asker.asked - asked:,} requests meanwhile; "
        f"the server followed the switch after {seconds * 1000:.0f} ms"
    )


async def _interrupt_replay(run: Run) -> None:
    """Killed, told to end, and its workers killed, a replay goes on when it is called again."""
    await _send_past(run, 20_000)
    if not await run.contained(_SECONDS):
        run.require(False, "the past was not counted")
        return
    for signum in (signal.SIGKILL, signal.SIGTERM):
        replay = await _start(run, "--workers", "2")
        before = await _counted(run, 2)
        await _until_counted(run, 2, before + 3_000)
        replay.send_signal(signum)
        await replay.communicate()
        run.injected()
    replay = await _start(run, "--activate", "--workers", "2")
    said, log = await replay.communicate()
    run.require(replay.returncode == 0, f"replay: {log.decode()[-500:]}")
    if replay.returncode == 0:
        built: dict[str, Any] = orjson.loads(said)
        run.generation = built["generation"]
        run.require(run.generation == 2, "it began anew")
        run.note(f"{built['events']:,} events were left for the last attempt")


async def _start(run: Run, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commands", "replay", "--json", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(run.deployment.settings),
    )


async def _send_past(run: Run, count: int) -> None:
    """Events of many users over two days, as fast as may be."""
    topic = run.deployment.settings.kafka.events_topic
    # In a process of its own: this one's requests are to be on time.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        loop = asyncio.get_running_loop()
        arguments = (run.world.bootstrap, topic, run.row.seed + 2, count)
        await loop.run_in_executor(pool, send_past, *arguments)


def send_past(bootstrap: str, topic: str, seed: int, count: int) -> None:
    """Send so many events to a topic."""
    rng, now = Random(seed), int(time.time() * 1000)
    clock = dict.fromkeys(range(_USERS), now - 2 * 86_400_000)
    with EventProducer(bootstrap, topic) as producer:
        for number in range(count):
            user = rng.randrange(_USERS)
            clock[user] = min(now, clock[user] + rng.choice([5_000, 20_000, 60_000, 5_400_000]))
            producer.send(
                Event(
                    f"past-{user}",
                    f"item-{min(rng.randrange(_ITEMS), rng.randrange(_ITEMS))}",
                    rng.choice(_KINDS),
                    clock[user],
                    event_id=f"p{number}",
                )
            )


async def _counted(run: Run, generation: int) -> int:
    """How far a generation is, in records."""
    settings = run.deployment.settings
    redis = run.deployment.redis()
    try:
        writer = StoreWriter(redis, settings, generation)
        topic = settings.kafka.events_topic
        marks = [await writer.read_marks(topic, p) for p in range(settings.kafka.partitions)]
        return sum(one.lowest + 1 for one in marks)
    finally:
        await redis.aclose()


async def _until_counted(run: Run, generation: int, wanted: int) -> None:
    """Wait until a generation is so far, or at the end."""
    limit = time.monotonic() + _SECONDS
    end = sum((await asyncio.to_thread(ends_of, run.deployment.settings)).values())
    while await _counted(run, generation) < min(wanted, end):
        if time.monotonic() > limit:
            run.require(False, "the replay does not get on")
            return
        await asyncio.sleep(0.01)


async def _switch(run: Run) -> float:
    """Seconds from the switch until the server says that it answers by the new generation."""
    redis = run.deployment.redis()
    try:
        known, before = Generations(redis, run.deployment.settings), run.generation
        server = run.deployment.server
        assert server is not None
        switched = 0.0
        while True:
            if not switched:
                live = await known.live()
                if live is not None and live.number != before:
                    switched = time.monotonic()
            elif "another generation answers" in server.log.read_text():
                return time.monotonic() - switched
            await asyncio.sleep(0.005)
    finally:
        await redis.aclose()


# Counts are compared with those of the log: nothing may be cut off lists.
_EVERY_NEIGHBOUR = {"store": {"neighbours": 1000}, "worker": {"max_poll_records": 20_000}}
FAULTS = [
    Fault(
        "replay-interrupted",
        "a replay killed and told to end in its midst, then called again and switched to",
        _interrupt_replay,
        groups={"store": {"neighbours": 1000}},
    ),
    Fault(
        "replay-under-load",
        "1,000,000 events replayed and switched to while 500 requests a second are answered",
        _replay_under_load,
        groups=_EVERY_NEIGHBOUR,
        requests_per_second=500.0,
    ),
]
