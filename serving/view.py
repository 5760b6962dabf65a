"""What answers are made of: the live generation, followed as it changes.

Another generation is read into a view of its own, beside the one that answers; once that could
answer too, it takes its place between two requests. Those under way finish with the old one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import orjson
import structlog
from redis.exceptions import RedisError

from config.ending import end_tasks
from config.errors import SettingsError, StoreError
from config.overlay import Overlay, overlaid
from config.settings import Settings
from serving.answers import Answers
from serving.exposures import Exposures
from serving.outage import Outage, StoreDown
from serving.recommend import Recommender
from store.connect import connect
from store.generations import Generation, Generations, first_generation
from store.reader import StoreReader
from streams.event import EventRules

__all__ = ["LiveView", "View"]

log = structlog.get_logger("headwater.http")

_FOLLOW_SECONDS = 0.25
_MOST_VARIANTS = 64


class View:
    """One generation, read through a connection of its own."""

    def __init__(
        self, settings: Settings, generation: Generation, outage: Outage, exposures: Exposures
    ) -> None:
        """Raises SettingsError."""
        self.generation = generation.number
        self.settings = generation.overlaid(settings)
        """Those of the process, with what the generation brings along."""
        self.rules = EventRules(self.settings.events)
        self._redis = connect(self.settings)
        self.reader = StoreReader(self._redis, self.settings, generation.number)
        self.answers = Answers(Recommender(self.reader, self.settings), outage, exposures)
        self._outage, self._exposures = outage, exposures
        self._of_variants: dict[bytes, Answers] = {}

    def answers_with(self, overlay: Overlay) -> Answers:
        """Answers with other settings of the groups rank and explore over its own."""
        if not overlay:
            return self.answers
        key = orjson.dumps(overlay, option=orjson.OPT_SORT_KEYS)
        found = self._of_variants.get(key)
        if found is None:
            if len(self._of_variants) >= _MOST_VARIANTS:  # of experiments that are long over
                self._of_variants.clear()
            found = self._of_variants[key] = self._variant(overlaid(self.settings, overlay))
        return found

    def _variant(self, own: Settings) -> Answers:
        # What is read, and held while the store is away, is the same wherever it can be.
        reader = self.reader
        if _read_with(own) != _read_with(self.settings):
            reader = StoreReader(self._redis, own, self.generation)
        recommender = Recommender(reader, own)
        return Answers(recommender, self._outage, self._exposures, self.answers.fallback)

    async def close(self) -> None:
        """End its connections, be it without a good-bye; what reads on by itself would connect
        once more.
        """
        await end_tasks(self.answers.tasks)
        with contextlib.suppress(RedisError):
            await self._redis.aclose()


def _read_with(settings: Settings) -> tuple[object, ...]:
    """Of settings that a variant may have of its own, those by which a reader reads."""
    rank = settings.rank
    return rank.count_power, rank.backward, rank.category, settings.explore.exposures


class LiveView:
    """Holds the view that answers."""

    def __init__(
        self, settings: Settings, generations: Generations, outage: Outage, exposures: Exposures
    ) -> None:
        self._settings = settings
        self._generations = generations
        self._outage = outage
        self._exposures = exposures
        # Where nothing is known yet, the first one will be.
        self.now = self._view(first_generation(settings))
        self._leaving: set[asyncio.Task[None]] = set()

    async def look(self) -> None:
        """Follow once: change to the live generation where another one is live. Raises StoreDown,
        StoreError and SettingsError; then what answered goes on to do so.
        """
        live = await self._outage.ask(self._generations.live)
        if live is None or live.number == self.now.generation:
            return
        view = self._view(live)
        try:
            # What everybody asks for is read before anybody has to wait for it.
            await view.answers.remember()
        except BaseException:
            await view.close()
            raise
        before, self.now = self.now, view
        log.info("another generation answers", before=before.generation, now=view.generation)
        self._leaving.add(task := asyncio.create_task(self._leave(before)))
        task.add_done_callback(self._leaving.discard)

    async def run(self, rarer: Callable[[], float]) -> None:
        """Follow the live generation, forever; so many times rarer than four times a second."""
        while True:
            try:
                await self.look()
            except StoreDown:
                pass  # told by whoever guards the store
            except (StoreError, SettingsError) as error:
                log.error("the live generation cannot be read", error=str(error))
            await asyncio.sleep(_FOLLOW_SECONDS * rarer())

    async def close(self) -> None:
        """End all connections."""
        await end_tasks(self._leaving)
        await self.now.close()

    def _view(self, generation: Generation) -> View:
        return View(self._settings, generation, self._outage, self._exposures)

    async def _leave(self, view: View) -> None:
        try:
            # No request waits longer for the store.
            await asyncio.sleep(2 * self._settings.redis.timeout_seconds)
        finally:
            await view.close()
