"""Reads as they go over the wire: MGET of keys that end with the hashes of items or users.

Naming the keys one by one and putting them together takes longer than everything else a read needs
in this process; here both are one compiled loop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from config.compiled import compiled
from store.keys import head_rows
from streams.columns import I64, U64

__all__ = ["Mget"]

U8 = npt.NDArray[np.uint8]
_FRAMES = 1 + 3 + 2 + 9 + 2
"""Bytes of a key but for its prefix, at most: $, digits, line end, letter, hash, line end."""


class Mget:
    """Commands for keys of some shards, by the shards' prefixes."""

    def __init__(self, prefixes: Sequence[bytes]) -> None:
        self._heads, self._sizes = head_rows(prefixes)

    def command(self, *wanted: tuple[bytes, U64]) -> bytes:
        """The command that asks for all of these, by the key's letter and the hashes, in order."""
        count = sum([len(ids) for _, ids in wanted])
        head = b"*%d\r\n$4\r\nMGET\r\n" % (count + 1)
        out = np.empty(len(head) + count * (self._heads.shape[1] + _FRAMES), np.uint8)
        out[: len(head)] = np.frombuffer(head, np.uint8)
        end = len(head)
        for letter, ids in wanted:
            end = _append(out, end, self._heads, self._sizes, letter[0], ids)
        return out[:end].tobytes()


@compiled("i8(u1[::1], i8, u1[:, ::1], i8[::1], i8, u8[::1])")
def _append(out: U8, end: int, heads: U8, sizes: I64, letter: int, ids: U64) -> int:
    """Append a bulk string for each key; returns where the next one goes."""
    shards = np.uint64(len(sizes))
    for one in ids:
        shard = np.int64(one % shards)
        size = sizes[shard] + 9
        out[end] = 36  # $
        end += 1
        if size >= 100:
            out[end] = 48 + size // 100
            end += 1
        out[end] = 48 + size // 10 % 10
        out[end + 1] = 48 + size % 10
        out[end + 2] = 13
        out[end + 3] = 10
        end += 4
        for at in range(sizes[shard]):
            out[end + at] = heads[shard, at]
        end += sizes[shard]
        out[end] = letter
        for byte in range(8):
            out[end + 1 + byte] = (one >> np.uint64(8 * byte)) & np.uint64(255)
        out[end + 9] = 13
        out[end + 10] = 10
        end += 11
    return int(end)
