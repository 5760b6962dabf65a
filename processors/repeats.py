"""How often the next event of a session repeats an item of it, counted from the stream.

Each event is first looked at as the outcome of a prediction: for every item of its prefix there was
an opportunity to be repeated. Opportunities and hits are counted in cells of

    distance of the item's latest occurrence from the session's end (1 … WINDOW),
    times it was seen in the prefix (1, 2, 3 or more),
    ⌈log2 of the session's length⌉ (0 … 5),

and the repeat prior is P = (hits + 0.02) / (opportunities + 1) in the item's cell. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from config.compiled import compiled
from processors.session import WINDOW, Prefixes
from streams.columns import F64, I64, U64, Bool

__all__ = ["CELLS", "Repeats", "count_repeats", "prior_of", "repeat_prior"]

_TIMES = 3
_LENGTHS = 6
CELLS = WINDOW * _TIMES * _LENGTHS


@dataclass(frozen=True, slots=True)
class Repeats:
    """Opportunities of a batch, one row each."""

    cell: I64
    hit: Bool
    row: I64
    """Which event of the batch was the outcome."""


@compiled("i8(i8)")
def _bits(length: int) -> int:
    bits = 0
    while bits < _LENGTHS - 1 and (1 << bits) < length:
        bits += 1
    return bits


@compiled("i8(i8, i8, i8)")
def _cell(distance: int, times: int, bits: int) -> int:
    return ((distance - 1) * _TIMES + min(times, _TIMES) - 1) * _LENGTHS + bits


@compiled("f8[::1](f8[::1], i8[::1], i8[::1], i8[::1], i8[::1])")
def prior_of(prior: F64, distance: I64, times: I64, start: I64, length: I64) -> F64:
    """(S,) P of being repeated next, of the items of B sessions: `start` (B + 1,) says where each
    session's begin, `length` (B,) how many events it has; `prior` is of `repeat_prior`.
    """
    found = np.empty(len(distance))
    for b in range(len(length)):
        bits = _bits(length[b])
        for i in range(start[b], start[b + 1]):
            found[i] = prior[_cell(distance[i], times[i], bits)]
    return found


def count_repeats(prefixes: Prefixes, outcome: U64, most: int) -> Repeats:
    """Opportunities and hits of prefixes whose next item was `outcome` (p,).

    `most` is how many distinct items of a session are looked at (setting `rank.session_items`).
    """
    return Repeats(*_opportunities(prefixes.items, prefixes.length, prefixes.row, outcome, most))


@compiled("Tuple((i8[::1], b1[::1], i8[::1]))(u8[:, ::1], i8[::1], i8[::1], u8[::1], i8)")
def _opportunities(
    items: U64, length: I64, row: I64, outcome: U64, most: int
) -> tuple[I64, Bool, I64]:
    size = 0
    for p in range(len(items)):
        size += min(length[p], items.shape[1], most)
    cell, hit = np.empty(size, np.int64), np.empty(size, np.bool_)
    brought_by = np.empty(size, np.int64)
    at = 0
    for p in range(len(items)):
        steps = min(length[p], items.shape[1])
        bits = _bits(length[p])
        found = 0
        for step in range(steps):
            item = items[p, step]
            nearer = False
            for other in range(step):
                nearer = nearer or items[p, other] == item
            if nearer:
                continue
            times = 1
            for other in range(step + 1, steps):
                times += items[p, other] == item
            cell[at] = _cell(step + 1, times, bits)
            hit[at] = item == outcome[p]
            brought_by[at] = row[p]
            at += 1
            found += 1
            if found == most:
                break
    return cell[:at].copy(), hit[:at].copy(), brought_by[:at].copy()


def repeat_prior(opportunities: F64, hits: F64) -> F64:
    """P of the next event repeating an item, for every cell (CELLS,)."""
    prior: F64 = (hits + 0.02) / (opportunities + 1.0)
    return prior
