"""Reads of the hot path from a Redis Cluster: one MGET for each shard, all of one node together.

Answers that point elsewhere (MOVED, ASK) are followed. While a slot is being moved key by key, its
MGET may find some keys here and some there (TRYAGAIN): then each key is asked for by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import hiredis
import numpy as np
from redis.asyncio import Redis
from redis.exceptions import AskError, MovedError, RedisError, TryAgainError
from redis.exceptions import TimeoutError as RedisTimeoutError

from store.cluster import LOST, Address, ClusterRedis, slot_of
from store.mget import Mget
from store.wire import Values, Wanted, Wire
from streams.columns import U64

__all__ = ["ClusterWire", "wire_to"]

_HOPS = 5


@dataclass(frozen=True, slots=True)
class _Part:
    """One MGET, of keys in one slot."""

    slot: int
    command: bytes
    singles: Callable[[], list[bytes]]
    """The same, key by key."""


class ClusterWire:
    """As `Wire`, through the nodes' own."""

    def __init__(self, redis: ClusterRedis, seconds: float) -> None:
        self._redis = redis
        self._seconds = seconds
        self._wires: dict[Address, Wire] = {}

    def reads(self, prefixes: Sequence[bytes]) -> Callable[..., Awaitable[Values]]:
        """See `Wire.reads`."""
        mget = Mget(prefixes)
        slots = [slot_of(prefix) for prefix in prefixes]

        def part(shard: int, wanted: Sequence[Wanted]) -> _Part:
            def singles() -> list[bytes]:
                return [
                    mget.command((letter, ids[at : at + 1]))
                    for letter, ids in wanted
                    for at in range(len(ids))
                ]

            return _Part(slots[shard], mget.command(*wanted), singles)

        async def read(*wanted: Wanted) -> Values:
            shard_of = np.concatenate([ids % np.uint64(len(slots)) for _, ids in wanted])
            shards = np.unique(shard_of).tolist()
            parts = [
                part(shard, [(letter, _of(ids, shard, len(slots))) for letter, ids in wanted])
                for shard in shards
            ]
            values: Values = [None] * len(shard_of)
            for shard, answer in zip(shards, await self._ask(parts), strict=True):
                for place, value in zip(np.flatnonzero(shard_of == shard), answer, strict=True):
                    values[place] = value
            return values

        return read

    async def mget(self, keys: Sequence[bytes]) -> Values:
        """See `Wire.mget`."""
        places: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(slot_of(key), []).append(place)

        def part(slot: int, some: list[int]) -> _Part:
            return _Part(
                slot,
                _packed([keys[place] for place in some]),
                lambda: [_packed([keys[place]]) for place in some],
            )

        values: Values = [None] * len(keys)
        answers = await self._ask([part(*one) for one in places.items()])
        for some, answer in zip(places.values(), answers, strict=True):
            for place, value in zip(some, answer, strict=True):
                values[place] = value
        return values

    async def _ask(self, parts: Sequence[_Part]) -> list[Values]:
        """The answers, all within the longest wait."""
        try:
            async with asyncio.timeout(self._seconds):
                owners = [await self._redis.owner(part.slot) for part in parts]
                seen = self._redis.version
                # All are written before the first answer is waited for.
                answers = await asyncio.gather(
                    *(
                        self._wire(owner).read(part.command)
                        for part, owner in zip(parts, owners, strict=True)
                    ),
                    return_exceptions=True,
                )
                return [
                    await self._again(part, answer, owner, seen)
                    if isinstance(answer, BaseException)
                    else answer
                    for part, owner, answer in zip(parts, owners, answers, strict=True)
                ]
        except TimeoutError:
            raise RedisTimeoutError(
                f"the Redis Cluster does not answer within {self._seconds:g} s"
            ) from None

    async def _again(
        self, part: _Part, error: BaseException, address: Address, seen: int
    ) -> Values:
        """The answer to what `address` has not answered."""
        if isinstance(error, TryAgainError):
            found = await asyncio.gather(
                *(self._answer(part.slot, single) for single in part.singles())
            )
            return [value for values in found for value in values]
        for _ in range(_HOPS):
            try:
                if isinstance(error, MovedError):  # an AskError, too, by its class
                    address, seen = self._redis.moved(error), self._redis.version
                    return await self._wire(address).read(part.command)
                if isinstance(error, AskError):
                    address = error.host, error.port
                    return await self._wire(address).read_imported(part.command)
                if not isinstance(error, LOST):
                    break
                other = await self._redis.other_owner(part.slot, address, seen)
                if other is None:
                    break
                address, seen = other, self._redis.version
                return await self._wire(address).read(part.command)
            except TryAgainError as again:
                return await self._again(part, again, address, seen)
            except RedisError as another:
                error = another
        raise error

    async def _answer(self, slot: int, single: bytes) -> Values:
        address, seen = await self._redis.owner(slot), self._redis.version
        try:
            return await self._wire(address).read(single)
        except RedisError as error:
            return await self._again(_Part(slot, single, lambda: [single]), error, address, seen)

    def _wire(self, address: Address) -> Wire:
        if address not in self._wires:
            self._wires[address] = Wire(self._redis.node(address), self._seconds)
        return self._wires[address]


def wire_to(redis: Redis, seconds: float) -> Wire | ClusterWire:
    """Reads through a client's connections; `seconds` is the longest wait for an answer."""
    if isinstance(redis, ClusterRedis):
        return ClusterWire(redis, seconds)
    return Wire(redis, seconds)


def _of(ids: U64, shard: int, shards: int) -> U64:
    return np.ascontiguousarray(ids[ids % np.uint64(shards) == shard])


def _packed(keys: list[bytes]) -> bytes:
    packed: bytes = hiredis.pack_command(("MGET", *keys))  # type: ignore[arg-type]
    return packed
