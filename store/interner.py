"""Small ints for items, so that what is counted of them fits arrays."""

from __future__ import annotations

import numpy as np

from streams.columns import I64, U64

__all__ = ["Interner"]


class Interner:
    """Small ints for the 64-bit hashes that this process has met, so that scores fit an array."""

    def __init__(self) -> None:
        self._index: dict[int, int] = {}
        self._ids = np.zeros(1024, np.uint64)

    def index(self, ids: U64) -> I64:
        """Small ints of hashes, new ones where needed."""
        known = self._index
        found = [known.get(i, -1) for i in ids.tolist()]
        if -1 in found:
            for place, value in enumerate(ids.tolist()):
                if found[place] < 0:
                    found[place] = known.setdefault(value, len(known))
            if len(known) > len(self._ids):
                self._ids = np.resize(self._ids, max(2 * len(self._ids), len(known)))
            self._ids[found] = ids
        return np.array(found, np.int64)

    def ids(self, index: I64) -> U64:
        """The hashes behind small ints."""
        return self._ids[index]
