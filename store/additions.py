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

_ROW = np.dtype(
    [
        ("item", "<u8"),
        *((name, STATISTICS[name]) for name in STATISTICS.names or ()),
        ("name", "<u4"),
    ]
)
"""What stands between a key's head and the name, whose length is the last of it."""


def pack_additions(
    deltas: ItemDeltas, names: Mapping[int, bytes], heads: list[bytes]
) -> list[bytes]:
    """Records of all items that something is added to or that are to be named (`names`, by hash),
    joined for each shard. A key is its shard's head, then the item's hash; item i lies in shard i
    modulo their number.
    """
    named = np.array(list(names), np.uint64)
    name = places(named, deltas.item)
    alone = np.delete(np.arange(len(named)), name[name >= 0])
    item, name = np.concatenate([deltas.item, named[alone]]), np.concatenate([name, alone])
    # One more, for items that get none.
    length = np.array([*(len(text) for text in names.values()), 0], np.int64)
    rows = np.zeros(len(item), _ROW)
    known = len(deltas.item)
    rows["item"], rows["name"] = item, length[name]
    rows["sessions"][:known], rows["events"][:known] = deltas.sessions, deltas.events
    rows["recent"][:known], rows["recent_at"][:known] = deltas.recent, deltas.recent_at
    text = b"".join(names.values())
    starts, sizes = head_rows(heads)
    out = np.empty(len(item) * (starts.shape[1] + _ROW.itemsize) + len(text), np.uint8)
    ends = np.zeros(len(heads), np.int64)
    _write(
        out,
        ends,
        starts,
        sizes,
        item,
        rows.view(np.uint8).reshape(-1, _ROW.itemsize),
        (np.cumsum(length) - length)[name],
        length[name],
        np.frombuffer(text, np.uint8),
    )
    return [out[a:b].tobytes() for a, b in pairwise([0, *ends.tolist()])]


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
    rows: U8,
    begin: I64,
    length: I64,
    text: U8,
) -> None:
    """Behind its shard's head, each item's row and the part of `text` that is its name."""
    at = 0
    shards = np.uint64(len(ends))
    for s in range(len(ends)):
        for i in range(len(item)):
            if item[i] % shards != np.uint64(s):
                continue
            for k in range(sizes[s]):
                out[at + k] = heads[s, k]
            at += sizes[s]
            for k in range(rows.shape[1]):
                out[at + k] = rows[i, k]
            at += rows.shape[1]
            for k in range(length[i]):
                out[at + k] = text[begin[i] + k]
            at += length[i]
        ends[s] = at
