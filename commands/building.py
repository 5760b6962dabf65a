"""Builds a generation from the log: workers of its own, until they are less than a second behind.

`replay.py` begins one, `generations.py` brings one up to date that was left alone.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import structlog
from redis.asyncio import Redis
from rich.progress import Progress, TaskID

from commands.stack import child_environment
from config.ending import end_tasks
from config.errors import StoreError
from config.settings import DEFAULT_TENANT, Settings
from config.supervisor import Supervisor
from processors.building import builders_group
from store.commit import read_item_marks
from store.generations import Generation, Generations, begin_at
from store.keys import Keys
from store.writer import StoreWriter
from streams.ends import LogEnds
from streams.offsets import LogOffsets, Offsets

__all__ = ["Built", "build"]

log = structlog.get_logger("headwater.replay")

_TICK_SECONDS = 0.25
_RATE_SECONDS = 5.0
_STILL_SECONDS = 2.0
_LEAST_SECONDS = 1e-3


@dataclass(frozen=True, slots=True)
class Built:
    """What it took."""

    events: int
    """Records of the events' topic that were passed."""
    seconds: float
    """From the first commit until less than a second was missing."""

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.events / max(self.seconds, _LEAST_SECONDS)


async def build(
    settings: Settings,
    redis: Redis,
    one: Generation,
    *,
    workers: int,
    bar: Progress,
    activate: bool,
) -> Built:
    """Have so many workers count into a generation what it lacks; then leave it, `ready` or live.

    Begun again after an interruption, it goes on from where it was. Raises ServiceError,
    StoreError, StreamError, OSError and redis.RedisError; what was built then stays.
    """
    offsets = await asyncio.to_thread(LogOffsets, settings)
    generations = Generations(redis, settings)
    await begin_at(redis, settings, one, like=await generations.live())
    home = settings.services.data_dir.expanduser().absolute()
    supervisor = Supervisor(home / "logs")
    try:
        env = child_environment(settings)
        env.pop("PROMETHEUS_MULTIPROC_DIR", None)  # the console shows the live generation
        for number in range(1, workers + 1):
            of = "" if settings.tenant == DEFAULT_TENANT else f"{settings.tenant}-"
            name = f"{of}generation-{one.number}-worker-{number}"
            argv = ["-m", "commands", "worker", "--generation", str(one.number)]
            argv += ["--tenant", settings.tenant]
            supervisor.start(name, [sys.executable, *argv], env)
        watch = _Watch(settings, redis, one, offsets, bar)
        built = await _first_of(supervisor, watch)
        # The workers go on until it is live, or it would fall behind again.
        if activate:
            await generations.activate(await generations.get(one.number))
        else:
            await generations.mark(await generations.get(one.number), "ready")
    finally:
        await supervisor.stop()
    await asyncio.to_thread(offsets.forget_group, builders_group(settings, one.number))
    return built


async def _first_of(supervisor: Supervisor, watch: _Watch) -> Built:
    """What came of it, unless a worker is given up first."""
    failed = asyncio.create_task(supervisor.failed())
    caught_up = asyncio.create_task(watch.until_caught_up())
    try:
        await asyncio.wait({failed, caught_up}, return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            await failed
        return await caught_up
    finally:
        await end_tasks((failed, caught_up))


class _Watch:
    """Follows how far a generation is, and shows it."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        one: Generation,
        offsets: LogOffsets,
        bar: Progress,
    ) -> None:
        own = one.overlaid(settings)
        self._redis = redis
        self._one = one
        self._keys = Keys(own.store, one.number)
        self._writer = StoreWriter(redis, own, one.number)
        self._generations = Generations(redis, settings)
        self._events = own.kafka.events_topic
        self._offsets = offsets
        self._log_ends = LogEnds(settings.kafka, self._events)
        self._empty: dict[int, int] = {}
        """Up to where there is nothing more to count in a partition, by what was looked at."""
        self._bar = bar

    async def until_caught_up(self) -> Built:
        """Return once everything is contained that stood in the log a second ago."""
        task: TaskID | None = None
        first = begun = None
        recent: list[tuple[float, int]] = []
        now = told = time.monotonic()
        while True:
            asked = time.monotonic()
            ends = await asyncio.to_thread(self._offsets.ends)
            next_offsets = await self._next(ends)
            if recent and now - recent[0][0] > _STILL_SECONDS and recent[0][1] == recent[-1][1]:
                await self._look(next_offsets[self._events], ends[self._events])
            now = time.monotonic()
            if (await self._generations.get(self._one.number)).state == "dropping":
                raise StoreError(f"generation {self._one.number} is being dropped meanwhile")
            at, end = sum(next_offsets[self._events]), sum(ends[self._events])
            if first is None:
                first = at
                task = self._bar.add_task("replaying", total=end - at, note="")
            if begun is None and at > first:
                begun = asked
            recent = [*((t, n) for t, n in recent if now - t < _RATE_SECONDS), (now, at)]
            note = _note(recent, end - at)
            if task is not None:
                self._bar.update(task, total=end - first, completed=at - first, note=note)
            if self._bar.disable and now - told > _RATE_SECONDS:
                told = now
                log.info("replaying", generation=self._one.number, progress=note)
            behind = any(
                np.any(np.array(next_offsets[topic]) < np.array(offsets))
                for topic, offsets in ends.items()
            )
            # The ends are as old as the question: less than a second where that took no longer.
            if not behind and now - asked < 1:
                return Built(at - first, now - (begun or asked))
            await asyncio.sleep(_TICK_SECONDS)

    async def _next(self, topics: Mapping[str, list[int]]) -> Offsets:
        """The offset from which each partition is still to be counted."""
        found: Offsets = {}
        for topic, partitions in topics.items():
            begin = self._one.starts.get(topic, [])
            found[topic] = []
            for partition in range(len(partitions)):
                start = begin[partition] if partition < len(begin) else 0
                if topic == self._events:
                    last = (await self._writer.read_marks(topic, partition)).lowest
                    start = max(start, self._empty.get(partition, 0))
                else:
                    marks = await read_item_marks(self._redis, self._keys, topic, partition)
                    last = int(marks.min())
                found[topic].append(max(last + 1, start))
        return found

    async def _look(self, next_offsets: list[int], ends: list[int]) -> None:
        """Where nothing moves, there may be nothing but markers of transactions."""
        asked = {
            p: at for p, (at, end) in enumerate(zip(next_offsets, ends, strict=True)) if at < end
        }
        times = await asyncio.to_thread(self._log_ends.first_at, asked) if asked else {}
        self._empty.update({p: ends[p] for p in asked if p not in times})


def _note(recent: list[tuple[float, int]], missing: int) -> str:
    (first, before), (last, after) = recent[0], recent[-1]
    if last - first < _TICK_SECONDS or after <= before:
        return f"{missing:,} to go"
    rate = (after - before) / (last - first)
    return f"{rate:,.0f} events/s, {missing:,} to go, {missing / rate:,.0f} s left"
