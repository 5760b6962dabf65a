"""Small ints for items, so that what is counted of them fits arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from config.compiled import compiled
from streams.columns import I64, U64

__all__ = ["Interner"]

_FIRST_BITS = 11
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Interner:
    """Small ints for the 64-bit hashes that this process has met, so that scores fit an array.

    They are handed out in the order in which hashes come, from 0 on, and kept for good.
    """

    def __init__(self) -> None:
        self._bits = _FIRST_BITS
        # Open addressing, at most half full: which int stands in a cell, -1 for none.
        self._table: npt.NDArray[np.int32] = np.full(1 << self._bits, -1, np.int32)
        self._ids = np.zeros(1 << (self._bits - 1), np.uint64)
        self._count = 0

    def index(self, ids: U64) -> I64:
        """Small ints of hashes (n,), new ones where needed."""
        if self._count + len(ids) > len(self._ids):
            self._grow(self._count + len(ids))
        found = np.empty(len(ids), np.int64)
        ids = np.ascontiguousarray(ids, np.uint64)
        self._count = _look_up(ids, self._bits, self._table, self._ids, self._count, found)
        return found

    def ids(self, index: I64) -> U64:
        """The hashes behind small ints."""
        return self._ids[index]

    def _grow(self, size: int) -> None:
        # Many of the ids that are asked for may be known: room for all is made all the same.
        while 1 << (self._bits - 1) < size:
            self._bits += 1
        known = self._ids[: self._count]
        self._table = np.full(1 << self._bits, -1, np.int32)
        self._ids = np.zeros(1 << (self._bits - 1), np.uint64)
        _look_up(known, self._bits, self._table, self._ids, 0, np.empty(len(known), np.int64))


@compiled("i8(u8[::1], i8, i4[::1], u8[::1], i8, i8[::1])")
def _look_up(
    ids: U64, bits: int, table: npt.NDArray[np.int32], known: U64, count: int, found: I64
) -> int:
    """Fill `found`; returns how many ids are known now."""
    mask = (1 << bits) - 1
    for i in range(len(ids)):
        cell = np.int64((ids[i] * _MIX) >> np.uint64(64 - bits))
        while table[cell] >= 0 and known[table[cell]] != ids[i]:
            cell = (cell + 1) & mask
        if table[cell] < 0:
            table[cell] = count
            known[count] = ids[i]
            count += 1
        found[i] = table[cell]
    return count
