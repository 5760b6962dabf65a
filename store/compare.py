"""How far two generations differ: totals, and neighbour lists and histories of a sample."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
from redis.asyncio import Redis

from config.settings import Settings
from processors.cooccurrence import decay_rate
from store.generations import Generation
from store.keys import VIEWED, Keys
from store.lists import ItemLists, sum_lists
from store.vectors import unpack_sessions
from streams.columns import F64, U64

__all__ = ["Compared", "Difference", "Side", "compare", "compare_sides"]

_AT_ONCE = 500
_TOP = 20
_EQUAL = 1e-3
"""Counts are kept as 32-bit floats, each decayed at other moments."""


@dataclass(slots=True)
class Compared:
    """Items, or users, of a sample."""

    looked_at: int = 0
    missing: int = 0
    """Those that are known to one of the two alone."""
    equal: int = 0
    """Those that are the same in both."""


@dataclass(slots=True)
class Difference:
    """What was found."""

    totals: tuple[dict[str, int], dict[str, int]]
    """Sessions, events and the latest event's time in seconds since 1970, of both."""
    items: Compared = field(default_factory=Compared)
    users: Compared = field(default_factory=Compared)
    shared_top: float = 1.0
    """Mean share of an item's nearest 20 neighbours that both have."""


@dataclass(frozen=True, slots=True)
class Side:
    """One generation, wherever it is."""

    redis: Redis
    keys: Keys
    rate: float
    backward: float

    @classmethod
    def of(cls, redis: Redis, settings: Settings, one: Generation) -> Side:
        """Raises SettingsError."""
        own = one.overlaid(settings)
        rate = decay_rate(own.fold.half_life_days)
        return cls(redis, Keys(own.store, one.number), rate, own.rank.backward)


async def compare(
    redis: Redis, settings: Settings, one: Generation, other: Generation, most: int
) -> Difference:
    """Look at `most` items and as many users of each generation, in both.

    Raises redis.RedisError, StoreError and SettingsError.
    """
    return await compare_sides(Side.of(redis, settings, one), Side.of(redis, settings, other), most)


async def compare_sides(one: Side, other: Side, most: int) -> Difference:
    """The same of two that may be in different places. Raises redis.RedisError and StoreError."""
    sides = [one, other]
    found = Difference((await _totals(one), await _totals(other)))
    shares: list[float] = []

    async def look_at_items(some: U64) -> None:
        both = [
            sum_lists(await _values(side, side.keys.neighbours(some)), side.rate) for side in sides
        ]
        for place in range(len(some)):
            known = [
                _strengths(lists, place, side) for lists, side in zip(both, sides, strict=True)
            ]
            found.items.looked_at += 1
            if not len(known[0][0]) or not len(known[1][0]):
                found.items.missing += 1
                continue
            found.items.equal += _same(*known)
            shares.append(_shared(known[0], known[1]))

    async def look_at_users(some: U64) -> None:
        tables = [
            unpack_sessions(some, await _values(side, side.keys.sessions(some))) for side in sides
        ]
        for place in range(len(some)):
            rows = []
            for table in tables:
                span = slice(int(table.start[place]), int(table.start[place + 1]))
                columns = (table.time, table.item, table.event, table.tag, table.kind)
                rows.append([column[span].tolist() for column in columns])
            found.users.looked_at += 1
            if not rows[0][0] or not rows[1][0]:
                found.users.missing += 1
            else:
                found.users.equal += rows[0] == rows[1]

    for side in sides:
        await _sample(side, side.keys.heads(VIEWED), most, look_at_items)
        await _sample(side, side.keys.session_heads(), most, look_at_users)
    if shares:
        found.shared_top = float(np.mean(shares))
    return found


async def _values(side: Side, keys: list[bytes]) -> list[bytes | None]:
    found: list[bytes | None] = await side.redis.mget(keys)  # type: ignore[assignment]
    return found


async def _totals(side: Side) -> dict[str, int]:
    fields: dict[bytes, bytes] = await side.redis.hgetall(side.keys.stats + b"t")  # type: ignore[assignment]
    return {name: int(fields.get(name.encode(), 0)) for name in ("sessions", "events", "latest")}


async def _sample(
    side: Side,
    heads: list[bytes],
    most: int,
    look: Callable[[U64], Awaitable[None]],
) -> None:
    """Hand over the hashes in keys that begin as given: those that SCAN comes across first, which
    is by the hash of the key and so at random.
    """
    seen = 0
    some: list[int] = []
    async for key in side.redis.scan_iter(match=side.keys.own_pattern, count=_AT_ONCE):
        head = key[:-8]
        if head not in heads:
            continue
        some.append(int.from_bytes(key[-8:], "little"))
        seen += 1
        if len(some) == _AT_ONCE or seen == most:
            await look(np.array(some, np.uint64))
            some.clear()
        if seen == most:
            return
    if some:
        await look(np.array(some, np.uint64))


def _strengths(lists: ItemLists, place: int, side: Side) -> tuple[U64, F64]:
    """Neighbours, rising, and their shares of what the item's neighbours have in all."""
    span = slice(int(lists.start[place]), int(lists.start[place + 1]))
    weight = lists.forward[span] + side.backward * lists.backward[span]
    total = weight.sum()
    return lists.neighbour[span], weight / total if total else weight


def _same(one: tuple[U64, F64], other: tuple[U64, F64]) -> bool:
    return np.array_equal(one[0], other[0]) and np.allclose(one[1], other[1], rtol=_EQUAL, atol=0)


def _shared(one: tuple[U64, F64], other: tuple[U64, F64]) -> float:
    tops = [set(ids[np.lexsort((ids, -weight))][:_TOP].tolist()) for ids, weight in (one, other)]
    return len(tops[0] & tops[1]) / max(len(tops[0]), len(tops[1]))
