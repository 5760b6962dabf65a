"""Trending: weights of items in buckets of time.

A commit appends what a batch adds to one log for each item shard, and reads nothing:

    log      16 bytes a row: item u64 · weight f32 · number of the shortest bucket since 1970 u32

A log that has grown long is rolled up into the buckets of all lengths, by a script that changes
nothing unless log and buckets are still what was read. Readers add up both.

    bucket   version (8 random bytes, new each time), then 12 bytes an item: item u64 · weight f32;
             the heaviest DEPTH come first, the others in no order

A bucket is only ever written together with a new version, so the version tells its content. Those
that no window reaches any more, which all end with the latest event, are neither written nor kept.
"""

from __future__ import annotations

import secrets

import numpy as np
from redis.asyncio import Redis

from config.errors import StoreError
from processors.grouping import sum_by_key
from processors.popularity import GRANULARITIES, WINDOWS, TrendRows, buckets_of
from store.keys import Keys
from store.scripts import Scripts
from streams.columns import F64, I64, U64

__all__ = ["DEPTH", "TrendWriter", "pack_rows", "read_trending"]

DEPTH = 200
"""The heaviest items of a bucket that readers look at."""

_ROW = np.dtype([("item", "<u8"), ("weight", "<f4"), ("bucket", "<u4")])
_TOTAL = np.dtype([("item", "<u8"), ("weight", "<f4")])
_VERSION = 8
_LOG_BYTES = 65_536
"""A log this short is not worth rolling up …"""
_SHARE = 8
"""… nor one that is a smaller part than this of the buckets that it would go to."""
_NOT_A_LOG = (
    "a trending log or bucket of an impossible length: does something else write to this "
    "namespace (setting store.namespace)?"
)


def pack_rows(rows: TrendRows, shard: I64, shards: int) -> list[bytes]:
    """Rows of the log for each shard; `shard` says where each row's item lies."""
    packed = np.empty(len(rows.item), _ROW)
    packed["item"], packed["weight"], packed["bucket"] = rows.item, rows.weight, rows.bucket
    return [packed[shard == s].tobytes() for s in range(shards)]


class TrendWriter:
    """Rolls logs up. Raises redis.RedisError as redis-py does."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._bounds = {keys.trend_log(prefix): _LOG_BYTES for prefix in keys.items}
        self._written: dict[bytes, set[tuple[int, int]]] = {log: set() for log in self._bounds}
        """Buckets that came from a log, by granularity and number, and are not over yet."""

    def bound(self, prefix: bytes) -> int:
        """Length in bytes past which the log of a shard is to be rolled up."""
        return self._bounds[self._keys.trend_log(prefix)]

    def is_log(self, key: bytes) -> bool:
        """Whether a key is that of a log."""
        return key in self._bounds

    async def roll_up(self, scripts: Scripts, prefix: bytes) -> bool:
        """Bring the log of one shard into its buckets; false where another worker was quicker.

        Raises StoreError where it is no log.
        """
        log_key = self._keys.trend_log(prefix)
        log: bytes | None = await self._redis.get(log_key)  # type: ignore[assignment]
        if not log:
            return False
        rows = _read(log, _ROW)
        wanted: list[tuple[int, int]] = []
        parts: list[np.ndarray[tuple[int], np.dtype[np.void]]] = []
        latest = int(rows["bucket"].max()) * GRANULARITIES[0].seconds
        over = [latest // g.seconds - g.keep_seconds // g.seconds for g in GRANULARITIES]
        for place, granularity in enumerate(GRANULARITIES):
            bucket = rows["bucket"] // (granularity.seconds // GRANULARITIES[0].seconds)
            for number in np.unique(bucket[bucket > over[place]]).tolist():
                wanted.append((place, number))
                parts.append(rows[bucket == number])
        keys = [self._keys.trend(prefix, *one) for one in wanted]
        known: list[bytes | None] = await self._redis.mget(keys)  # type: ignore[assignment]
        arguments: list[bytes | str | int] = [log]
        base = 0
        for (place, _), part, value in zip(wanted, parts, known, strict=True):
            merged = _merged(part, value or b"")
            base += len(merged)
            version = secrets.token_bytes(_VERSION)
            arguments += (value or b"")[:_VERSION], version + merged
            arguments.append(GRANULARITIES[place].keep_seconds)
        self._bounds[log_key] = max(_LOG_BYTES, base // _SHARE)
        if await scripts.call([("roll_up", [log_key, *keys], arguments)]) != [1]:
            return False
        written = self._written[log_key]
        written.update(wanted)
        if gone := [one for one in written if one[1] <= over[one[0]]]:
            written.difference_update(gone)
            await self._redis.unlink(*(self._keys.trend(prefix, *one) for one in gone))
        return True


async def read_trending(redis: Redis, keys: Keys, window: str, latest: int) -> tuple[U64, F64]:
    """The heaviest DEPTH items of a window that ends with the bucket of `latest` (seconds since
    1970), and their weights, falling. Raises StoreError and redis.RedisError.
    """
    place, buckets = WINDOWS[window], buckets_of(window, latest)
    pipeline = redis.pipeline(transaction=False)
    for prefix in keys.items:
        pipeline.get(keys.trend_log(prefix))
    for bucket in buckets:
        for prefix in keys.items:
            key = keys.trend(prefix, place, bucket)
            pipeline.getrange(key, _VERSION, _VERSION + DEPTH * _TOTAL.itemsize - 1)
    answers: list[bytes | None] = await pipeline.execute()
    log = _read(b"".join(value or b"" for value in answers[: keys.shards]), _ROW)
    number = log["bucket"] // (GRANULARITIES[place].seconds // GRANULARITIES[0].seconds)
    log = log[(number >= buckets.start) & (number < buckets.stop)]
    tops = _read(b"".join(value or b"" for value in answers[keys.shards :]), _TOTAL)
    item, weight = _summed(
        np.concatenate([log["item"], tops["item"]]), np.concatenate([log["weight"], tops["weight"]])
    )
    if len(item) > DEPTH:
        # Sorting all of them would hold up requests for milliseconds.
        heavy = weight >= np.partition(weight, -DEPTH)[-DEPTH]
        item, weight = item[heavy], weight[heavy]
    order = np.lexsort((item, -weight))[:DEPTH]
    return item[order], weight[order]


def _merged(rows: np.ndarray[tuple[int], np.dtype[np.void]], value: bytes) -> bytes:
    """A bucket with rows added, without a version."""
    known = _read(value[_VERSION:], _TOTAL)
    item, weight = _summed(
        np.concatenate([known["item"], rows["item"]]),
        np.concatenate([known["weight"], rows["weight"]]),
    )
    packed = np.empty(len(item), _TOTAL)
    packed["item"], packed["weight"] = item, weight
    if len(item) > DEPTH:
        order = np.argpartition(-weight, DEPTH)
        packed = packed[order]
    return packed.tobytes()


def _summed(item: U64, weight: F64) -> tuple[U64, F64]:
    found, total = sum_by_key(
        np.ascontiguousarray(item, np.uint64).view(np.int64),
        np.ascontiguousarray(weight, np.float64),
    )
    return found.view(np.uint64), total


def _read(value: bytes, row: np.dtype[np.void]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    if len(value) % row.itemsize:
        raise StoreError(_NOT_A_LOG)
    return np.frombuffer(value, row)
