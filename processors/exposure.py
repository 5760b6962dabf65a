"""Exposures: how often new items were shown, from the topic `recommendations` into the store.

Knows the store, not Faust. Counts add up, so each item shard takes what it lacks of a batch, and
nothing twice; a batch that does not follow on what the store contains makes the log be read again.
"""

from __future__ import annotations

import msgspec
import numpy as np
from redis.exceptions import RedisError

from config.errors import StreamError
from config.settings import DEFAULT_TENANT
from processors import metrics
from processors.apply import ReadAgain
from processors.item_topics import ItemTopicApplier, decode_json
from store.commit import Target
from store.exposures import ExposureWriter
from streams.columns import hash_id
from streams.dead import DeadLetters
from streams.decode import RejectedRecord
from streams.event import Rejection
from streams.records import RecordBatch
from streams.shown import Shown

__all__ = ["ExposureApplier"]


class ExposureApplier(ItemTopicApplier):
    """Applies batches of what was shown."""

    def __init__(
        self, writer: ExposureWriter, dead: DeadLetters, tenant: str = DEFAULT_TENANT
    ) -> None:
        super().__init__("exposure", writer.read_marks, dead)
        self._writer, self._tenant = writer, tenant
        self._decoder = msgspec.json.Decoder(Shown)

    async def apply(self, batch: RecordBatch) -> ReadAgain | int:
        """Apply a batch; returns the offset up to which the store contains the partition now."""
        items: list[int] = []
        offsets: list[int] = []
        rejected: list[RejectedRecord] = []
        for record in batch.records:
            try:
                shown = self._decode(record.value)
            except Rejection as rejection:
                rejected.append(RejectedRecord(record, rejection))
            else:
                items += [hash_id(item) for item in shown.explored]
                offsets += [record.offset] * len(shown.explored)
        target = Target(batch.topic, batch.partition, batch.last)
        hashes, at = np.array(items, np.uint64), np.array(offsets, np.int64)
        buried = False
        while True:
            try:
                marks = await self._marks(batch.topic, batch.partition)
                contained = int(marks.min())
                if batch.start > contained + 1:
                    return ReadAgain(contained + 1)
                if batch.last <= contained:
                    return contained
                if rejected and not buried:
                    await self._dead.bury(batch.topic, batch.partition, rejected)
                    buried = True
                if not (await self._writer.commit(target, marks, hashes, at)).refused:
                    break
                metrics.CONFLICTS.labels(self._tenant).inc()
            except (RedisError, StreamError) as error:
                await self._pause(error, batch.topic, batch.partition, batch.start)
        metrics.SHOWN_APPLIED.labels(self._tenant).inc(len(batch.records) - len(rejected))
        for dead in rejected:
            metrics.REJECTED.labels(self._tenant, dead.rejection.reason).inc()
        return batch.last

    def _decode(self, value: bytes | None) -> Shown:
        if value is None:
            raise Rejection("empty", "the record has no value; what was shown is a JSON object")
        return decode_json(self._decoder, value)
