"""Statistics of items as a process keeps them: arrays over small ints, each entry for a while.

Those of a known item are read again every ten seconds, while answers use the older ones. One that
nobody has asked for lately may be a minute old; then it is read first.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from config.compiled import compiled
from streams.columns import F64, I64

__all__ = ["Statistics"]


_DUE_SECONDS, _KNOWN_SECONDS, _NEW_SECONDS = 10.0, 60.0, 0.25
_ASKED_SECONDS = 1.0


class Statistics:
    """Grows with the ints that are put in; what was never put in is 0 and stale."""

    def __init__(self) -> None:
        self._sessions = np.zeros(1024)
        self._recent = np.zeros(1024)
        self._recent_at = np.zeros(1024, np.int64)
        self._until = np.full(1024, -np.inf)
        self._due = np.full(1024, np.inf)

    def look(self, index: I64, now: float) -> tuple[I64, I64]:
        """Those of the items that have to be read before they are used; and those, each at most
        once, that should be read again but may be used until then: who is told so sees to it.
        """
        stale, due, largest = _look(index, now, self._until, self._due)
        if largest >= len(self._until):
            self._grow(largest + 1)
            stale, due, _ = _look(index, now, self._until, self._due)
        return stale, due

    def put(self, index: I64, found: npt.NDArray[np.void], now: float) -> None:
        """Keep statistics as `store.layout.unpack_statistics` gives them."""
        words = found.view(np.uint32)
        while (largest := self._put(index, now, words)) >= len(self._until):
            self._grow(largest + 1)

    def of(self, index: I64, moment: int, rate: float) -> tuple[F64, F64]:
        """Sessions with each item, and its recent events, decayed by e^-rate a second until
        `moment`, in seconds since 1970. Only for ints that `look` or `put` has seen.
        """
        return _of(index, moment, rate, self._sessions, self._recent, self._recent_at)

    def forget(self) -> None:
        """Everything is stale."""
        self._until.fill(-np.inf)

    def _put(self, index: I64, now: float, words: npt.NDArray[np.uint32]) -> int:
        kept = (self._sessions, self._recent, self._recent_at, self._until, self._due)
        return _put(index, now, words, words.view(np.float32), *kept)

    def _grow(self, size: int) -> None:
        old = len(self._sessions)
        size = max(size, 2 * old)
        self._sessions = np.resize(self._sessions, size)
        self._recent = np.resize(self._recent, size)
        self._recent_at = np.resize(self._recent_at, size)
        self._until, self._due = np.resize(self._until, size), np.resize(self._due, size)
        self._until[old:], self._due[old:] = -np.inf, np.inf
        for kept in (self._sessions, self._recent, self._recent_at):
            kept[old:] = 0


@compiled("Tuple((i8[::1], i8[::1], i8))(i8[::1], f8, f8[::1], f8[::1])")
def _look(index: I64, now: float, until: F64, due: F64) -> tuple[I64, I64, int]:
    """What `Statistics.look` says, and the largest of the ints; nothing where that is too large."""
    stale, again = np.empty(len(index), np.int64), np.empty(len(index), np.int64)
    stales = agains = largest = 0
    for one in index:
        largest = max(largest, one)
    if largest < len(until):
        for one in index:
            if until[one] < now:
                stale[stales] = one
                stales += 1
            elif due[one] < now:
                due[one] = now + _ASKED_SECONDS
                again[agains] = one
                agains += 1
    return stale[:stales].copy(), again[:agains].copy(), largest


@compiled("Tuple((f8[::1], f8[::1]))(i8[::1], i8, f8, f8[::1], f8[::1], i8[::1])")
def _of(
    index: I64, moment: int, rate: float, sessions: F64, recent: F64, recent_at: I64
) -> tuple[F64, F64]:
    found, decayed = np.empty(len(index)), np.empty(len(index))
    for place, one in enumerate(index):
        found[place] = sessions[one]
        # Clocks of producers differ: what lies ahead of the latest event counts as now.
        age = max(moment - recent_at[one], 0)
        decayed[place] = recent[one] * math.exp(-rate * age)
    return found, decayed


@compiled(
    "i8(i8[::1], f8, Array(uint32, 1, 'C', readonly=True), Array(float32, 1, 'C', readonly=True), "
    "f8[::1], f8[::1], i8[::1], f8[::1], f8[::1])"
)
def _put(
    index: I64,
    now: float,
    words: npt.NDArray[np.uint32],
    numbers: npt.NDArray[np.float32],
    sessions: F64,
    recent: F64,
    recent_at: I64,
    until: F64,
    due: F64,
) -> int:
    """`words` are the rows of STATISTICS, four numbers each, and `numbers` the same as floats.
    Returns the largest of the ints; nothing is done where that is too large.
    """
    largest = 0
    for one in index:
        largest = max(largest, one)
    if largest >= len(until):
        return largest
    for row, one in enumerate(index):
        first = 4 * row
        sessions[one] = words[first]
        recent[one] = numbers[first + 2]
        recent_at[one] = words[first + 3]
        # How popular an item is changes slowly; that it exists at all, at once.
        if words[first] > 0:
            until[one] = now + _KNOWN_SECONDS
            due[one] = now + _DUE_SECONDS
        else:
            until[one] = now + _NEW_SECONDS
            due[one] = np.inf
    return largest
