"""The loops behind `lists.py`, compiled. What they take and give is told there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from config.compiled import compiled
from streams.columns import F64, I64, U64

__all__ = ["choose", "group", "sum_up", "weigh", "write"]

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
U32 = npt.NDArray[np.uint32]

_FARTHEST_AHEAD = 40.0
"""A clock that runs years ahead makes a count e to this power too large, and not infinite."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_WORDS, _FLOATS, _HALVES = (
    f"Array({kind}, 1, 'C', readonly=True)" for kind in ("uint64", "float32", "uint32")
)


@compiled("void(u8[::1], i8[::1])")
def _sort(value: U64, order: I64) -> None:
    """Sort places by the values that stand there (Shell; numba's own sorts take seconds to
    compile).
    """
    gap = 1
    while gap < len(order) // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for k in range(gap, len(order)):
            one = order[k]
            j = k
            while j >= gap and value[order[j - gap]] > value[one]:
                order[j] = order[j - gap]
                j -= gap
            order[j] = one
        gap //= 3


@compiled("i8(i8, i8, i8, u8[::1], f8[::1], f8[::1])")
def _add_up(
    begin: np.int64,
    sorted_end: np.int64,
    end: np.int64,
    neighbour: U64,
    forward: F64,
    backward: F64,
) -> np.int64:
    """Sort entries begin … end - 1, of which those before `sorted_end` are, and add up those of one
    neighbour, in place; returns where they end.
    """
    more = end - sorted_end
    order = np.arange(sorted_end, end)
    _sort(neighbour, order)
    base = sorted_end - begin
    ids = neighbour[begin:sorted_end].copy()
    there, back = forward[begin:sorted_end].copy(), backward[begin:sorted_end].copy()
    new_ids = neighbour[order]
    new_there, new_back = forward[order], backward[order]
    a = b = 0
    fill = begin - 1
    while a < base or b < more:
        if b >= more or (a < base and ids[a] <= new_ids[b]):
            one, f, r = ids[a], there[a], back[a]
            a += 1
        else:
            one, f, r = new_ids[b], new_there[b], new_back[b]
            b += 1
        if fill >= begin and neighbour[fill] == one:
            forward[fill] += f
            backward[fill] += r
        else:
            fill += 1
            neighbour[fill], forward[fill], backward[fill] = one, f, r
    return fill + 1


@compiled(
    f"i8({_WORDS}, {_FLOATS}, {_HALVES}, i8[::1], f8, f8, "
    "i8[::1], u8[::1], f8[::1], f8[::1], i8[::1])"
)
def sum_up(
    words: U64,
    floats: F32,
    halves: U32,
    sizes: I64,
    rate: float,
    moment: float,
    start: I64,
    neighbour: U64,
    forward: F64,
    backward: F64,
    time: I64,
) -> np.int64:
    """Fill the columns; returns how many neighbours there are, -1 where a list cannot be read."""
    at = n = np.int64(0)
    for i in range(len(sizes)):
        end = at + sizes[i] // 8
        latest, place = np.int64(0), at
        while place < end:
            count = np.int64(halves[2 * place])
            latest = max(latest, np.int64(halves[2 * place + 1]))
            place += 1 + 2 * count
        if place != end:
            return np.int64(-1)
        time[i] = latest
        # All entries behind one another; within a chunk they are rising.
        fill, rising, first = n, True, n
        while at < end:
            count = np.int64(halves[2 * at])
            seconds = np.float64(halves[2 * at + 1])
            ahead = rate * (seconds - (latest if moment < 0 else moment))
            left = np.exp(min(ahead, _FARTHEST_AHEAD))
            if fill == n:
                first = n + count
            for k in range(at + 1, at + 1 + 2 * count, 2):
                neighbour[fill] = words[k]
                forward[fill] = floats[2 * k + 2] * left
                backward[fill] = floats[2 * k + 3] * left
                if n < fill < first and neighbour[fill] <= neighbour[fill - 1]:
                    rising = False
                fill += 1
            at += 1 + 2 * count
        if rising and first == fill:
            n = fill
        else:
            n = _add_up(n, first if rising else n, fill, neighbour, forward, backward)
        start[i + 1] = n
    return n


@compiled("Tuple((f8[::1], f4[:, ::1], f8[::1], f8[::1]))(i8[::1], f8[::1], f8[::1], f8, f8)")
def weigh(
    start: I64, forward: F64, backward: F64, worth: float, power: float
) -> tuple[F64, F32, F64, F64]:
    """Strength (k,), counts (3, k), and the sums of the first two rows (m,) of each list."""
    k, m = start[-1], len(start) - 1
    strength, counts = np.empty(k), np.empty((3, k), np.float32)
    after, before = np.zeros(m), np.zeros(m)
    for i in range(m):
        for e in range(start[i], start[i + 1]):
            there, back = np.float32(forward[e]), np.float32(backward[e])
            both = np.float64(there + np.float32(worth) * back)
            # The usual power, and far cheaper than any other.
            strength[e] = np.sqrt(both) if power == 0.5 else both**power
            counts[0, e], counts[1, e], counts[2, e] = there, back, strength[e]
            after[i] += there
            before[i] += back
    return strength, counts, after, before


