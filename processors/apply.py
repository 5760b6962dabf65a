"""A batch from the log to its exact commit. Knows the store, not Faust.

    1  decode; bury what cannot be counted, before anything of the batch is committed
    2  read the users' histories with the user shards' marks
    3  fold the events that the users' shards lack; predict a sample of them, and learn from it
    4  commit increments to item shards and totals, each leaving out what it contains
    5  commit histories to user shards; of users who are forgotten there is nothing left
    6  compact lists that have grown long (`compaction.py`)

Steps 4 and 5 either apply or change nothing. A refusal means that another worker came between, or
that Redis lost its end; a Redis error, that nobody knows. After both, the marks are read again and
the batch is folded anew from them; if they lie before a part of it, that partition's log is read
again from there.

A batch has parts of several partitions where little waits: what a commit costs beside its events
is paid once for all. Each shard takes all parts or none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import numpy as np
import structlog
from redis.exceptions import RedisError
from structlog.contextvars import bound_contextvars

from config.errors import StreamError
from config.settings import Settings
from config.traces import span, traceparents
from processors import metrics
from processors.compaction import Compaction
from processors.fold import Folded, FoldRules, fold_batch, item_deltas, total_deltas
from processors.grouping import distinct, places
from store.commit import Lesson, Marks, Target
from store.take_back import UsersAhead
from store.writer import StoreWriter
from streams.columns import I64, U64, Bool
from streams.dead import DeadLetters
from streams.decode import DecodedBatch, decode_batches, join_decoded
from streams.event import EventRules
from streams.records import RecordBatch

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

__all__ = ["EventApplier", "Learning", "ReadAgain"]

log = structlog.get_logger("headwater.apply")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_KNOWN_NAMES = 1_000_000
_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class ReadAgain:
    """The store lacks records before the batch: read on from this offset."""

    offset: int


class Learning(Protocol):
    """Predicts some of a batch's events before they are counted, and learns from them."""

    async def lesson(self, folded: Folded) -> Lesson | None:
        """The lesson of a batch whose increments are not in the store yet."""

    def done(self, committed: bool) -> None:
        """The batch of the last lesson was committed, or was not."""


@dataclass(slots=True)
class _Part:
    """A batch's part of one partition."""

    batch: RecordBatch
    decoded: DecodedBatch
    marks: Marks = field(init=False)
    buried: bool = False
    result: ReadAgain | int | None = None

    @property
    def name(self) -> tuple[str, int]:
        return self.batch.topic, self.batch.partition


