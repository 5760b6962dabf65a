"""Which clicks and purchases came of which variant: what the topics `events` and `recommendations`
tell, handed to the store. Knows the store, not Faust.

Of events, only those are decoded that may matter: a byte search finds them. What cannot be read is
buried by `apply.py` and `exposure.py`, and passed over here.

Each partition has a mark in the experiment shards, beside those that counting has. A batch is taken
by both; whoever lacks more says from where the log is read again, and the other one finds that it
contains that already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import msgspec
import structlog
from redis.exceptions import RedisError
from xxhash import xxh3_64_intdigest

from config.settings import DEFAULT_TENANT, Settings
from processors import metrics
from processors.apply import ReadAgain
from store.attribution import (
    CLICK,
    PURCHASE,
    AttributionWriter,
    Done,
    Forgotten,
    Happened,
    Shown,
)
from store.commit import Target
from streams.columns import I64, hash_id
from streams.decode import unwrapped
from streams.event import EventRules, Rejection, time_of
from streams.records import Record, RecordBatch, Records
from streams.shown import Shown as ShownRecord

__all__ = ["AnswerRecords", "AttributionApplier", "EventRecords"]

log = structlog.get_logger("headwater.attribution")

_RETRY_SECONDS = 0.5
_AT_ONCE = 500
"""Records that matter in one commit: Redis does nothing else for some milliseconds."""

Decode = Callable[[int, RecordBatch], Iterator[Happened]]
"""What matters in a batch that is the n-th part of what is committed."""


class EventRecords:
    """Finds clicks, purchases and tombstones."""

    def __init__(self, settings: Settings) -> None:
        """Raises nothing: types that no event has find nothing."""
        self._rules = EventRules(settings.events)
        purchases = settings.events.purchases
        self._kinds = dict.fromkeys(settings.experiments.clicks, CLICK)
        self._kinds |= dict.fromkeys(purchases, PURCHASE)
        self._by_item = settings.experiments.shown_items
        names = [msgspec.json.encode(kind) for kind in self._kinds]
        self._needles = names if self._by_item else [b'"recommendation_id"']

    def __call__(self, part: int, batch: RecordBatch) -> Iterator[Happened]:
        """What matters, in log order."""
        records = unwrapped(batch.records, self._rules)
        for row, value in enumerate(records.value):
            if value is None:
                yield from self._forgotten(part, _record(records, row))
            # An escaped character may stand for one that is looked for.
            elif b"\\" in value or any(needle in value for needle in self._needles):
                yield from self._done(part, batch, _record(records, row), value)

    def _forgotten(self, part: int, record: Record) -> Iterator[Happened]:
        if record.key is None:
            return
        try:
            self._rules.check_user(record.key)
        except Rejection:
            return
        user = hash_id(record.key.decode())
        yield Forgotten(part, record.offset, user, record.timestamp)

    def _done(
        self, part: int, batch: RecordBatch, record: Record, value: bytes
    ) -> Iterator[Happened]:
        rules = self._rules
        try:
            event = rules.decode(value)
            rules.kind_of(event)
            time = time_of(event)
            rules.check_time(time, record.timestamp)
        except Rejection:
            return
        kind = self._kinds.get(event.type)
        if kind is None or record.key != event.user_id.encode():
            return
        if not event.recommendation_id and not self._by_item:
            return
        named = event.event_id
        identity = f"id {named}" if named else f"at {batch.topic} {batch.partition} {record.offset}"
        yield Done(
            *(part, record.offset, hash_id(event.user_id), time),
            identity=xxh3_64_intdigest(identity.encode()),
            kind=kind,
            item=hash_id(event.item_id),
            answer=hash_id(event.recommendation_id) if event.recommendation_id else None,
        )


class AnswerRecords:
    """Finds answers that belong to experiments."""

    def __init__(self, settings: Settings) -> None:
        self._decoder = msgspec.json.Decoder(ShownRecord)
        self._by_item = settings.experiments.shown_items

    def __call__(self, part: int, batch: RecordBatch) -> Iterator[Happened]:
        """What matters, in log order."""
        for record in batch.records:
            try:
                one = self._decoder.decode(record.value or b"")
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if one.experiment is None or one.variant is None or one.user_id is None:
                continue
            items = b""
            if self._by_item:
                items = b"".join(hash_id(item).to_bytes(8, "little") for item in one.items)
            yield Shown(
                *(part, record.offset, hash_id(one.user_id), one.timestamp),
                answer=hash_id(one.recommendation_id),
                experiment=one.experiment,
                variant=one.variant,
                items=items,
            )


class AttributionApplier:
    """Applies batches of one topic."""

    def __init__(
        self, writer: AttributionWriter, decode: Decode, kind: str, tenant: str = DEFAULT_TENANT
    ) -> None:
        """`kind` is what the topic's records are called in metrics."""
        self._writer, self._tenant = writer, tenant
        self._decode = decode
        self._kind = kind
        self._marks: dict[tuple[str, int], I64] = {}

    async def position(self, topic: str, partition: int, counted: int) -> int:
        """The offset from which a partition has to be read; drops what was known of it. Where
        nothing was ever attributed, behind what is `counted` already.
        """
        self._marks.pop((topic, partition), None)
        while True:
            try:
                await self._writer.begin(topic, partition, counted)
                return await self.contained(topic, partition) + 1
            except RedisError as error:
                await _pause(error)

    async def contained(self, topic: str, partition: int) -> int:
        """The offset up to which the store contains a partition. Raises redis.RedisError."""
        return int((await self._writer.read_marks(topic, partition)).min())

    async def apply(self, batches: Sequence[RecordBatch]) -> list[ReadAgain | int]:
        """Apply batches of a partition each together; returns for each the offset up to which the
        store contains its partition now.
        """
        results: list[ReadAgain | int | None] = [None] * len(batches)
        while True:
            try:
                lacking: list[int] = []
                marks: list[I64] = []
                for n, batch in enumerate(batches):
                    if results[n] is None:
                        known = await self._known(batch)
                        results[n] = _contained_already(batch, int(known.min()))
                    if results[n] is None:
                        lacking.append(n)
                        marks.append(known)
                if not lacking:
                    return [one for one in results if one is not None]
                if await self._commit([batches[n] for n in lacking], marks):
                    for n in lacking:
                        results[n] = batches[n].last
                    continue
                metrics.CONFLICTS.labels(self._tenant).inc()
            except RedisError as error:
                await _pause(error)
            for batch in batches:
                self._marks.pop((batch.topic, batch.partition), None)

    async def _known(self, batch: RecordBatch) -> I64:
        """The marks of a batch's partition."""
        name = batch.topic, batch.partition
        known = self._marks.get(name)
        if known is None:
            known = self._marks[name] = await self._writer.read_marks(*name)
        return known

    async def _commit(self, parts: Sequence[RecordBatch], marks: Sequence[I64]) -> bool:
        """False when a shard refused."""
        found = [list(self._decode(n, one)) for n, one in enumerate(parts)]
        if sum(map(len, found)) <= _AT_ONCE:
            return await self._commit_once(parts, marks, list(chain.from_iterable(found)))
        for part, known, records in zip(parts, marks, found, strict=True):
            for portion, some in _portions(part, records):
                if not await self._commit_once([portion], [known], some):
                    return False
                known = self._marks[part.topic, part.partition]
        return True

    async def _commit_once(
        self, parts: Sequence[RecordBatch], marks: Sequence[I64], records: Sequence[Happened]
    ) -> bool:
        targets = [Target(one.topic, one.partition, one.last) for one in parts]
        times = [int(one.records.timestamp.max()) for one in parts]
        done = await self._writer.commit(targets, marks, times, records)
        if done.outcome.refused:
            return False
        for one, contained in zip(parts, done.outcome.contained, strict=True):
            self._marks[one.topic, one.partition] = contained
        metrics.ATTRIBUTED.labels(self._kind).inc(len(records))
        if done.cut:
            metrics.CUT.inc(done.cut)
            log.warning("users with too much to match", entries=done.cut)
        return True


