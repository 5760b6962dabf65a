"""Commits of batches: state and log offset in one atomic step for each shard.

A shard keeps, for every partition, the last offset of the log that it contains (its *mark*). A
commit names the marks that it continues and the last offsets of the batch, which may have parts of
several partitions; the script behind it applies all writes and moves the marks, or does nothing
(`lua/fence.lua`). A batch is committed

1. to the item shards and the totals, then, once all of them have it,
2. to the user shards.

So user shards never run ahead: whoever reads a partition again from its lowest mark meets the
sessions as they were, derives the same increments, and each shard takes those it lacks.

Of a Redis Cluster, one node alone may fall back; then users are taken back first (`take_back.py`).

Between the two steps Redis may restart without its last second, and so without the items. Step 1
therefore ends by leaving a *pass* in every user shard, random and new for each attempt, and step 2
is refused where it does not find it: a Redis that lost the items has lost what came after them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from redis.asyncio import Redis

from config.settings import Settings
from processors.cooccurrence import decay_rate
from processors.fold import ItemDeltas, TotalDeltas
from processors.popularity import RECENT
from processors.session import SessionTable
from store.additions import pack_additions
from store.cluster import ClusterRedis
from store.commit import (
    CatalogueEntry,
    Compacted,
    Lesson,
    Marks,
    Outcome,
    Target,
    fenced,
    mark_keys,
    marks_of,
    read_item_marks,
)
from store.forget import this_day
from store.keys import BOUGHT, FIRST_GENERATION, STATISTICS, VIEWED, Keys
from store.lists import list_bound, pack_increments, sum_lists
from store.scripts import Call, Scripts
from store.take_back import take_back
from store.trends import TrendWriter, pack_rows
from store.vectors import pack_records, unpack_joined
from store.words import entry_words
from streams.columns import I64, U64

__all__ = ["StoreWriter"]

_COMPACTED_AT_ONCE = 200
"""Lists in one call: some milliseconds of Redis."""
_CELL = np.dtype([("cell", "<u2"), ("opportunities", "<u4"), ("hits", "<u4")])


class StoreWriter:
    """Everything that workers read and write. Raises redis.RedisError as redis-py does."""

    def __init__(
        self, redis: Redis, settings: Settings, generation: int = FIRST_GENERATION
    ) -> None:
        self._redis = redis
        self._keys = Keys(settings.store, generation)
        self._scripts = Scripts(redis)
        self._trends = TrendWriter(redis, self._keys)
        self._rate = decay_rate(settings.fold.half_life_days)
        self._neighbours = settings.store.neighbours
        self._backward = settings.rank.backward
        self._list_bound = list_bound(settings.store)
        self._proven = settings.explore.events
        # All of one Redis falls back together, or nothing of it.
        self._undo_seconds = settings.store.undo_seconds if isinstance(redis, ClusterRedis) else 0

    def shard_of(self, ids: U64) -> I64:
        """Shard numbers of items, or of users."""
        return self._keys.shard_of(ids)

    async def read_marks(self, topic: str, partition: int) -> Marks:
        """The marks of a partition in all shards, once users are nowhere ahead of counts.

        Raises UsersAhead where they are and cannot be taken back.
        """
        while True:
            marks = await self._read_marks(topic, partition)
            if not marks.users_ahead:
                return marks
            await take_back(self._scripts, self._keys, topic, partition, marks)

    async def read_catalogue_marks(self, topic: str, partition: int) -> I64:
        """The marks (shards,) of a partition of the catalogue's topic."""
        return await read_item_marks(self._redis, self._keys, topic, partition)

    async def read_sessions(
        self, targets: Sequence[Target], users: U64
    ) -> tuple[SessionTable, I64]:
        """Histories of users (rising), and the user shards' marks (parts, shards) at which they are
        true.
        """
        keys = self._keys
        shard = keys.shard_of(users)
        order = np.argsort(shard, kind="stable")
        names = keys.sessions(users[order])
        bounds = np.searchsorted(shard[order], np.arange(keys.shards + 1)).tolist()
        # One MGET a shard is atomic, so its sessions and its marks belong together.
        parts = len(targets)
        answers = await self._read(
            [
                [*mark_keys(prefix, targets), *names[bounds[s] : bounds[s + 1]]]
                for s, prefix in enumerate(keys.users)
            ]
        )
        values = [value for answer in answers for value in answer[parts:]]
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        table = unpack_joined(users, values, place)
        marks = [marks_of([answer[part] for answer in answers]) for part in range(parts)]
        return table, np.array(marks)

    async def commit_items(
        self,
        targets: Sequence[Target],
        marks: Sequence[Marks],
        items: ItemDeltas,
        totals: TotalDeltas,
        names: dict[int, bytes],
        lesson: Lesson | None = None,
    ) -> Outcome:
        """Step 1: item shards and totals. `targets` are the batch's parts, of one partition each,
        and `marks` what is known of these. `names` are ids of items that may be new, by hash;
        `lesson` is what the learned ranking has taken from the batch.
        """
        keys, first = self._keys, targets[0]
        calls = self._item_calls(targets, marks, items, names)
        calls.append(self._totals_call(targets, marks, totals, lesson))
        commits = len(calls)
        for prefix in keys.users:
            key = keys.batch_pass(prefix, first.topic, first.partition)
            calls.append(("leave_pass", [key], [first.batch_pass]))
        replies = await self._scripts.call(calls)
        if lesson is not None:
            lesson.taken = replies[commits - 1][2:] == [1]
        return Outcome.of([*replies[: commits - 1], replies[commits - 1][:2]])

    async def commit_users(
        self, targets: Sequence[Target], marks: Sequence[Marks], sessions: SessionTable
    ) -> Outcome:
        """Step 2: user shards, once every item shard contains the batch; with step 1's targets."""
        keys, first = self._keys, targets[0]
        shard = keys.shard_of(sessions.user)
        records = pack_records(sessions, this_day(), keys.session_heads(), shard)
        calls: list[Call] = []
        for s, prefix in enumerate(keys.users):
            names, offsets = fenced(prefix, targets, [int(one.users[s]) for one in marks])
            left = keys.batch_pass(prefix, first.topic, first.partition)
            arguments = [*offsets, records[s], self._undo_seconds, first.batch_pass]
            calls.append(("commit_users", [*names, left], arguments))
        return Outcome.of(await self._scripts.call(calls))

    async def commit_catalogue(
        self, target: Target, marks: I64, entries: Sequence[CatalogueEntry]
    ) -> Outcome:
        """Set or delete catalogue entries, the last one of an item counting.

        Unlike increments, they may reach back behind a shard's mark: setting an entry to what it
        is by the end of the batch is right however much of the batch the shard contains. An item
        that few events are known of becomes a new one (`exposures.py`).
        """
        keys = self._keys
        final = {entry.item: entry for entry in entries}
        items = np.array(list(final), np.uint64)
        shards = keys.shard_of(items).tolist()
        # What an item's words were: nobody else may have changed them where the marks still hold.
        before: list[bytes | None] = await self._redis.mget(keys.catalogue(items)) if final else []  # type: ignore[assignment]
        old = dict(zip(final, before, strict=True))
        calls: list[Call] = []
        for s, prefix in enumerate(keys.items):
            mine = [item for item, shard in zip(final, shards, strict=True) if shard == s]
            fence, offsets = fenced(prefix, [target], [int(marks[s])])
            arguments = [
                *offsets,
                np.array(mine, "<u8").tobytes(),
                np.array([len(final[item].value or b"") for item in mine], "<u4").tobytes(),
                b"".join(final[item].value or b"" for item in mine),
                self._proven,
                "".join("01"[final[item].available] for item in mine),
                *_word_changes([(item, old[item], final[item].value) for item in mine]),
            ]
            calls.append(("commit_catalogue", fence, arguments))
        return Outcome.of(await self._scripts.call(calls))

    async def compact(self, lists: list[bytes]) -> Compacted:
        """Replace lists, given by their keys, by their sums, and roll up logs of trending."""
        replaced = 0
        grown: list[bytes] = []
        for prefix in self._keys.items:
            if self._keys.trend_log(prefix) in lists:
                replaced += await self._trends.roll_up(self._scripts, prefix)
        # Each once: the script would append what follows twice.
        once = sorted({key for key in lists if not self._trends.is_log(key)})
        for begin in range(0, len(once), _COMPACTED_AT_ONCE):
            some = await self._compact(once[begin : begin + _COMPACTED_AT_ONCE])
            replaced += some.replaced
            grown += some.grown
        return Compacted(replaced, grown)

    async def _compact(self, lists: list[bytes]) -> Compacted:
        values: list[bytes | None] = await self._redis.mget(lists)  # type: ignore[assignment]
        best = sum_lists(values, self._rate).keep_best(self._neighbours, self._backward)
        packed = best.pack()
        calls: list[Call] = []
        for prefix in self._keys.items:
            mine = [
                (key, old, new)
                for key, old, new in zip(lists, values, packed, strict=True)
                if old and key.startswith(prefix)
            ]
            if mine:
                sums = [one for _, old, new in mine for one in (old, new)]
                calls.append(("compact", [key for key, _, _ in mine], [self._list_bound, *sums]))
        replies = await self._scripts.call(calls)
        return Compacted(sum(n for n, _ in replies), [key for _, grown in replies for key in grown])

    def _item_calls(
        self,
        targets: Sequence[Target],
        marks: Sequence[Marks],
        deltas: ItemDeltas,
        names: dict[int, bytes],
    ) -> list[Call]:
        keys = self._keys
        viewed, bought = (
            pack_increments(increments, self._rate, keys.heads(letter))
            for letter, increments in ((VIEWED, deltas.increments), (BOUGHT, deltas.bought))
        )
        additions = pack_additions(deltas, names, keys.heads(STATISTICS))
        trend = pack_rows(deltas.trend, keys.shard_of(deltas.trend.item), keys.shards)
        calls: list[Call] = []
        for s, prefix in enumerate(keys.items):
            fence, offsets = fenced(prefix, targets, [int(one.items[s]) for one in marks])
            arguments = [
                *offsets,
                viewed[s] + bought[s],
                self._list_bound,
                additions[s],
                repr(RECENT * self._rate),
                self._proven,
                trend[s],
                self._trends.bound(prefix),
            ]
            calls.append(("commit_items", fence, arguments))
        return calls

    def _totals_call(
        self,
        targets: Sequence[Target],
        marks: Sequence[Marks],
        deltas: TotalDeltas,
        lesson: Lesson | None,
    ) -> Call:
        touched = np.flatnonzero(deltas.opportunities)
        cells = np.zeros(len(touched), _CELL)
        cells["cell"] = touched
        cells["opportunities"] = deltas.opportunities[touched]
        cells["hits"] = deltas.hits[touched]
        fence, offsets = fenced(self._keys.stats, targets, [one.totals for one in marks])
        return (
            "commit_totals",
            fence,
            [
                *offsets,
                deltas.sessions,
                deltas.events,
                deltas.latest,
                cells.tobytes(),
                *((lesson.continues, lesson.model) if lesson is not None else (b"", b"")),
            ],
        )

    async def _read_marks(self, topic: str, partition: int) -> Marks:
        keys = self._keys
        # Users first: they never run ahead of items, so what is read later is never behind.
        users, counts = [
            marks_of([one for (one,) in await self._read(names)])
            for names in (
                [[keys.mark(prefix, topic, partition)] for prefix in keys.users],
                [[keys.mark(prefix, topic, partition)] for prefix in [*keys.items, keys.stats]],
            )
        ]
        return Marks(items=counts[:-1], users=users, totals=int(counts[-1]))

    async def _read(self, groups: list[list[bytes]]) -> list[list[bytes | None]]:
        pipeline = self._redis.pipeline(transaction=False)
        for group in groups:
            pipeline.mget(group)
        answers: list[list[bytes | None]] = await pipeline.execute()
        return answers


def _word_changes(
    entries: Sequence[tuple[int, bytes | None, bytes | None]],
) -> tuple[bytes, bytes]:
    """What leaves the index of words, and what enters it, as `lua/commit_catalogue.lua` takes both,
    for items (hashes) with their entries before and after.
    """
    leave: list[bytes] = []
    enter: list[bytes] = []
    for item, before, after in entries:
        name = item.to_bytes(8, "little")
        old, new = entry_words(before), entry_words(after)
        for out, words in ((leave, old - new), (enter, new - old)):
            for word in sorted(words):
                member = word.encode() + b"\0" + name
                out += bytes([len(member)]), member
    return b"".join(leave), b"".join(enter)
