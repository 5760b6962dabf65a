"""The catalogue: the compacted `items` topic into the store. Knows the store, not Faust."""

from __future__ import annotations

import msgspec
from redis.exceptions import RedisError

from config.errors import StreamError
from processors.apply import ReadAgain
from processors.item_topics import ItemTopicApplier, decode_json
from store.commit import CatalogueEntry, Target
from store.writer import StoreWriter
from streams.columns import hash_id
from streams.dead import DeadLetters
from streams.decode import RejectedRecord
from streams.event import Rejection
from streams.item import CatalogueItem
from streams.records import Record, RecordBatch

__all__ = ["CatalogueApplier"]


class CatalogueApplier(ItemTopicApplier):
    """Applies batches of the catalogue's topic; the last record of an item counts."""

    def __init__(self, writer: StoreWriter, dead: DeadLetters) -> None:
        super().__init__("catalogue", writer.read_catalogue_marks, dead)
        self._writer = writer
        self._decoder = msgspec.json.Decoder(CatalogueItem)
        self._encoder = msgspec.json.Encoder()

    async def apply(self, batch: RecordBatch) -> ReadAgain | int:
        """Apply a batch; returns the offset up to which the store contains the partition now."""
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
                marks = await self._marks(batch.topic, batch.partition)
                if batch.start > (contained := int(marks.min())) + 1:
                    return ReadAgain(contained + 1)
                if not (await self._writer.commit_catalogue(target, marks, entries)).refused:
                    return batch.last
            except (RedisError, StreamError) as error:
                await self._pause(error, batch.topic, batch.partition, batch.start)

    def _entry(self, record: Record) -> CatalogueEntry:
        if record.key is None:
            raise Rejection("no_key", "the record has no key; its key must be the item's id")
        try:
            key = record.key.decode()
        except UnicodeDecodeError as error:
            raise Rejection("not_json", f"not JSON: {error}") from None
        if record.value is None:
            return CatalogueEntry(hash_id(key), None)
        item = decode_json(self._decoder, record.value)
        if item.item_id != key:
            raise Rejection("wrong_key", "the record's key is not the item's id", "item_id")
        return CatalogueEntry(hash_id(key), self._encoder.encode(item), item.available)
