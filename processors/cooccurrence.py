"""Co-occurrence counts: what each event adds to "after a comes b". Pure numpy.

When event j of a session brings item b, and item a stands g events before it,

    a→b gains h·w(b) forward   and   b→a gains h·w(a) backward,     h = 1/(1 + slope·(g-1)) · j^-λ

with w the weight of the event's type and slope, λ the settings of `fold`. Both directions are kept
apart: how much the backward one is worth is for the ranking to say. A pair with an event of weight
0 adds nothing. Counts halve every `half_life_days`: an increment is stored with its time, and
increments are summed at the later one's time (Cormode et al., "Forward Decay", 2009).

Pairs of purchases are counted a second time by themselves: what is bought together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.compiled import compiled
from config.settings import FoldSettings
from processors.grouping import sum_pairs
from processors.session import Pairs
from streams.columns import F64, I64, U64, Bool

__all__ = [
    "Contributions",
    "Increments",
    "contributions",
    "decay_rate",
    "sum_by_pair",
]

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Contributions:
    """One addition to the list of `source` each, not yet summed."""

    source: U64
    neighbour: U64
    weight: F64
    back: Bool
    """Whether `neighbour` came before `source`."""
    time: F64
    """Seconds since 1970."""
    row: I64
    """Which event of the batch brought it."""

    def take(self, where: Bool) -> Contributions:
        """Those at a mask."""
        return Contributions(
            self.source[where],
            self.neighbour[where],
            self.weight[where],
            self.back[where],
            self.time[where],
            self.row[where],
        )


@dataclass(frozen=True, slots=True)
class Increments:
    """One entry for each pair, in no particular order."""

    source: U64
    neighbour: U64
    forward: npt.NDArray[np.float32]
    """How much `neighbour` follows `source`."""
    backward: npt.NDArray[np.float32]
    """How much `neighbour` precedes `source`."""
    time: npt.NDArray[np.uint32]
    """Seconds since 1970 at which both hold."""


def decay_rate(half_life_days: float) -> float:
    """Rate r of the decay e^(-r·seconds)."""
    return float(np.log(2) / (half_life_days * _DAY))


def contributions(pairs: Pairs, weights: F64, settings: FoldSettings) -> Contributions:
    """Both directions of every pair. `weights` holds the weight of each event type, by position."""
    return Contributions(
        *_both_ways(
            pairs.first,
            pairs.second,
            pairs.gap,
            pairs.position,
            pairs.time,
            pairs.first_kind,
            pairs.second_kind,
            pairs.row,
            weights,
            settings.gap_slope,
            settings.length_exponent,
        )
    )


@compiled(
    "Tuple((u8[::1], u8[::1], f8[::1], b1[::1], f8[::1], i8[::1]))"
    "(u8[::1], u8[::1], i8[::1], i8[::1], i8[::1], u1[::1], u1[::1], i8[::1], f8[::1], f8, f8)"
)
def _both_ways(
    first: U64,
    second: U64,
    gap: I64,
    position: I64,
    time: I64,
    first_kind: npt.NDArray[np.uint8],
    second_kind: npt.NDArray[np.uint8],
    row: I64,
    weights: F64,
    slope: float,
    exponent: float,
) -> tuple[U64, U64, F64, Bool, F64, I64]:
    n = len(first)
    source, neighbour = np.empty(2 * n, np.uint64), np.empty(2 * n, np.uint64)
    weight, back = np.empty(2 * n, np.float64), np.empty(2 * n, np.bool_)
    moment, brought_by = np.empty(2 * n, np.float64), np.empty(2 * n, np.int64)
    # Pairs of one event stand together: its power is taken once.
    known, power = np.int64(-1), 0.0
    at = 0
    for i in range(n):
        one, other = weights[first_kind[i]], weights[second_kind[i]]
        if one == 0 or other == 0:
            continue
        if position[i] != known:
            known, power = position[i], float(position[i]) ** -exponent
        h = power / (1.0 + slope * (gap[i] - 1.0))
        source[at], neighbour[at], weight[at], back[at] = first[i], second[i], h * other, False
        source[at + 1], neighbour[at + 1] = second[i], first[i]
        weight[at + 1], back[at + 1] = h * one, True
        for k in range(at, at + 2):
            moment[k], brought_by[k] = time[i] / 1000.0, row[i]
        at += 2
    return (
        source[:at].copy(),
        neighbour[:at].copy(),
        weight[:at].copy(),
        back[:at].copy(),
        moment[:at].copy(),
        brought_by[:at].copy(),
    )


def sum_by_pair(parts: Contributions, rate: float) -> Increments:
    """Sum what goes to the same pair, at the time of its latest part.

    `rate` is that of `decay_rate`.
    """
    return Increments(
        *sum_pairs(parts.source, parts.neighbour, parts.weight, parts.back, parts.time, rate)
    )
