"""Compiled loops that group by hashing: what sorting would do at five times the price."""

from __future__ import annotations

import numpy as np

from config.compiled import compiled
from streams.columns import F64, I64, U64

__all__ = ["distinct", "places", "sum_by_key", "sum_pairs", "unique_places"]

_MIX = 0x9E3779B97F4A7C15
"""2⁶⁴ over the golden ratio: its products' upper bits are spread well (Fibonacci hashing)."""


@compiled("i8(i8)")
def _bits_for(n: int) -> int:
    """log2 of a table that n entries fill by half at most."""
    bits = 4
    while (1 << bits) < 2 * n:
        bits += 1
    return bits


@compiled("u8[::1](u8[::1])")
def distinct(ids: U64) -> U64:
    """Those of ids (n,) that differ, in the order in which they come first."""
    bits = _bits_for(len(ids))
    shift, mask = np.uint64(64 - bits), (1 << bits) - 1
    table = np.full(1 << bits, -1, np.int32)
    found = np.empty(len(ids), np.uint64)
    count = 0
    for i in range(len(ids)):
        slot = np.int64((ids[i] * np.uint64(_MIX)) >> shift)
        while table[slot] >= 0 and found[table[slot]] != ids[i]:
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot] = count
            found[count] = ids[i]
            count += 1
    return found[:count].copy()


@compiled("i8[::1](u8[::1], u8[::1])")
def places(known: U64, ids: U64) -> I64:
    """(n,) where each of ids stands in `known`, whose entries differ; -1 where it does not."""
    bits = _bits_for(len(known))
    shift, mask = np.uint64(64 - bits), (1 << bits) - 1
    table = np.full(1 << bits, -1, np.int32)
    for i in range(len(known)):
        slot = np.int64((known[i] * np.uint64(_MIX)) >> shift)
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = i
    place = np.empty(len(ids), np.int64)
    for i in range(len(ids)):
        slot = np.int64((ids[i] * np.uint64(_MIX)) >> shift)
        while table[slot] >= 0 and known[table[slot]] != ids[i]:
            slot = (slot + 1) & mask
        place[i] = table[slot]
    return place


def unique_places(ids: U64) -> tuple[U64, I64]:
    """`np.unique(ids, return_inverse=True)`: those that differ, rising, and (n,) which is where."""
    once = np.sort(distinct(ids))
    return once, places(once, ids)


@compiled("Tuple((i8[::1], f8[::1]))(i8[::1], f8[::1])")
def sum_by_key(key: I64, weight: F64) -> tuple[I64, F64]:
    """Keys that differ, and the sums of their weights."""
    bits = _bits_for(len(key))
    shift, mask = np.uint64(64 - bits), (1 << bits) - 1
    table = np.full(1 << bits, -1, np.int32)
    found = np.empty(len(key), np.int64)
    total = np.empty(len(key), np.float64)
    count = 0
    for i in range(len(key)):
        slot = np.int64((np.uint64(key[i]) * np.uint64(_MIX)) >> shift)
        while table[slot] >= 0 and found[table[slot]] != key[i]:
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot] = count
            found[count] = key[i]
            total[count] = 0.0
            count += 1
        total[table[slot]] += weight[i]
    return found[:count].copy(), total[:count].copy()


@compiled(
    "Tuple((u8[::1], u8[::1], f4[::1], f4[::1], u4[::1]))"
    "(u8[::1], u8[::1], f8[::1], b1[::1], f8[::1], f8)"
)
def sum_pairs(
    source: U64, neighbour: U64, weight: F64, back: np.ndarray, time: F64, rate: float
) -> tuple[U64, U64, np.ndarray, np.ndarray, np.ndarray]:
    """The columns of `processors.cooccurrence.Increments` for those of `Contributions`."""
    n = len(source)
    bits = _bits_for(n)
    shift, mask = np.uint64(64 - bits), (1 << bits) - 1
    table = np.full(1 << bits, -1, np.int32)
    first = np.empty(n, np.int32)
    latest = np.empty(n, np.int64)
    place = np.empty(n, np.int32)
    count = 0
    for i in range(n):
        mixed = (source[i] * np.uint64(_MIX)) ^ neighbour[i]
        slot = np.int64((mixed * np.uint64(_MIX)) >> shift)
        while table[slot] >= 0:
            other = first[table[slot]]
            if source[other] == source[i] and neighbour[other] == neighbour[i]:
                break
            slot = (slot + 1) & mask
        at = np.int64(np.ceil(time[i]))
        if table[slot] < 0:
            table[slot] = count
            first[count] = i
            latest[count] = at
            count += 1
        place[i] = table[slot]
        latest[place[i]] = max(latest[place[i]], at)
    forward = np.zeros(count)
    backward = np.zeros(count)
    for i in range(n):
        decayed = weight[i] * np.exp(-rate * (latest[place[i]] - time[i]))
        if back[i]:
            backward[place[i]] += decayed
        else:
            forward[place[i]] += decayed
    one, other_one = np.empty(count, np.uint64), np.empty(count, np.uint64)
    moment = np.empty(count, np.uint32)
    for c in range(count):
        one[c], other_one[c] = source[first[c]], neighbour[first[c]]
        moment[c] = latest[c]
    return one, other_one, forward.astype(np.float32), backward.astype(np.float32), moment
