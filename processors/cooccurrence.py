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

from config.settings import FoldSettings
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
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Makes one word of a pair to sort by; pairs that shared one would be summed apart, no worse."""


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
    h = (1 + settings.gap_slope * (pairs.gap - 1.0)) ** -1.0
    h *= pairs.position ** -float(settings.length_exponent)
    first, second = weights[pairs.first_kind], weights[pairs.second_kind]
    h[(first == 0) | (second == 0)] = 0
    both = Contributions(
        np.concatenate([pairs.first, pairs.second]),
        np.concatenate([pairs.second, pairs.first]),
        np.concatenate([h * second, h * first]),
        np.repeat([False, True], len(h)),
        np.tile(pairs.time / 1000.0, 2),
        np.tile(pairs.row, 2),
    )
    return both.take(both.weight > 0)


def sum_by_pair(parts: Contributions, rate: float) -> Increments:
    """Sum what goes to the same pair, at the time of its latest part.

    `rate` is that of `decay_rate`.
    """
    order = np.argsort(parts.source * _MIX + parts.neighbour, kind="stable")
    source, neighbour = parts.source[order], parts.neighbour[order]
    changes = (source[1:] != source[:-1]) | (neighbour[1:] != neighbour[:-1])
    begin = np.flatnonzero(np.concatenate([np.ones(min(1, len(source)), np.bool_), changes]))
    if not len(begin):
        none, zero = np.zeros(0, np.uint64), np.zeros(0, np.float32)
        return Increments(none, none, zero, zero, np.zeros(0, np.uint32))
    time = np.ceil(parts.time[order])
    latest = np.maximum.reduceat(time, begin)
    age = np.repeat(latest, np.diff(np.append(begin, len(order)))) - parts.time[order]
    weight = parts.weight[order] * np.exp(-rate * age)
    back = parts.back[order]
    forward, backward = (
        np.add.reduceat(weight * which, begin).astype(np.float32) for which in (~back, back)
    )
    return Increments(source[begin], neighbour[begin], forward, backward, latest.astype(np.uint32))
