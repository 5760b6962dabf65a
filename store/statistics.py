"""Statistics of items as a process keeps them: arrays over small ints, each entry for a while."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.columns import F64, I64

__all__ = ["Statistics"]


_KNOWN_SECONDS, _NEW_SECONDS = 10.0, 0.25


class Statistics:
    """Grows with the ints that are put in; what was never put in is 0 and stale."""

    def __init__(self) -> None:
        self._sessions = np.zeros(1024)
        self._recent = np.zeros(1024)
        self._recent_at = np.zeros(1024, np.int64)
        self._until = np.full(1024, -np.inf)

    def stale(self, index: I64, now: float) -> I64:
        """Those of the items that have to be read again."""
        self._grow(int(index.max(initial=0)) + 1)
        return index[self._until[index] < now]

    def put(self, index: I64, found: npt.NDArray[np.void], now: float) -> None:
        """Keep statistics as `store.layout.unpack_statistics` gives them."""
        self._grow(int(index.max(initial=0)) + 1)
        self._sessions[index] = found["sessions"]
        self._recent[index] = found["recent"]
        self._recent_at[index] = found["recent_at"]
        # How popular an item is changes slowly; that it exists at all, at once.
        self._until[index] = now + np.where(found["sessions"] > 0, _KNOWN_SECONDS, _NEW_SECONDS)

    def of(self, index: I64) -> tuple[F64, F64, I64]:
        """Sessions with each item, its recent events, and the times (s) to which these decayed.

        Only for ints that `stale` or `put` has seen.
        """
        return self._sessions[index], self._recent[index], self._recent_at[index]

    def forget(self) -> None:
        """Everything is stale."""
        self._until.fill(-np.inf)

    def _grow(self, size: int) -> None:
        old = len(self._sessions)
        if size <= old:
            return
        size = max(size, 2 * old)
        self._sessions = np.resize(self._sessions, size)
        self._recent = np.resize(self._recent, size)
        self._recent_at = np.resize(self._recent_at, size)
        self._until = np.resize(self._until, size)
        self._until[old:] = -np.inf
        for kept in (self._sessions, self._recent, self._recent_at):
            kept[old:] = 0
