"""One run of a fault: traffic, the fault, healing, lag 0, and the store against the log."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from config.supervisor import Child
from store.keys import FIRST_GENERATION
from tests.chaos.checking import buried, compare, ends_of, read_log, until_contained
from tests.chaos.deployment import Deployment
from tests.chaos.row import Row
from tests.chaos.traffic import Asker, MakeEvents, Sender, make_events
from tests.chaos.world import World, world
from tests.oracle import Click, Forget

__all__ = ["END_SECONDS", "EVENTS_PER_SECOND", "Fault", "Run", "Worlds", "run"]

EVENTS_PER_SECOND = 400.0
REQUESTS_PER_SECOND = 50.0
_MOST_SECONDS = 120.0
"""Of traffic; a fault is over long before."""
_BEFORE_SECONDS, _AFTER_SECONDS = 2.0, 2.0
"""Of traffic without the fault."""
_LAG_SECONDS = 60.0
_LOOKS = 5
"""At the log and the store, until nothing has come in between."""
END_SECONDS = 10.0
"""Whoever takes longer is killed a little later, and nobody would see."""


@dataclass
class Run:
    """What a fault has in its hands."""

    deployment: Deployment
    rng: Random
    row: Row
    sender: Sender
    asker: Asker
    deleted: list[Click | Forget] = field(default_factory=list)
    """Events that were counted and that the log has no more."""
    gone: set[str] = field(default_factory=set)
    """Ids of events that the log has no more, counted or not."""
    generation: int = FIRST_GENERATION
    """The live one."""

    @property
    def world(self) -> World:
        """The services."""
        return self.deployment.world

    @property
    def workers(self) -> list[Child]:
        """The workers."""
        return self.deployment.workers

    def injected(self, count: int = 1) -> None:
        """Tell that so many faults were injected."""
        self.row.injected += count

    def note(self, text: str) -> None:
        """Tell something of the run."""
        self.row.notes.append(text)

    def require(self, holds: object, otherwise: str) -> None:
        """The row fails where something does not hold."""
        if not holds:
            self.row.failures.append(otherwise)

    def after(self, undo: Callable[[], Awaitable[None]]) -> None:
        """Have something undone once the run is over, however it ends."""
        self.deployment.exits.push_async_callback(undo)

    async def contained(self, seconds: float = _LAG_SECONDS) -> bool:
        """Wait until everything is counted that is in the log now; false after `seconds`."""
        redis = self.deployment.redis()
        try:
            ends = await asyncio.to_thread(ends_of, self.deployment.settings)
            return not await until_contained(
                redis, self.deployment.settings, ends, seconds, self.generation
            )
        finally:
            await redis.aclose()

    async def until(
        self, condition: Callable[[], object], what: str, seconds: float = 60.0
    ) -> None:
        """Wait for a condition; the row fails where it does not come."""
        limit = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > limit:
                self.row.failures.append(f"not within {seconds:.0f} s: {what}")
                return
            await asyncio.sleep(0.02)


Inject = Callable[[Run], Awaitable[None]]
Worlds = Callable[[Path], AbstractAsyncContextManager[World]]


@dataclass(frozen=True)
class Fault:
    """One row of the table. `inject` does the fault and heals it before it returns."""

    name: str
    what: str
    inject: Inject
    workers: int = 2
    world: Worlds = world
    """Services to run on."""
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings."""
    make_events: MakeEvents = make_events
    requests_per_second: float = REQUESTS_PER_SECOND


async def run(fault: Fault, place: World, home: Path, seed: int) -> Row:
    """The row of one fault; what goes wrong is told in it."""
    row = Row(fault.name, fault.what, seed)
    began = time.monotonic()
    try:
        async with Deployment(place, home, fault.workers, fault.groups) as deployment:
            await _torment(fault, deployment, row)
            row.restarts = max(0, deployment.ended)
            if not row.failures:
                await deployment.clean()
            told_to_end = time.monotonic()
        if time.monotonic() - told_to_end > END_SECONDS:
            row.failures.append(f"a process did not end within {END_SECONDS:.0f} s of being told")
    except Exception as error:
        row.failures.append("".join(traceback.format_exception(error, limit=-3)).strip())
    row.seconds = time.monotonic() - began
    row.judge()
    return row


async def _torment(fault: Fault, deployment: Deployment, row: Row) -> None:
    rng = Random(row.seed)
    settings = deployment.settings
    events = fault.make_events(rng, int(EVENTS_PER_SECOND * _MOST_SECONDS), int(time.time() * 1000))
    bootstrap = deployment.world.bootstrap
    sender = Sender(bootstrap, settings.kafka.events_topic, events, EVENTS_PER_SECOND)
    asker = Asker(deployment.url, Random(row.seed + 1), fault.requests_per_second)
    here = Run(deployment, rng, row, sender, asker)
    async with _going(sender, asker):
        await asyncio.sleep(_BEFORE_SECONDS)
        if not await here.contained():
            raise RuntimeError("nothing is counted even without a fault")
        await fault.inject(here)
        healed = time.monotonic()
        if await here.contained():
            row.lag_seconds = time.monotonic() - healed
        await asyncio.sleep(_AFTER_SECONDS)
    row.sent, row.refused_events = sender.sent, sender.refused
    row.worst_ms, row.asked = asker.worst * 1000, asker.asked
    row.degraded, row.not_2xx = asker.degraded, dict(asker.not_2xx)
    row.notes += [f"{code}: {said}" for code, said in asker.examples.items() if code != "503"]
    if not await here.contained():
        row.lag_seconds = None
        return
    await _check(here, sender.confirmed | asker.confirmed)


async def _check(here: Run, confirmed: set[str]) -> None:
    row, deployment = here.row, here.deployment
    settings = deployment.settings
    redis = deployment.redis()
    try:
        for _ in range(_LOOKS):
            ends = await asyncio.to_thread(ends_of, settings)
            log = await asyncio.to_thread(read_log, settings)
            known = log.ids | here.gone
            found = await compare(
                redis, settings, here.deleted + log.all(), len(confirmed - known), here.generation
            )
            if await asyncio.to_thread(ends_of, settings) == ends:
                break
            # Events came that a server had said of that they "may still" come.
            here.require(await here.contained(), "what came late was not counted")
    finally:
        await redis.aclose()
    row.lost, row.doubled = found.lost, found.doubled
    if found.wrong:
        row.failures.append(f"the store differs: {found.wrong}")
    letters = len(await asyncio.to_thread(buried, settings))
    here.require(letters == log.refused, f"{letters} dead letters of {log.refused} refused events")
    if letters:
        here.note(f"{letters} dead letters")


@asynccontextmanager
async def _going(sender: Sender, asker: Asker) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(sender.run()), asyncio.create_task(asker.run())]
    try:
        yield
    finally:
        sender.stop()
        asker.stop()
        await asyncio.gather(*tasks)
