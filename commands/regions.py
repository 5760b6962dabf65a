"""Two deployments on this machine as if each were a region: what begins in one is copied into the
other's Kafka (`config/mirror.py`), and so either knows all users. One can be lost, and come back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from commands.process import in_thread
from commands.stack import Stack, apart
from config.daemon import at_once
from config.mirror import MirrorMaker, Region
from config.settings import Settings

__all__ = ["OneRegion", "mirrored_topics", "two_regions"]

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


@asynccontextmanager
async def two_regions(settings: Settings, folder: Path) -> AsyncIterator[list[OneRegion]]:
    """Both, with a worker and a server process each and their files in `folder`, for as long as the
    block lasts.

    Raises ServiceError, StreamError or OSError; then nothing is left running.
    """
    cancelled = threading.Event()
    heap = settings.services.model_copy(update={"kafka_heap_mb": _HEAP_MB})
    small = settings.model_copy(update={"services": heap})
    async with AsyncExitStack() as exits:
        stacks = [
            await exits.enter_async_context(
                Stack(apart(small, folder / name), workers=1, processes=1)
            )
            for name in NAMES
        ]
        known = [Region(name, one.kafka_bootstrap) for name, one in zip(NAMES, stacks, strict=True)]
        regions = [
            OneRegion(
                here.name,
                stack,
                MirrorMaker(
                    folder / here.name / "mirror",
                    here,
                    there,
                    mirrored_topics(stack.settings),
                    cache_dir=settings.services.cache_dir,
                    heap_mb=_HEAP_MB,
                    cancelled=cancelled,
                ),
            )
            for stack, here, there in zip(stacks, known, reversed(known), strict=True)
        ]
        mirrors = [one.mirror for one in regions]
        exits.push_async_callback(asyncio.to_thread, at_once, MirrorMaker.stop, mirrors)
        await in_thread(lambda: at_once(MirrorMaker.start, mirrors), cancelled.set)
        yield regions
