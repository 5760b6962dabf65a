"""New items: those of the catalogue that have few events, and how often each was shown to be tried.

A sorted set for each item shard holds them by exposures. An item enters with its catalogue entry
(`lua/commit_catalogue.lua`) and leaves by its events (`lua/commit_items.lua`) or with its entry.
One that was shown `explore.exposures` times without that stays, so that its count does, and is
passed over. Exposures come from the log, exactly once, as everything that is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from redis.asyncio import Redis

from config.settings import Settings
from store.commit import Outcome, Target, fenced, read_item_marks
from store.keys import FIRST_GENERATION, Keys
from store.scripts import Call, Scripts
from streams.columns import F64, I64, U64

__all__ = ["ExposureWriter", "NewItems", "read_new_items"]

_MOST = 50
"""New items of a shard that are at hand to be shown."""


@dataclass(frozen=True, slots=True)
class NewItems:
    """Items that may be shown to be tried."""

    item: U64
    """(k,) those with fewest exposures, rising."""
    exposures: F64
    """(k,)."""
    count: int
    """How many there are in all."""


class ExposureWriter:
    """Counts exposures. Raises redis.RedisError as redis-py does."""

    def __init__(
        self, redis: Redis, settings: Settings, generation: int = FIRST_GENERATION
    ) -> None:
        self._redis = redis
        self._keys = Keys(settings.store, generation)
        self._scripts = Scripts(redis)

    async def read_marks(self, topic: str, partition: int) -> I64:
        """The last offset of a partition that each item shard contains, (shards,); -1 for none."""
        return await read_item_marks(self._redis, self._keys, topic, partition)

    async def commit(self, target: Target, marks: I64, items: U64, offsets: I64) -> Outcome:
        """Count items (k,) as shown by the records at `offsets` (k,), each shard leaving out what
        it contains.
        """
        keys = self._keys
        shard = keys.shard_of(items)
        lacking = offsets > marks[shard]
        calls: list[Call] = []
        for s, prefix in enumerate(keys.items):
            shown, times = np.unique(items[lacking & (shard == s)], return_counts=True)
            names, offsets_of = fenced(prefix, [target], [int(marks[s])])
            told = [shown.astype("<u8").tobytes(), times.astype("<u4").tobytes()]
            calls.append(("commit_exposures", names, [*offsets_of, *told]))
        return Outcome.of(await self._scripts.call(calls))


async def read_new_items(redis: Redis, keys: Keys, given_up: int) -> NewItems:
    """Those that were shown less than `given_up` times. Raises redis.RedisError."""
    below = f"({given_up}"
    pipeline = redis.pipeline(transaction=False)
    for prefix in keys.items:
        name = keys.new_items(prefix)
        pipeline.zrangebyscore(name, "-inf", below, start=0, num=_MOST, withscores=True)
        pipeline.zcount(name, "-inf", below)
    answers = await pipeline.execute()
    rows = [row for answer in answers[::2] for row in answer]
    items = np.frombuffer(b"".join(row[0] for row in rows), "<u8").astype(np.uint64)
    exposures = np.array([row[1] for row in rows], np.float64)
    order = np.lexsort((items, exposures))
    return NewItems(items[order], exposures[order], sum(answers[1::2]))
