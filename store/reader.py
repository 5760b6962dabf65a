"""What servers read: sessions, neighbour lists, names, trending. One MGET a step.

Parsed lists are kept for `http.list_cache_ms`, so an answer is at most that much older than Redis;
what changes slowly (totals, repeat prior, trending) is read once a second; names never change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from redis.asyncio import Redis
from redis.exceptions import RedisError
from xxhash import xxh3_64_intdigest

from config.settings import Settings
from processors.cooccurrence import decay_rate
from processors.popularity import RECENT, WINDOWS
from processors.repeats import repeat_prior
from processors.session import SessionTable
from serving.candidates import NOTHING, Neighbours, Popularity
from serving.model import Model
from serving.rank import Knowledge
from store.availability import Availability
from store.cluster_wire import wire_to
from store.commit import marks_of, whole_marks
from store.exposures import NewItems, read_new_items
from store.found import Changes, ItemText, Trending
from store.held import Held, HeldList
from store.interner import Interner
from store.keys import (
    BOUGHT,
    CATALOGUE,
    FIRST_GENERATION,
    SESSION,
    STATISTICS,
    VIEWED,
    Keys,
)
from store.layout import name_of, unpack_cells, unpack_statistics
from store.lists import ItemLists, sum_lists, weigh_lists
from store.search import TitleSearch
from store.shared import Refreshed
from store.statistics import Statistics
from store.taught import unpack_taught
from store.trends import read_trending
from store.vectors import unpack_sessions
from streams.columns import I64, U64
from streams.item import category_of, facts_of, id_of

__all__ = ["StoreReader"]

_SLOW_SECONDS = 1.0
_GATHER_SECONDS = 0.03
_FAR_EXPONENT = 0.02
"""Past e to this power the moment to which weights decay is moved on."""
_KEPT_LISTS = 50_000


class StoreReader:
    """Everything that answers are made of. Raises redis.RedisError as redis-py does."""

    def __init__(
        self, redis: Redis, settings: Settings, generation: int = FIRST_GENERATION
    ) -> None:
        self.interner = Interner()
        self._redis = redis
        self._wire = wire_to(redis, settings.redis.timeout_seconds)
        self._keys = Keys(settings.store, generation)
        self.availability = Availability(redis, self._keys)
        """Reads which items of the catalogue are not available."""
        self.titles = TitleSearch(redis, self._keys)
        """Finds items of the catalogue by their titles."""
        self._read_items = self._wire.reads(self._keys.items)
        self._read_users = self._wire.reads(self._keys.users)
        self._rate = decay_rate(settings.fold.half_life_days)
        self._power, self._backward = settings.rank.count_power, settings.rank.backward
        self._list_seconds = settings.http.list_cache_ms / 1000
        self._lists: dict[int, HeldList] = {}
        self._names: dict[int, str] = {}
        self._category = settings.rank.category
        self._statistics = Statistics()
        self._due: list[I64] = []
        self._reading_due: asyncio.Task[None] | None = None
        # All weights are decayed to one moment, close enough to now.
        self._moment: int | None = None
        self._known = Refreshed(self._read_known, _SLOW_SECONDS)
        self._new = Refreshed(
            partial(read_new_items, redis, self._keys, settings.explore.exposures), _SLOW_SECONDS
        )
        self._trending = {
            window: Refreshed(partial(self._read_trending, window), _SLOW_SECONDS)
            for window in WINDOWS
        }

    async def vectors(self, users: Sequence[int]) -> list[bytes | None]:
        """Session vectors of users (hashes) in their order (`store/vectors.py`), None where nothing
        is known.
        """
        return await self._read_users((SESSION, np.array(users, np.uint64))) if users else []

    async def history(self, user: int) -> SessionTable:
        """A table of one user (a hash), without events where nothing is known."""
        return unpack_sessions(np.array([user], np.uint64), await self.vectors([user]))

    async def neighbours(self, items: U64) -> list[Neighbours]:
        """Neighbours of items, NOTHING where none are known."""
        now = time.monotonic()
        wanted = items.tolist()
        found: dict[int, Neighbours] = {}
        missing = []
        for item in wanted:
            kept = self._lists.get(item)
            if kept is not None and kept.until >= now:
                found[item] = kept.list
            else:
                missing.append(item)
        if missing:
            missing = list(dict.fromkeys(missing))
            found.update(zip(missing, await self._read_lists(missing), strict=True))
        return [found[item] for item in wanted]

    async def bought(self, item: int) -> Neighbours:
        """What is bought together with an item (a hash)."""
        await self._known.get()
        values = await self._read_items((BOUGHT, np.array([item], np.uint64)))
        return self._parse(values)[0]

    async def popularity(self, index: I64) -> Popularity:
        """How popular items, given by small ints, are, as old as `store/statistics.py` says."""
        now = time.monotonic()
        stale, due = self._statistics.look(index, now)
        if len(stale):
            await self._read_counts(np.unique(stale))
        if len(due):
            self._due.append(due)
            if self._reading_due is None:
                self._reading_due = asyncio.create_task(self._read_due())
        return Popularity(*self._statistics.of(index, self._moment or 0, RECENT * self._rate))

    async def knowledge(self) -> Knowledge:
        """Totals, repeat prior and the learned ranking where it leads, at most two seconds old."""
        return await self._known.get()

    async def taught(self) -> bytes | None:
        """The learned ranking as it lies in Redis (`store/taught.py`)."""
        found = await self._wire.mget([self._keys.taught])
        return found[0]

    async def texts(self, items: U64) -> list[ItemText]:
        """Ids and catalogue entries of items, in order."""
        wanted = items.tolist()
        if not wanted:
            return []
        unnamed = [i for i in wanted if i not in self._names]
        ids = np.array(unnamed, np.uint64)
        values = await self._read_items((STATISTICS, ids), (CATALOGUE, items))
        for item, value in zip(unnamed, values, strict=False):
            if name := name_of(value):
                self._names[item] = name
        entries = values[len(unnamed) :]
        for item, entry in zip(wanted, entries, strict=True):
            # Of an item without events, only its entry knows the name.
            if entry is not None and item not in self._names:
                self._names[item] = id_of(entry)
        return [
            ItemText(self._names.get(item, ""), entry)
            for item, entry in zip(wanted, entries, strict=True)
        ]

    async def trending(self, window: str) -> Trending:
        """Items of a window of `processors.popularity.WINDOWS`, at most two seconds old.

        The window ends with the latest event, so a quiet shop still shows its last busy hour.
        """
        return await self._trending[window].get()

    async def new_items(self) -> NewItems:
        """Items that may be shown to be tried, at most two seconds old."""
        return await self._new.get()

    async def catalogue_changes(self) -> list[Changes]:
        """How the catalogue has changed so far, by item shard."""
        found = await self._wire.mget(self._keys.changes)
        return [
            Changes(int.from_bytes(value[:8], "little"), np.frombuffer(value, "<u8", offset=8))
            if value
            else Changes(0, np.zeros(0, np.uint64))
            for value in found
        ]

    async def item(self, item: int) -> ItemLists:
        """All that is counted for one item (a hash)."""
        values = await self._read_items((VIEWED, np.array([item], np.uint64)))
        return sum_lists(values, self._rate)

    async def counts(self, item: int) -> tuple[int, int]:
        """Sessions with an item (a hash), and events of it."""
        values = await self._read_items((STATISTICS, np.array([item], np.uint64)))
        found = unpack_statistics(values)[0]
        return int(found["sessions"]), int(found["events"])

    async def totals(self) -> dict[str, int]:
        """Sessions, events, and the latest event's time in seconds since 1970."""
        fields: dict[bytes, bytes] = await self._redis.hgetall(self._keys.stats + b"t")  # type: ignore[assignment]
        return {name.decode(): int(value) for name, value in fields.items()}

    def held(self) -> Held:
        """What was read and is still held, at any time."""
        return Held(
            self.interner,
            self._lists,
            self._statistics,
            self._known,
            self._trending,
            lambda: (self._moment or 0, RECENT * self._rate),
        )

    def forget(self) -> None:
        """Read everything but names anew: where weeks pass in seconds, a second is long."""
        self._known.forget()
        self._lists.clear()
        self._statistics.forget()

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """What is read by itself, to be ended before the connection is closed."""
        found: set[asyncio.Task[Any]] = {*self._known.tasks, *self._new.tasks}
        for one in self._trending.values():
            found |= one.tasks
        return found if self._reading_due is None else {*found, self._reading_due}

    async def contained(self, topic: str, partitions: Sequence[int]) -> list[int]:
        """The last offset of each partition that every shard contains; -1 for none of it."""
        found = await self._wire.mget(whole_marks(self._keys, topic, partitions))
        marks = marks_of(found).reshape(len(partitions), -1)
        return [int(some.min()) for some in marks]

    async def ping(self) -> None:
        """Raises when the store does not say what every answer needs."""
        # Over the connection that answers are read through, which is made anew where it broke.
        await self._wire.mget([self._keys.stats + b"t"])
        await self._known.get()

    async def _read_counts(self, index: I64) -> None:
        """Read statistics of items, given by small ints, and keep them for a while."""
        values = await self._read_items((STATISTICS, self.interner.ids(index)))
        found = unpack_statistics(values)
        self._statistics.put(index, found, time.monotonic())

    async def _read_due(self) -> None:
        """Read again what answers have noted, once there is enough of it."""
        try:
            await asyncio.sleep(_GATHER_SECONDS)
            due, self._due = self._due, []
            await self._read_counts(np.concatenate(due))
        except RedisError:
            pass  # whoever needs them asks again
        finally:
            self._reading_due = None

    async def _read_lists(self, items: list[int]) -> list[Neighbours]:
        """Read and parse lists of items (hashes), and keep them for a while."""
        if not self._moment:  # nothing was counted yet when totals were read last
            await self._read_known()
        until = time.monotonic() + self._list_seconds
        hashes = np.array(items, np.uint64)
        # Whoever asks for an item's neighbours wants to know how often it occurs, too.
        stale = np.concatenate(self._statistics.look(self.interner.index(hashes), time.monotonic()))
        values = await self._read_items((VIEWED, hashes), (STATISTICS, self.interner.ids(stale)))
        self._statistics.put(stale, unpack_statistics(values[len(items) :]), time.monotonic())
        values = values[: len(items)]
        if len(self._lists) > _KEPT_LISTS:
            self._lists.clear()
        changed: dict[int, tuple[int, bytes | None]] = {}
        for item, value in zip(items, values, strict=True):
            digest = xxh3_64_intdigest(value) if value else 0
            kept = self._lists.get(item)
            # Most lists are what they were a moment ago: hashing one is quicker than parsing it.
            if kept is not None and kept.digest == digest:
                kept.until = until
            else:
                changed[item] = digest, value
        if changed:
            parsed = self._parse([value for _, value in changed.values()])
            for (item, (digest, _)), one in zip(changed.items(), parsed, strict=True):
                self._lists[item] = HeldList(until, digest, one)
        return [self._lists[item].list for item in items]

    def _parse(self, values: list[bytes | None]) -> list[Neighbours]:
        # Not 1970, where nothing is counted yet: what comes just now would overflow there.
        moment = self._moment or int(time.time())
        found = weigh_lists(values, self._rate, moment, self._backward, self._power)
        index = self.interner.index(found.neighbour)
        parts = zip(pairwise(found.start), found.after, found.before, strict=True)
        return [
            Neighbours(index[a:b], found.strength[a:b], found.counts[:, a:b], after, before)
            if a < b
            else NOTHING
            for (a, b), after, before in parts
        ]

    async def _read_known(self) -> Knowledge:
        """Totals and repeat prior; moves the moment to which weights decay when it is far off."""
        prefix = self._keys.stats
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hgetall(prefix + b"t")
        for key in (prefix + b"o", prefix + b"h", self._keys.taught):
            pipeline.get(key)
        totals, opportunities, hits, value = await pipeline.execute()
        latest = int(totals.get(b"latest", 0))
        if self._moment is None or abs(latest - self._moment) * self._rate > _FAR_EXPONENT:
            self._moment = latest
            self._lists.clear()
        taught = unpack_taught(value)
        return Knowledge(
            int(totals.get(b"sessions", 0)),
            int(totals.get(b"events", 0)),
            repeat_prior(unpack_cells(opportunities), unpack_cells(hits)),
            Model.of(taught.parameters) if taught.leads else None,
        )

    async def _read_trending(self, window: str) -> Trending:
        # Asked anew: what is kept of it may be as old as trending itself may get.
        latest = int(await self._redis.hget(self._keys.stats + b"t", "latest") or 0)
        ids, weight = await read_trending(self._redis, self._keys, window, latest)
        return Trending(ids, weight, await self._categories(ids))

    async def _categories(self, items: U64) -> list[str | None]:
        if not len(items):
            return []
        entries = await self._read_items((CATALOGUE, items))
        return [
            category_of(facts_of(entry), self._category) if entry else None for entry in entries
        ]
