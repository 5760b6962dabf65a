"""All that one worker does for one generation: from record batches to commits.

Made anew for another generation, when that becomes the live one. Knows the store, not Faust.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import structlog
from redis.exceptions import RedisError

from config.overlay import differences
from config.settings import Settings
from processors import metrics
from processors.apply import EventApplier, ReadAgain
from processors.attribution import AnswerRecords, AttributionApplier, EventRecords
from processors.catalogue import CatalogueApplier
from processors.exposure import ExposureApplier
from processors.lanes import Lanes
from processors.learner import Learner
from serving.recommend import Recommender
from store.attribution import AttributionWriter
from store.commit import read_lowest_marks
from store.connect import connect
from store.exposures import ExposureWriter
from store.forget import KeptGenerations
from store.generations import Generation
from store.keys import Keys
from store.reader import StoreReader
from store.writer import StoreWriter
from streams.dead import DeadLetters
from streams.records import RecordBatch

__all__ = ["Applied", "Pipeline"]

log = structlog.get_logger("headwater.worker")

Applied = Callable[[RecordBatch, ReadAgain | int], Awaitable[None]]
"""Is told up to where the store contains a batch's partition now, or from where to read again."""


class Pipeline:
    """Applies the batches of all topics to one generation, with a connection of its own."""

    def __init__(
        self,
        settings: Settings,
        generation: Generation,
        dead: DeadLetters,
        applied: Applied,
        failed: Callable[[BaseException], None],
        share: Callable[[], float],
        *,
        builds: bool,
    ) -> None:
        """An error that a batch cannot be applied after goes to `failed`; `share` says what part of
        the events is read here; `builds` where the generation is not the live one. Raises
        SettingsError.
        """
        if other := differences(settings, generation.settings):
            log.warning(
                "a generation keeps what it was begun with; replay builds one with other settings",
                generation=generation.number,
                settings=other,
            )
        self.generation, self._tenant = generation, settings.tenant
        self.settings = own = generation.overlaid(settings)
        """With what the generation brings along."""
        self._redis = connect(own)
        writer = StoreWriter(self._redis, own, generation.number)
        self._reader = StoreReader(self._redis, own, generation.number)
        learner = Learner(
            Recommender(self._reader, own),
            self._reader,
            own,
            # Workers that teach at the same time take each other's lessons.
            lambda: own.learn.per_second * share(),
        )
        kept = None if builds else KeptGenerations(self._redis, settings).forget
        self._events = EventApplier(own, writer, dead, learner, kept)
        kafka = own.kafka
        self._others: dict[str, CatalogueApplier | ExposureApplier] = {
            kafka.items_topic: CatalogueApplier(writer, dead),
            kafka.recommendations_topic: ExposureApplier(
                ExposureWriter(self._redis, own, generation.number), dead, own.tenant
            ),
        }
        self._attribution: dict[str, AttributionApplier] = {}
        if own.experiments.file is not None:
            outcomes = AttributionWriter(self._redis, own, generation.number)
            self._attribution = {
                kafka.events_topic: AttributionApplier(
                    outcomes, EventRecords(own), "event", own.tenant
                ),
                kafka.recommendations_topic: AttributionApplier(
                    outcomes, AnswerRecords(own), "answer", own.tenant
                ),
            }
        self._applied = applied
        self._lanes = Lanes(self._apply_events, failed, own.worker.max_poll_records)

    async def position(self, topic: str, partition: int) -> int:
        """The offset from which a partition has to be read; waits until the store tells."""
        counted = await self._applier(topic).position(topic, partition)
        if (attribution := self._attribution.get(topic)) is None:
            return counted
        return min(counted, await attribution.position(topic, partition, counted - 1))

    async def contained(self, places: Sequence[tuple[str, int]]) -> list[int]:
        """The offsets up to which the store contains partitions (topic, number). Raises
        redis.RedisError.
        """
        keys = Keys(self.settings.store, self.generation.number)
        found = await read_lowest_marks(self._redis, keys, places, self.settings.kafka.events_topic)
        for place, (topic, partition) in enumerate(places):
            if (attribution := self._attribution.get(topic)) is not None:
                found[place] = min(found[place], await attribution.contained(topic, partition))
        return found

    async def put_events(self, batch: RecordBatch) -> None:
        """Hand over events; waits while there are too many."""
        await self._lanes.put(batch)

    async def apply(self, batch: RecordBatch) -> None:
        """Apply a batch of another topic."""
        counting = self._others[batch.topic].apply(batch)
        attribution = self._attribution.get(batch.topic)
        if attribution is None:
            result = await counting
        else:
            counted, (matched,) = await asyncio.gather(counting, attribution.apply([batch]))
            result = _behind(counted, matched)
        await self._applied(batch, result)

    def drop(self, topic: str, partition: int) -> None:
        """Forget what waits of a partition."""
        self._lanes.drop(topic, partition)

    async def compact(self) -> None:
        """Compact some of the lists that have grown."""
        with contextlib.suppress(RedisError):
            await self._events.compaction.some()

    async def report_new_items(self) -> None:
        """Count the items that are there to be tried."""
        with contextlib.suppress(RedisError):
            metrics.NEW_ITEMS.labels(self._tenant).set((await self._reader.new_items()).count)

    async def close(self) -> None:
        """Leave off: what is being applied is committed whole or not at all."""
        self._lanes.close()
        with contextlib.suppress(RedisError):  # be it without a good-bye
            await self._redis.aclose()

    async def _apply_events(self, batches: Sequence[RecordBatch]) -> None:
        counting = self._events.apply(batches)
        attribution = self._attribution.get(batches[0].topic)
        if attribution is None:
            results = await counting
        else:
            both = await asyncio.gather(counting, attribution.apply(batches))
            results = list(map(_behind, *both))
        for batch, result in zip(batches, results, strict=True):
            await self._applied(batch, result)

    def _applier(self, topic: str) -> EventApplier | CatalogueApplier | ExposureApplier:
        return self._others.get(topic, self._events)


def _behind(one: ReadAgain | int, other: ReadAgain | int) -> ReadAgain | int:
    """Of two that took the same batch, what the one says that lacks more."""
    again = [result.offset for result in (one, other) if isinstance(result, ReadAgain)]
    if again:
        return ReadAgain(min(again))
    return min(result for result in (one, other) if isinstance(result, int))