def _portions(
    batch: RecordBatch, records: Sequence[Happened]
) -> Iterator[tuple[RecordBatch, list[Happened]]]:
    """A batch in parts of few records that matter, each with these."""
    rest: RecordBatch | None = batch
    for begin in range(0, max(1, len(records)), _AT_ONCE):
        some = [replace(one, part=0) for one in records[begin : begin + _AT_ONCE]]
        assert rest is not None, "records that matter are of the batch"  # noqa: S101
        first, rest = rest, None
        if begin + _AT_ONCE < len(records):
            count = int((first.records.offset <= some[-1].offset).sum())
            first, rest = first.cut(count)
        yield first, some


def _contained_already(batch: RecordBatch, contained: int) -> ReadAgain | int | None:
    """None where the store lacks some of a batch and all before is there."""
    if batch.start > contained + 1:
        return ReadAgain(contained + 1)
    return contained if batch.last <= contained else None


def _record(records: Records, row: int) -> Record:
    offset, timestamp = int(records.offset[row]), int(records.timestamp[row])
    return Record(offset, timestamp, records.key[row], records.value[row])


async def _pause(error: Exception) -> None:
    log.warning("outcomes cannot be committed yet", error=str(error), retry_in=_RETRY_SECONDS)
    await asyncio.sleep(_RETRY_SECONDS)
