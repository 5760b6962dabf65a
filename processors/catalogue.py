"""The catalogue: the compacted `items` topic into the store. Knows the store, not Faust."""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from redis.exceptions import RedisError

from config.errors import StreamError
from store.commit import CatalogueEntry, Target
from store.writer import StoreWriter
from streams.columns import hash_id
from streams.dead import DeadLetters
from streams.decode import Record, RejectedRecord
from streams.event import Rejection, invalid
from streams.item import CatalogueItem
from streams.transport import RecordBatch

__all__ = ["CatalogueApplier"]

log = structlog.get_logger("headwater.catalogue")

_RETRY_SECONDS = 0.5


class CatalogueApplier:
    """Applies batches of the catalogue's topic; the last record of an item counts."""

    def __init__(self, writer: StoreWriter, dead: DeadLetters) -> None:
        self._writer = writer
        self._dead = dead
        self._decoder = msgspec.json.Decoder(CatalogueItem)
        self._encoder = msgspec.json.Encoder()

    async def position(self, topic: str, partition: int) -> int:
        """The offset from which a partition has to be read."""
        while True:
            try:
                return await self.contained(topic, partition) + 1
            except RedisError as error:
                await _pause(error)

    async def contained(self, topic: str, partition: int) -> int:
        """The offset up to which the store contains a partition. Raises redis.RedisError."""
        return int((await self._writer.read_catalogue_marks(topic, partition)).min())

    async def apply(self, batch: RecordBatch) -> int:
        """Apply a batch; returns its last offset."""
        entries: list[CatalogueEntry] = []
        rejected: list[RejectedRecord] = []
        for record in batch.records:
            try:
                entries.append(self._entry(record))
            except Rejection as rejection:
                rejected.append(RejectedRecord(record, rejection))
        target = Target(batch.topic, batch.partition, batch.last)
        while True:
            try:
                if rejected:
                    await self._dead.bury(batch.topic, batch.partition, rejected)
                    rejected = []
                marks = await self._writer.read_catalogue_marks(batch.topic, batch.partition)
                if not (await self._writer.commit_catalogue(target, marks, entries)).refused:
                    return batch.last
            except (RedisError, StreamError) as error:
                await _pause(error)

    def _entry(self, record: Record) -> CatalogueEntry:
        if record.key is None:
            raise Rejection("no_key", "the record has no key; its key must be the item's id")
        try:
            key = record.key.decode()
            if record.value is None:
                return CatalogueEntry(hash_id(key), None)
            item = self._decoder.decode(record.value)
        except msgspec.ValidationError as error:
            raise invalid(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Rejection("not_json", f"not JSON: {error}") from None
        if item.item_id != key:
            raise Rejection("wrong_key", "the record's key is not the item's id", "item_id")
        return CatalogueEntry(hash_id(key), self._encoder.encode(item))


async def _pause(error: Exception) -> None:
    log.warning("catalogue cannot be committed yet", error=str(error), retry_in=_RETRY_SECONDS)
    await asyncio.sleep(_RETRY_SECONDS)
