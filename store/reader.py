"""What servers read: sessions, neighbour lists, names, trending. One MGET a step.

Requests of the same moment share their MGET (`shared.py`). Parsed lists are kept for
`http.list_cache_ms`, so an answer is at most that much older than Redis; what changes slowly
(totals, repeat prior, trending) is read once a second; names never change.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis
from xxhash import xxh3_64_intdigest

from config.settings import Settings
from processors.cooccurrence import decay_rate
from processors.popularity import WINDOWS, buckets_of
from processors.repeats import CELLS, repeat_prior
from processors.session import SessionTable
from serving.rank import Knowledge, Neighbours
from store.keys import Keys
from store.layout import ItemLists, sum_lists, sum_strengths, unpack_session
from store.shared import Refreshed, Together
from streams.columns import U64

__all__ = ["Interner", "ItemText", "StoreReader", "Trending"]

_SLOW_SECONDS = 1.0
_FAR_EXPONENT = 100.0
"""Past e to this power the moment to which weights decay is moved on."""
_TREND_DEPTH = 200
_KEPT_LISTS = 50_000


@dataclass(frozen=True, slots=True)
class ItemText:
    """How an item is shown."""

    item_id: str
    catalogue: bytes | None
    """Its catalogue entry, JSON."""


@dataclass(frozen=True, slots=True)
class Trending:
    """Items of a window in falling order of weight."""

    item: U64
    weight: npt.NDArray[np.float64]


@dataclass(slots=True)
class _Kept:
    """A parsed list."""

    until: float
    """When it has to be read again."""
    digest: int
    """Of what it was parsed from."""
    list: Neighbours | None


class Interner:
    """Small ints for the 64-bit hashes that this process has met, so that scores fit an array."""

    def __init__(self) -> None:
        self._index: dict[int, int] = {}
        self._ids = np.zeros(1024, np.uint64)

    def index(self, ids: U64) -> npt.NDArray[np.int64]:
        """Small ints of hashes, new ones where needed."""
        known = self._index
        found = [known.get(i, -1) for i in ids.tolist()]
        if -1 in found:
            for place, value in enumerate(ids.tolist()):
                if found[place] < 0:
                    found[place] = known.setdefault(value, len(known))
            if len(known) > len(self._ids):
                self._ids = np.resize(self._ids, max(2 * len(self._ids), len(known)))
            self._ids[found] = ids
        return np.array(found, np.int64)

    def ids(self, index: npt.NDArray[np.int64]) -> U64:
        """The hashes behind small ints."""
        return self._ids[index]


class StoreReader:
    """Everything that answers are made of. Raises redis.RedisError as redis-py does."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.interner = Interner()
        self._redis = redis
        self._keys = Keys(settings.store)
        self._values = Together(self._read_values)
        self._read_together = Together(self._read_lists)
        self._rate = decay_rate(settings.fold.half_life_days)
        self._power = settings.rank.count_power
        self._list_seconds = settings.http.list_cache_ms / 1000
        self._lists: dict[int, _Kept] = {}
        self._names: dict[int, str] = {}
        # Decayed weights are only ever compared with each other, so any one moment will do.
        self._moment: int | None = None
        self._known = Refreshed(self._read_known, _SLOW_SECONDS)
        self._trending = {
            window: Refreshed(partial(self._read_trending, window), _SLOW_SECONDS)
            for window in WINDOWS
        }

    async def history(self, user: int) -> SessionTable:
        """A table of one user (a hash), without events where nothing is known."""
        users = np.array([user], np.uint64)
        return unpack_session(users, (await self._values.get(self._keys.sessions(users)))[0])

    async def neighbours(self, items: U64) -> list[Neighbours | None]:
        """Neighbours of items; None where nothing is known of one."""
        now = time.monotonic()
        wanted = items.tolist()
        found: dict[int, Neighbours | None] = {}
        missing = []
        for item in wanted:
            kept = self._lists.get(item)
            if kept is not None and kept.until >= now:
                found[item] = kept.list
            else:
                missing.append(item)
        found.update(zip(missing, await self._read_together.get(missing), strict=True))
        return [found[item] for item in wanted]

    async def knowledge(self) -> Knowledge:
        """Totals and repeat prior, at most two seconds old."""
        return await self._known.get()

    async def texts(self, items: U64) -> list[ItemText]:
        """Ids and catalogue entries of items, in order."""
        wanted = items.tolist()
        unnamed = [i for i in wanted if i not in self._names]
        ids = np.array(unnamed, np.uint64)
        values = await self._values.get(self._keys.names(ids) + self._keys.catalogue(items))
        for item, name in zip(unnamed, values, strict=False):
            if name is not None:
                self._names[item] = name.decode()
        entries = values[len(unnamed) :]
        return [
            ItemText(self._names.get(item, ""), entry)
            for item, entry in zip(wanted, entries, strict=True)
        ]

    async def trending(self, window: str) -> Trending:
        """Items of a window of `processors.popularity.WINDOWS`, at most two seconds old.

        The window ends with the latest event, so a quiet shop still shows its last busy hour.
        """
        return await self._trending[window].get()

    async def item(self, item: int) -> ItemLists:
        """All that is counted for one item (a hash)."""
        keys = self._keys.neighbours(np.array([item], np.uint64))
        return sum_lists(await self._values.get(keys), self._rate)

    async def totals(self) -> dict[str, int]:
        """Sessions, events, and the latest event's time in seconds since 1970."""
        fields: dict[bytes, bytes] = await self._redis.hgetall(self._keys.stats + b"t")  # type: ignore[assignment]
        return {name.decode(): int(value) for name, value in fields.items()}

    async def ping(self) -> None:
        """Raises when the store does not answer."""
        await self._redis.ping()

    async def _read_values(self, keys: list[bytes]) -> list[bytes | None]:
        values: list[bytes | None] = await self._redis.mget(keys)  # type: ignore[assignment]
        return values

    async def _read_lists(self, items: list[int]) -> list[Neighbours | None]:
        """Read and parse lists of items (hashes), and keep them for a while."""
        if self._moment is None:
            await self._known.get()
        until = time.monotonic() + self._list_seconds
        values = await self._read_values(self._keys.neighbours(np.array(items, np.uint64)))
        digests = [xxh3_64_intdigest(value) if value else 0 for value in values]
        if len(self._lists) > _KEPT_LISTS:
            self._lists.clear()
        changed = []
        for item, digest in zip(items, digests, strict=True):
            kept = self._lists.get(item)
            # Most lists are what they were a moment ago: hashing one is quicker than parsing it.
            if kept is not None and kept.digest == digest:
                kept.until = until
            else:
                changed.append(item)
        if changed:
            wanted = set(changed)
            parsed = self._parse([v for i, v in zip(items, values, strict=True) if i in wanted])
            fresh = dict(zip(changed, parsed, strict=True))
            for item, digest in zip(items, digests, strict=True):
                if item in fresh:
                    self._lists[item] = _Kept(until, digest, fresh[item])
        return [self._lists[item].list for item in items]

    def _parse(self, values: list[bytes | None]) -> list[Neighbours | None]:
        start, neighbour, strength, sessions = sum_strengths(values, self._rate, self._moment or 0)
        strength **= self._power
        index = self.interner.index(neighbour)
        starts = start.tolist()
        return [
            Neighbours(
                index[starts[place] : starts[place + 1]],
                strength[starts[place] : starts[place + 1]],
                count,
            )
            if values[place]
            else None
            for place, count in enumerate(sessions.tolist())
        ]

    async def _read_known(self) -> Knowledge:
        """Totals and repeat prior; moves the moment to which weights decay when it is far off."""
        prefix = self._keys.stats
        pipeline = self._redis.pipeline(transaction=False)
        for letter in (b"t", b"o", b"h"):
            pipeline.hgetall(prefix + letter)
        totals, *cells = await pipeline.execute()
        opportunities, hits = (_cells(found) for found in cells)
        latest = int(totals.get(b"latest", 0))
        if self._moment is None or abs(latest - self._moment) * self._rate > _FAR_EXPONENT:
            self._moment = latest
            self._lists.clear()
        return Knowledge(int(totals.get(b"sessions", 0)), repeat_prior(opportunities, hits))

    async def _read_trending(self, window: str) -> Trending:
        # Asked anew: what is kept of it may be as old as trending itself may get.
        latest = int(await self._redis.hget(self._keys.stats + b"t", "latest") or 0)
        granularity = WINDOWS[window]
        pipeline = self._redis.pipeline(transaction=False)
        for bucket in buckets_of(window, latest):
            for prefix in self._keys.items:
                key = self._keys.trend(prefix, granularity, bucket)
                pipeline.zrevrange(key, 0, _TREND_DEPTH - 1, withscores=True)
        rows = [row for answer in await pipeline.execute() for row in answer]
        items = np.frombuffer(b"".join(row[0] for row in rows), "<u8").astype(np.uint64)
        ids, code = np.unique(items, return_inverse=True)
        weight = np.bincount(code, [row[1] for row in rows], len(ids)).astype(np.float64)
        order = np.lexsort((ids, -weight))
        return Trending(ids[order], weight[order])


def _cells(found: dict[bytes, bytes]) -> npt.NDArray[np.float64]:
    cells = np.zeros(CELLS)
    for cell, count in found.items():
        cells[int(cell)] = int(count)
    return cells