@compiled("f8(f8[::1], i8)")
def _smallest(value: F64, k: int) -> float:
    """The value that k others are not larger than (Hoare's quickselect); mixes them up."""
    low, high = 0, len(value) - 1
    while low < high:
        pivot, i, j = value[k], low, high
        while i <= j:
            while value[i] < pivot:
                i += 1
            while value[j] > pivot:
                j -= 1
            if i <= j:
                value[i], value[j] = value[j], value[i]
                i += 1
                j -= 1
        if j < k:
            low = i
        if k < i:
            high = j
    return float(value[k])


@compiled("void(i8[::1], f8[::1], i8, b1[::1], i8[::1])")
def choose(start: I64, weight: F64, most: int, keep: npt.NDArray[np.bool_], kept: I64) -> None:
    """Mark the `most` heaviest of each item, and where they begin among all that are kept."""
    for i in range(len(start) - 1):
        a, b = start[i], start[i + 1]
        kept[i + 1] = kept[i] + min(b - a, most)
        if b - a <= most:
            keep[a:b] = True
            continue
        least = _smallest(weight[a:b].copy(), b - a - most)
        left = most
        for k in range(a, b):
            if weight[k] > least:
                keep[k] = True
                left -= 1
        for k in range(a, b):
            if left and weight[k] == least:
                keep[k] = True
                left -= 1


@compiled("i8[::1](u8[::1], u8[::1], i8, i8[::1])")
def group(source: U64, neighbour: U64, shards: int, member: I64) -> I64:
    """Fill `member` with the places of all increments, by shard, source and neighbour; returns
    where each source begins, and their end.
    """
    n = len(source)
    bits = 4
    while 1 << bits < 2 * n:
        bits += 1
    mask = (1 << bits) - 1
    table = np.full(mask + 1, -1, np.int64)
    owner = np.empty(n, np.uint64)
    group, size = np.empty(n, np.int64), np.zeros(n, np.int64)
    groups = 0
    for k in range(n):
        cell = np.int64((source[k] * _MIX) >> np.uint64(64 - bits))
        while table[cell] >= 0 and owner[table[cell]] != source[k]:
            cell = (cell + 1) & mask
        if table[cell] < 0:
            table[cell] = groups
            owner[groups] = source[k]
            groups += 1
        group[k] = table[cell]
        size[group[k]] += 1
    begin = np.empty(groups + 1, np.int64)
    fill = np.empty(groups, np.int64)
    place, at = 0, 0
    for s in range(shards):
        for g in range(groups):
            if owner[g] % np.uint64(shards) == np.uint64(s):
                begin[place] = fill[g] = at
                at += size[g]
                place += 1
    begin[groups] = n
    for k in range(n):
        member[fill[group[k]]] = k
        fill[group[k]] += 1
    for g in range(groups):
        _sort(neighbour, member[begin[g] : begin[g + 1]])
    return begin


@compiled("i8(u1[::1], i8, u8, i8)")
def _put(out: U8, at: int, value: np.uint64, size: int) -> int:
    """Write the low bytes of a number; returns where they end."""
    for _ in range(size):
        out[at] = value & np.uint64(0xFF)
        value >>= np.uint64(8)
        at += 1
    return at


@compiled(
    "void(u1[::1], i8[::1], u1[:, ::1], i8[::1], u8[::1], i8[::1], u4[::1], u8[::1], u4[::1], "
    "u4[::1])"
)
def write(
    out: U8,
    ends: I64,
    heads: npt.NDArray[np.uint8],
    sizes: I64,
    source: U64,
    begin: I64,
    latest: U32,
    neighbour: U64,
    forward: U32,
    backward: U32,
) -> None:
    """Write the records of lists that lie one shard after the other; weights are given as bits."""
    at = 0
    place = 0
    for s in range(len(ends)):
        while place < len(source) and source[place] % np.uint64(len(ends)) == np.uint64(s):
            for k in range(sizes[s]):
                out[at + k] = heads[s, k]
            at = _put(out, at + sizes[s], source[place], 8)
            count = begin[place + 1] - begin[place]
            at = _put(out, at, np.uint64(8 + 16 * count), 4)
            at = _put(out, at, np.uint64(count), 4)
            at = _put(out, at, np.uint64(latest[place]), 4)
            for k in range(begin[place], begin[place + 1]):
                at = _put(out, at, neighbour[k], 8)
                at = _put(out, at, np.uint64(forward[k]), 4)
                at = _put(out, at, np.uint64(backward[k]), 4)
            place += 1
        ends[s] = at
