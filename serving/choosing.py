"""Choosing the best of many: heaps in compiled loops.

A better one scores more; of those that score the same, the smaller small int goes first.
"""

from __future__ import annotations

import math

import numpy as np

from config.compiled import compiled
from streams.columns import F64, I64

__all__ = ["best", "choose", "softmax_best"]


@compiled("void(f8[::1], i8[::1], i8[::1], i8, i8, f8, i8)")
def _sink(held: F64, heap: I64, index: I64, at: int, size: int, score: float, mine: int) -> None:
    """Put `mine`, which scores `score`, into a heap with the worst on top: at `at`, or below."""
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            held[other] < held[child]
            or (held[other] == held[child] and index[heap[other]] > index[heap[child]])
        ):
            child = other
        if held[child] > score or (held[child] == score and index[heap[child]] <= index[mine]):
            break
        held[at], heap[at] = held[child], heap[child]
        at = child
    held[at], heap[at] = score, mine


@compiled("i8(f8[::1], i8[::1], i8, i8, i8, f8[::1], i8[::1])")
def best(score: F64, index: I64, low: int, high: int, most: int, held: F64, heap: I64) -> int:
    """Fill `heap` with the places of the `most` best among low … high-1, best first, and `held`
    with their scores; places that score -inf are passed over. Returns how many there are.
    """
    size, at = 0, low
    while at < high and size < most:
        if score[at] > -np.inf:
            held[size], heap[size] = score[at], at
            size += 1
        at += 1
    for top in range(size // 2 - 1, -1, -1):
        _sink(held, heap, index, top, size, held[top], heap[top])
    for rest in range(at, high):
        value = score[rest]
        if value > held[0] or (value == held[0] and index[rest] < index[heap[0]]):
            _sink(held, heap, index, 0, size, value, rest)
    # The worst goes behind, again and again: what is left falls from the best.
    for end in range(size - 1, 0, -1):
        worst_held, worst = held[0], heap[0]
        _sink(held, heap, index, 0, end, held[end], heap[end])
        held[end], heap[end] = worst_held, worst
    return size


@compiled(
    "Tuple((i8[::1], i8[::1], i8[::1], f8[::1]))"
    "(i8[::1], i8[::1], i8[::1], f8[::1], f8[::1], f8[::1], i8[::1], i8[::1], i8)"
)
def choose(
    start: I64,
    begin: I64,
    index: I64,
    score: F64,
    prior: F64,
    weight: F64,
    out_start: I64,
    out: I64,
    most: int,
) -> tuple[I64, I64, I64, F64]:
    """The `most` best candidates of each of B sessions by the whole rule.

    `begin` (B + 1,), `index` and `score` (U,) are of the candidates, of which the first of each
    session are its own items, with `start` (B + 1,) and `prior` (S,); what is left out stands in
    `out`, each session's from `out_start` (B + 1,). With `weight` (U,), empty for none, they are
    the best by score times weight, and of weight 0 none is chosen. Returns where each session's
    chosen ones begin (B + 1,), their places among the U, small ints and scores, which fall.
    """
    b = len(begin) - 1
    value = score.copy()
    first = np.zeros(b + 1, np.int64)
    where = np.empty(min(len(index), b * most), np.int64)
    held, heap = np.empty(most), np.empty(most, np.int64)
    m = 0
    for one in range(b):
        first[one] = m
        low, high = begin[one], begin[one + 1]
        for i in range(start[one + 1] - start[one]):
            value[low + i] += prior[start[one] + i]
        if out_start[one + 1] > out_start[one]:
            unwanted = set(out[out_start[one] : out_start[one + 1]])
            for at in range(low, high):
                if index[at] in unwanted:
                    value[at] = -np.inf
        boosted = False
        for at in range(low, min(high, len(weight))):
            if weight[at] == 0:
                value[at] = -np.inf
            elif weight[at] != 1:
                boosted = True
        if boosted:
            mine = value[low:high].copy()
            for at in range(low, high):
                if mine[at - low] > -np.inf:
                    mine[at - low] *= weight[at]
            count = best(mine, index[low:high], 0, high - low, most, held, heap)
            kept = np.full(high - low, -np.inf)
            for k in range(count):
                kept[heap[k]] = value[low + heap[k]]
            value[low:high] = kept
        count = best(value, index, low, high, most, held, heap)
        for k in range(count):
            where[m + k] = heap[k]
        m += count
    first[b] = m
    where = where[:m].copy()
    return first, where, index[where], value[where]


@compiled("Tuple((i8[::1], i8[:, ::1], f8[:, ::1]))(i8[::1], i8[::1], f8[::1], i8)")
def softmax_best(first: I64, index: I64, z: F64, n: int) -> tuple[I64, I64, F64]:
    """How many of the n best each session has (B,), these (B, n), and their chances (B, n): softmax
    of `z` (M,), which they replace, over a session's.

    `first` (B + 1,) says where each session's begin. Behind the last of a session stand zeros.
    """
    b = len(first) - 1
    counts = np.zeros(b, np.int64)
    shown, told = np.zeros((b, n), np.int64), np.zeros((b, n))
    held, heap = np.empty(n), np.empty(n, np.int64)
    for one in range(b):
        low, high = first[one], first[one + 1]
        if low == high:
            continue
        top = -np.inf
        for at in range(low, high):
            top = max(top, z[at])
        total = 0.0
        for at in range(low, high):
            z[at] = math.exp(z[at] - top)
            total += z[at]
        for at in range(low, high):
            z[at] /= total
        count = best(z, index, low, high, n, held, heap)
        for k in range(count):
            shown[one, k] = index[heap[k]]
            told[one, k] = z[heap[k]]
        counts[one] = count
    return counts, shown, told
