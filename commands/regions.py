"""Two deployments on this machine as if each were a region: what begins in one is copied into the
other's Kafka (`config/mirror.py`), and so either knows all users. One can be lost, and come back.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from commands.process import in_thread
from commands.stack import Stack
from config.mirror import MirrorMaker, Region
from config.settings import Settings

__all__ = ["OneRegion", "TwoRegions", "mirrored_topics"]

NAMES = ("east", "west")
_HEAP_MB = 256


def mirrored_topics(settings: Settings) -> list[str]:
    """What regions tell each other: events, the catalogue, and what was shown."""
    kafka = settings.kafka
    return [kafka.events_topic, kafka.items_topic, kafka.recommendations_topic]


@dataclass(slots=True)
class OneRegion:
    """Everything that runs in a region."""

    name: str
    stack: Stack
    mirror: MirrorMaker
    """Copies from the other region."""

    @property
    def settings(self) -> Settings:
        """With the addresses of its own services."""
        return self.stack.settings

    async def lose(self) -> None:
        """KILL all of it at once."""
        await asyncio.gather(asyncio.to_thread(self.mirror.kill), self.stack.lose())

    async def come_back(self) -> None:
        """Start all of it again; returns once its server answers and its mirror runs."""
        await self.stack.come_back()
        await asyncio.to_thread(self.mirror.start)


class TwoRegions:
    """Both run for as long as an `async with` lasts."""

    def __init__(self, settings: Settings, folder: Path, *, workers: int = 1) -> None:
        """Each has `workers` workers and one server process; their files are in `folder`."""
        self._settings = settings
        self._folder = folder
        self._workers = workers
        self._cancelled = threading.Event()
        self._stacks: list[Stack] = []
        self.regions: list[OneRegion] = []

    async def __aenter__(self) -> Self:
        """Raises ServiceError, StreamError or OSError; then nothing is left running."""
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def _start(self) -> None:
        self._stacks = [
            Stack(_apart(self._settings, self._folder / name), workers=self._workers, processes=1)
            for name in NAMES
        ]
        started: list[Stack] = []
        for stack in self._stacks:
            started.append(await stack.__aenter__())
        known = [
            Region(name, stack.kafka_bootstrap) for name, stack in zip(NAMES, started, strict=True)
        ]
        for number, stack in enumerate(started):
            mirror = MirrorMaker(
                self._folder / NAMES[number] / "mirror",
                known[number],
                known[1 - number],
                mirrored_topics(stack.settings),
                cache_dir=self._settings.services.cache_dir,
                heap_mb=_HEAP_MB,
                cancelled=self._cancelled,
            )
            self.regions.append(OneRegion(NAMES[number], stack, mirror))
        await asyncio.gather(
            *(in_thread(one.mirror.start, self._cancelled.set) for one in self.regions)
        )

    async def _stop(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(one.mirror.stop) for one in self.regions))
        await asyncio.gather(*(one.__aexit__(None, None, None) for one in self._stacks))


def _apart(settings: Settings, folder: Path) -> Settings:
    """With services, data and a port of its own, whatever the settings say."""
    services = {"data_dir": folder, "kafka_heap_mb": _HEAP_MB}
    return settings.model_copy(
        update={
            "services": settings.services.model_copy(update=services),
            "http": settings.http.model_copy(update={"port": 0}),
            "kafka": settings.kafka.model_copy(update={"bootstrap": None}),
            "redis": settings.redis.model_copy(update={"url": None}),
        }
    )
