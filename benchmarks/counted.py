"""How far workers are: what the store has counted, as it rises, with the processor time spent."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from config.errors import StoreError, StreamError
from config.settings import Settings
from store.connect import connect
from store.reader import StoreReader

__all__ = ["Sample", "Steady", "counted", "steady", "until_counted", "until_exactly"]

_POLL_SECONDS = 0.01
_FEWEST_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """What was counted at one time."""

    time: float
    """Of time.monotonic."""
    events: int
    cpu: dict[str, float] = field(default_factory=dict)
    """Seconds of processor time that each process has used so far."""


@dataclass(frozen=True, slots=True)
class Steady:
    """What happened between two samples."""

    events: int
    seconds: float
    cpu: dict[str, float]
    """Microseconds an event of each process."""

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds


async def counted(settings: Settings) -> int:
    """The events that the store has counted so far."""
    redis = connect(settings)
    try:
        return (await StoreReader(redis, settings).totals()).get("events", 0)
    finally:
        await redis.aclose()


async def until_counted(
    settings: Settings,
    events: int,
    seconds: float,
    cpu: Callable[[], dict[str, float]] = dict,
    *,
    at_most: float = math.inf,
) -> list[Sample]:
    """Wait until the totals say that many events; returns samples as they rose.

    With three commits or more it is over `at_most` seconds after the first one, too. Raises
    StoreError when `seconds` have passed without either.
    """
    redis = connect(settings)
    reader = StoreReader(redis, settings)
    limit = time.monotonic() + seconds
    seen: list[Sample] = []
    try:
        while True:
            count = (await reader.totals()).get("events", 0)
            now = time.monotonic()
            if not seen or count != seen[-1].events:
                seen.append(Sample(now, count, cpu()))
            if count >= events:
                return seen
            if len(seen) > _FEWEST_SAMPLES and now - seen[1].time > at_most:
                return seen
            if now > limit:
                raise StoreError(
                    f"{count} of {events} events are counted after {seconds:.0f} s: "
                    "see the worker's log"
                )
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        await redis.aclose()


async def until_exactly(settings: Settings, events: int, seconds: float) -> None:
    """Wait until that many events are counted. Raises StoreError when it is fewer after `seconds`,
    StreamError when it is more.
    """
    await until_counted(settings, events, seconds)
    if (found := await counted(settings)) > events:
        raise StreamError(f"{found - events} events are counted twice: see the workers' logs")


def steady(samples: Sequence[Sample], after: int = 1) -> Steady:
    """From the first sample that has at least `after` events to the last one.

    Starting up does not count then, nor do the events of the commit that the clock starts with.
    Raises StoreError where there are no two such samples.
    """
    chosen = [one for one in samples if one.events >= after]
    if len(chosen) < 2:
        raise StoreError("everything was counted in one commit: measure with more events")
    first, last = chosen[0], chosen[-1]
    events = last.events - first.events
    return Steady(
        events,
        last.time - first.time,
        {
            name: round(1e6 * (last.cpu[name] - first.cpu[name]) / events, 2)
            for name in last.cpu
            if name in first.cpu
        },
    )