class EventApplier:
    """Applies batches of the partitions that this worker owns."""

    def __init__(
        self,
        settings: Settings,
        writer: StoreWriter,
        dead: DeadLetters,
        learner: Learning | None = None,
        forget_elsewhere: Callable[[U64], Awaitable[None]] | None = None,
    ) -> None:
        """`forget_elsewhere` is told of users (hashes) before a batch forgets them."""
        self._writer, self._tenant = writer, settings.tenant
        self._forget_elsewhere = forget_elsewhere
        self._dead = dead
        self._learner = learner
        self._event_rules = EventRules(settings.events)
        self._fold_rules = FoldRules(settings)
        self._marks: dict[tuple[str, int], Marks] = {}
        # Names are written again after a restart, which changes nothing: they never change.
        self._named: set[int] = set()
        self.compaction = Compaction(writer)

    async def position(self, topic: str, partition: int) -> int:
        """The offset from which a partition has to be read; drops what was known of it."""
        pause = _FIRST_PAUSE
        while True:
            try:
                marks = await self._writer.read_marks(topic, partition)
                break
            except (RedisError, UsersAhead) as error:
                pause = await _pause("marks cannot be read", error, pause)
        self._marks[topic, partition] = marks
        self._named.clear()
        return marks.lowest + 1

    async def apply(self, batches: Sequence[RecordBatch]) -> list[ReadAgain | int]:
        """Apply batches of a partition each together; returns for each the offset up to which the
        store contains its partition now.
        """
        places = [_place(batch) for batch in batches]
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.destination.name": batches[0].topic,
            "messaging.batch.message_count": sum(len(one.records) for one in batches),
        }
        links = _senders(batches)
        with bound_contextvars(batch=places), span("apply", "CONSUMER", attributes, links=links):
            try:
                return await self._apply(batches)
            except Exception:
                # Whoever ends this worker knows no more where it stood.
                log.exception("this batch cannot be applied")
                raise

    async def _apply(self, batches: Sequence[RecordBatch]) -> list[ReadAgain | int]:
        decoded = decode_batches([batch.records for batch in batches], self._event_rules)
        parts = [_Part(batch, one) for batch, one in zip(batches, decoded, strict=True)]
        pause = _FIRST_PAUSE
        while True:
            try:
                lacking = [part for part in parts if await self._is_lacking(part)]
                if not lacking:
                    return [part.result for part in parts if part.result is not None]
                for part in lacking:
                    await self._bury(part)
                if await self._commit(lacking):
                    for part in lacking:
                        part.result = part.batch.last
                    self._measure(lacking)
                    continue
                metrics.CONFLICTS.labels(self._tenant).inc()
                log.warning("commit refused")
            except (RedisError, StreamError, UsersAhead) as error:
                pause = await _pause("batch cannot be committed yet", error, pause)
            for part in parts:
                if part.result is None:
                    self._marks.pop(part.name, None)
            # Names may have gone with the end that Redis lost: they are written once more.
            self._named.clear()

    async def _is_lacking(self, part: _Part) -> bool:
        """Whether the store lacks some of a part and all before is there; else its result is."""
        if part.result is not None:
            return False
        marks = self._marks.get(part.name)
        # Users past what is known of counts: another worker was further on with both. Were Redis to
        # fall back now to those counts, a commit would continue them without what lies between.
        if marks is None or marks.users_ahead:
            marks = self._marks[part.name] = await self._writer.read_marks(*part.name)
        part.marks = marks
        if part.batch.start > marks.lowest + 1:
            part.result = ReadAgain(marks.lowest + 1)
        elif part.batch.last <= marks.lowest:
            part.result = marks.lowest
        return part.result is None

    async def _bury(self, part: _Part) -> None:
        if part.decoded.rejected and not part.buried:
            await self._dead.bury(*part.name, part.decoded.rejected)
            part.buried = True

    async def _commit(self, parts: Sequence[_Part]) -> bool:
        """Steps 2 to 6; false when a shard refused."""
        writer, rules = self._writer, self._fold_rules
        targets = [Target(*part.name, part.batch.last) for part in parts]
        marks = [part.marks for part in parts]
        decoded = join_decoded([part.decoded for part in parts])
        events, tombstones = decoded.events, decoded.tombstones
        of_part = _places([len(part.decoded.events) for part in parts])
        # Shards that contain an event hold its user as of after it; the same of a tombstone.
        known = np.array([one.users for one in marks])
        lacking = events.offset > known[of_part, writer.shard_of(events.user)]
        if len(tombstones):
            from_part = _places([len(part.decoded.tombstones) for part in parts])
            new = tombstones.offset > known[from_part, writer.shard_of(tombstones.user)]
            tombstones = tombstones.take(new, lacking)
            if self._forget_elsewhere is not None:
                await self._forget_elsewhere(tombstones.user)
        if not lacking.all():
            events, of_part = events.take(lacking), of_part[lacking]
        users = np.sort(distinct(np.concatenate([events.user, tombstones.user])))
        before, user_marks = await writer.read_sessions(targets, users)
        if not np.array_equal(user_marks, known):
            return False
        folded = fold_batch(before, events, rules, tombstones)
        contained = np.array([one.items for one in marks])

        def newer(items: U64, rows: I64) -> Bool:
            return events.offset[rows] > contained[of_part[rows], writer.shard_of(items)]

        names = self._new_names(decoded)
        counted = events.offset > np.array([one.totals for one in marks])[of_part]
        # What the totals contain was predicted and learned from with them.
        learner = self._learner if len(events) and counted.all() else None
        lesson = None if learner is None else await learner.lesson(folded)
        committed = False
        try:
            outcome = await writer.commit_items(
                targets,
                marks,
                item_deltas(folded, rules, newer),
                total_deltas(folded, counted),
                names,
                lesson,
            )
            committed = not outcome.refused
        finally:
            if learner is not None and lesson is not None:
                learner.done(committed)
        if not committed:
            return False
        outcome.move_items(marks)
        self._named.update(names)
        stored = await writer.commit_users(targets, marks, folded.sessions)
        if stored.refused:
            return False
        stored.move_users(marks)
        metrics.DUPLICATES.labels(self._tenant).inc(int((~folded.counted).sum()))
        await self.compaction.after(outcome, len(events))
        return True

    def _new_names(self, decoded: DecodedBatch) -> dict[int, bytes]:
        if len(self._named) > _KNOWN_NAMES:
            self._named.clear()
        items = decoded.events.item
        new = [item for item in distinct(items).tolist() if item not in self._named]
        if not new:
            return {}
        rows = np.flatnonzero(places(np.array(new, np.uint64), items) >= 0)
        return {
            item: decoded.item_ids[row]
            for item, row in zip(items[rows].tolist(), rows, strict=True)
        }

    def _measure(self, parts: Sequence[_Part]) -> None:
        metrics.APPLIED.labels(self._tenant).inc(sum(len(one.decoded.events) for one in parts))
        forgotten = sum(len(one.decoded.tombstones) for one in parts)
        metrics.FORGOTTEN.labels(self._tenant).inc(forgotten)
        for dead in chain.from_iterable(one.decoded.rejected for one in parts):
            metrics.REJECTED.labels(self._tenant, dead.rejection.reason).inc()
        for part in parts:
            batch = part.batch
            missing = int(batch.records.offset[0]) - batch.start
            if missing:
                metrics.LOG_GAP.labels(self._tenant).inc(missing)
                log.error(
                    "the log lacks records that were not read yet: retention took them?",
                    topic=batch.topic,
                    partition=batch.partition,
                    offset=batch.start,
                    records=missing,
                )
        now = time.time()
        visible = metrics.VISIBLE.labels(self._tenant)
        timestamps = np.concatenate([one.batch.records.timestamp for one in parts])
        for timestamp in timestamps[:: -(-len(timestamps) // _SAMPLES)].tolist():
            visible.observe(max(0.0, now - timestamp / 1000))


def _place(batch: RecordBatch) -> dict[str, str | int]:
    """Where a batch stands in the log, for log lines."""
    return {
        "topic": batch.topic,
        "partition": batch.partition,
        "offset": batch.start,
        "last": batch.last,
    }


def _senders(batches: Sequence[RecordBatch]) -> list[SpanContext]:
    """Spans that have sent records of these."""
    headers = [one.records.headers for one in batches if one.records.headers is not None]
    return traceparents(chain.from_iterable(headers)) if headers else []


def _places(sizes: list[int]) -> I64:
    """Which of some parts each element is of, when they stand behind one another."""
    return np.arange(len(sizes)).repeat(sizes)


async def _pause(what: str, error: Exception, seconds: float) -> float:
    log.warning(what, error=str(error), retry_in=seconds)
    await asyncio.sleep(seconds)
    return min(2 * seconds, _LONGEST_PAUSE)
