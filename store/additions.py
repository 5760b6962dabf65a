"""What a commit adds to the statistics of items, and their names, as `lua/commit_items.lua` takes
both: the key in Redis, the statistics to add, the length of the name (u32) and the name, which is
empty where the item has its name already.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from config.compiled import compiled
from processors.fold import ItemDeltas
from processors.grouping import places
from store.keys import head_rows
from store.layout import STATISTICS
from streams.columns import I64, U64

__all__ = ["pack_additions"]

U8 = npt.NDArray[np.uint8]


def pack_additions(
    deltas: ItemDeltas, names: Mapping[int, bytes], heads: list[bytes]
) -> list[bytes]:
    """Records of all items that something is added to or that are to be named (`names`, by hash),
    joined for each shard. A key is its shard's head, then the item's hash; item i lies in shard i
    modulo their number.
    """
    named = np.array(list(names), np.uint64)
    item = np.concatenate([deltas.item, named[places(deltas.item, named) < 0]])
    added = np.zeros(len(item), STATISTICS)
    known = len(deltas.item)
    added["sessions"][:known], added["events"][:known] = deltas.sessions, deltas.events
    added["recent"][:known], added["recent_at"][:known] = deltas.recent, deltas.recent_at
    text = b"".join(names.values())
    begin = np.zeros(len(names) + 1, np.int64)
    np.cumsum([len(name) for name in names.values()], out=begin[1:])
    rows, sizes = head_rows(heads)
    longest = rows.shape[1] + 8 + STATISTICS.itemsize + 4
    out = np.empty(len(item) * longest + len(text), np.uint8)
    ends = np.zeros(len(heads), np.int64)
    _write(
        out,
        ends,
        rows,
        sizes,
        item,
        added.view(np.uint8).reshape(-1, STATISTICS.itemsize),
        places(named, item),
        begin,
        np.frombuffer(text, np.uint8),
    )
    return [out[a:b].tobytes() for a, b in pairwise([0, *ends.tolist()])]


@compiled("i8(u1[::1], i8, u8, i8)")
def _put(out: U8, at: int, value: np.uint64, size: int) -> int:
    """Write the low bytes of a number; returns where they end."""
    for _ in range(size):
        out[at] = value & np.uint64(0xFF)
        value >>= np.uint64(8)
        at += 1
    return at


@compiled(
    "void(u1[::1], i8[::1], u1[:, ::1], i8[::1], u8[::1], u1[:, ::1], i8[::1], i8[::1], "
    "Array(uint8, 1, 'C', readonly=True))"
)
def _write(
    out: U8,
    ends: I64,
    heads: U8,
    sizes: I64,
    item: U64,
    added: U8,
    name: I64,
    begin: I64,
    text: U8,
) -> None:
    """`name` says which one of the names in `text`, which begin at `begin`, an item gets; -1 for
    none.
    """
    at = 0
    shards = np.uint64(len(ends))
    for s in range(len(ends)):
        for i in range(len(item)):
            if item[i] % shards != np.uint64(s):
                continue
            for k in range(sizes[s]):
                out[at + k] = heads[s, k]
            at = _put(out, at + sizes[s], item[i], 8)
            for k in range(added.shape[1]):
                out[at + k] = added[i, k]
            at += added.shape[1]
            first = last = 0
            if name[i] >= 0:
                first, last = begin[name[i]], begin[name[i] + 1]
            at = _put(out, at, np.uint64(last - first), 4)
            for k in range(first, last):
                out[at] = text[k]
                at += 1
        ends[s] = at
