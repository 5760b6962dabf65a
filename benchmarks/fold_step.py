"""The fold and the commit of Headwater without its way of reading Kafka: what the comparisons put
behind other readers, and what fills a store without Kafka.

No retries, no rejected records, nothing learned: only what happens when all goes well.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

import numpy as np
from redis.asyncio import Redis

from config.settings import Settings
from processors.compaction import Compaction
from processors.fold import FoldRules, ItemDeltas, fold_batch, item_deltas, total_deltas
from store.commit import Marks, Target
from store.writer import StoreWriter
from streams.columns import I64, U64, Bool, EventColumns
from streams.decode import DecodedBatch, decode_batch
from streams.event import EventRules
from streams.records import Records

__all__ = ["FoldStep", "OnlyUsers", "nothing_of"]

_Columns = TypeVar("_Columns")


class FoldStep:
    """Folds and commits batches of partitions, each in order from where the store is."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._redis = redis
        self._writer = StoreWriter(redis, settings)
        self.compaction = Compaction(self._writer)
        self._event_rules = EventRules(settings.events)
        self._rules = FoldRules(settings)
        self._marks: dict[tuple[str, int], Marks] = {}
        self._named: set[int] = set()

    def decode(self, records: Records) -> DecodedBatch:
        """Records of one partition as columns."""
        return decode_batch(records, self._event_rules)

    async def apply(self, topic: str, partition: int, decoded: DecodedBatch) -> None:
        """Decode, fold and commit records of one partition. Raises RuntimeError when refused."""
        names = dict(zip(decoded.events.item.tolist(), decoded.item_ids, strict=True))
        new = {item: name for item, name in names.items() if item not in self._named}
        await self.commit(topic, partition, decoded.events, new)
        self._named.update(new)

    async def commit(
        self, topic: str, partition: int, events: EventColumns, names: dict[int, bytes]
    ) -> None:
        """Fold and commit events of one partition. Raises RuntimeError when a shard refuses."""
        writer, rules = self._writer, self._rules
        marks = self._marks.get((topic, partition))
        if marks is None:
            marks = await writer.read_marks(topic, partition)
            self._marks[topic, partition] = marks
        targets = [Target(topic, partition, int(events.offset[-1]))]
        before, _ = await writer.read_sessions(targets, np.unique(events.user))
        folded = fold_batch(before, events, rules)
        contained = marks.items

        def newer(items: U64, rows: I64) -> Bool:
            return events.offset[rows] > contained[writer.shard_of(items)]

        deltas = await self._before_commit(item_deltas(folded, rules, newer))
        totals = total_deltas(folded, events.offset > marks.totals)
        outcome = await writer.commit_items(targets, [marks], deltas, totals, names)
        outcome.move_items([marks])
        stored = await writer.commit_users(targets, [marks], folded.sessions)
        stored.move_users([marks])
        if outcome.refused or stored.refused:
            raise RuntimeError(f"{topic}-{partition}: somebody else writes to this store")
        await self.compaction.after(outcome, len(events))

    async def _before_commit(self, deltas: ItemDeltas) -> ItemDeltas:
        """What of the items' deltas is committed: all, unless somebody writes a part otherwise."""
        return deltas


class OnlyUsers(FoldStep):
    """Commits histories of users alone, as if their events had added nothing to items."""

    async def _before_commit(self, deltas: ItemDeltas) -> ItemDeltas:
        return nothing_of(deltas)


def nothing_of(columns: _Columns) -> _Columns:
    """The same columns without rows."""
    empty = {}
    for one in fields(columns):  # type: ignore[arg-type]
        value = getattr(columns, one.name)
        empty[one.name] = nothing_of(value) if is_dataclass(value) else value[:0]
    return replace(columns, **empty)  # type: ignore[type-var]
