"""What servers read: sessions, neighbour lists, names, trending. One MGET a step.

Requests of the same moment share their MGET (`SharedReads`). Parsed lists are kept for
`http.list_cache_ms`, so an answer is at most that much older than Redis; what changes slowly
(totals, repeat prior, trending) is read once a second at most; names never change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis

from config.settings import Settings
from processors.cooccurrence import decay_rate
from processors.popularity import WINDOWS, buckets_of
from processors.repeats import CELLS, repeat_prior
from processors.session import SessionTable
from serving.rank import Knowledge, Neighbours
from store.keys import Keys
from store.layout import ItemLists, sum_lists, unpack_sessions
from streams.columns import U64

__all__ = ["Interner", "ItemText", "SharedReads", "StoreReader", "Trending"]

_SLOW_SECONDS = 1.0
_TREND_DEPTH = 200
_KEPT_LISTS = 200_000


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


class SharedReads:
    """Puts the keys that several requests ask for in one turn of the event loop into one MGET."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[tuple[list[bytes], asyncio.Future[list[bytes | None]]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of keys, in order. Raises redis.RedisError."""
        if not keys:
            return []
        future: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append((keys, future))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._start)
        return await future

    def _start(self) -> None:
        waiting, self._waiting = self._waiting, []
        task = asyncio.get_running_loop().create_task(self._read(waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(
        self, waiting: list[tuple[list[bytes], asyncio.Future[list[bytes | None]]]]
    ) -> None:
        place: dict[bytes, int] = {}
        for keys, _ in waiting:
            for key in keys:
                place.setdefault(key, len(place))
        try:
            values: list[bytes | None] = await self._redis.mget(list(place))  # type: ignore[assignment]
        except Exception as error:  # whoever waits gets it
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        for keys, future in waiting:
            if not future.done():
                future.set_result([values[place[key]] for key in keys])


class StoreReader:
    """Everything that answers are made of. Raises redis.RedisError as redis-py does."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.interner = Interner()
        self._redis = redis
        self._keys = Keys(settings.store)
        self._shared = SharedReads(redis)
        self._rate = decay_rate(settings.fold.half_life_days)
        self._power = settings.rank.count_power
        self._list_seconds = settings.http.list_cache_ms / 1000
        self._lists: dict[int, tuple[float, Neighbours | None]] = {}
        self._names: dict[int, str] = {}
        # A decayed weight is only ever compared with others, so any fixed moment will do.
        self._moment = int(time.time())
        self._knowledge: tuple[float, Knowledge, int] | None = None
        self._trending: dict[str, tuple[float, Trending]] = {}

    async def history(self, user: int) -> SessionTable:
        """A table of one user (a hash), without events where nothing is known."""
        users = np.array([user], np.uint64)
        return unpack_sessions(users, await self._shared.get(self._keys.sessions(users)))

    async def neighbours(self, items: U64) -> list[Neighbours | None]:
        """Neighbours of items; None where nothing is known of one."""
        now = time.monotonic()
        wanted = items.tolist()
        # Held on to: while the rest is read, another request may clear the kept lists.
        found = {
            i: kept[1]
            for i in wanted
            if (kept := self._lists.get(i)) is not None and kept[0] >= now
        }
        missing = [i for i in wanted if i not in found]
        if missing:
            ids = np.array(missing, np.uint64)
            values = await self._shared.get(self._keys.neighbours(ids))
            self._keep(missing, values, now + self._list_seconds)
            found |= {i: self._lists[i][1] for i in missing}
        return [found[i] for i in wanted]

    async def knowledge(self) -> Knowledge:
        """Totals and repeat prior, at most a second old."""
        return (await self._known())[0]

    async def texts(self, items: U64) -> list[ItemText]:
        """Ids and catalogue entries of items, in order."""
        wanted = items.tolist()
        unnamed = [i for i in wanted if i not in self._names]
        ids = np.array(unnamed, np.uint64)
        values = await self._shared.get(self._keys.names(ids) + self._keys.catalogue(items))
        for item, name in zip(unnamed, values, strict=False):
            if name is not None:
                self._names[item] = name.decode()
        entries = values[len(unnamed) :]
        return [
            ItemText(self._names.get(item, ""), entry)
            for item, entry in zip(wanted, entries, strict=True)
        ]

    async def trending(self, window: str) -> Trending:
        """Items of a window of `processors.popularity.WINDOWS`, at most a second old.

        The window ends with the latest event, so a quiet shop still shows its last busy hour.
        """
        now = time.monotonic()
        kept = self._trending.get(window)
        if kept is None or kept[0] < now:
            _, latest = await self._known()
            kept = now + _SLOW_SECONDS, await self._read_trending(window, latest)
            self._trending[window] = kept
        return kept[1]

    async def item(self, item: int) -> ItemLists:
        """All that is counted for one item (a hash)."""
        keys = self._keys.neighbours(np.array([item], np.uint64))
        return sum_lists(await self._shared.get(keys), self._rate)

    async def totals(self) -> dict[str, int]:
        """Sessions, events, and the latest event's time in seconds since 1970."""
        fields: dict[bytes, bytes] = await self._redis.hgetall(self._keys.stats + b"t")  # type: ignore[assignment]
        return {name.decode(): int(value) for name, value in fields.items()}

    async def ping(self) -> None:
        """Raises when the store does not answer."""
        await self._redis.ping()

    def _keep(self, items: Sequence[int], values: list[bytes | None], until: float) -> None:
        if len(self._lists) > _KEPT_LISTS:
            self._lists.clear()
        lists = sum_lists(values, self._rate)
        strength = lists.weight * np.exp(self._rate * (lists.time - self._moment))
        strength **= self._power
        index = self.interner.index(lists.neighbour)
        starts = lists.start.tolist()
        for place, (item, value) in enumerate(zip(items, values, strict=True)):
            mine = slice(starts[place], starts[place + 1])
            self._lists[item] = (
                until,
                Neighbours(index[mine], strength[mine], int(lists.sessions[place]))
                if value
                else None,
            )

    async def _known(self) -> tuple[Knowledge, int]:
        now = time.monotonic()
        if self._knowledge is None or self._knowledge[0] < now:
            prefix = self._keys.stats
            pipeline = self._redis.pipeline(transaction=False)
            for letter in (b"t", b"o", b"h"):
                pipeline.hgetall(prefix + letter)
            totals, *cells = await pipeline.execute()
            opportunities, hits = (_cells(found) for found in cells)
            knowledge = Knowledge(
                int(totals.get(b"sessions", 0)), repeat_prior(opportunities, hits)
            )
            latest = int(totals.get(b"latest", 0))
            self._knowledge = now + _SLOW_SECONDS, knowledge, latest
        return self._knowledge[1:]

    async def _read_trending(self, window: str, latest: int) -> Trending:
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
