"""Neighbour lists: what a commit appends to them, what they sum to, and what compaction leaves.

A list is a row of chunks, all little-endian:

    count u32 · time u32, s since 1970, at which the weights of the chunk hold
    count × (neighbour u64, rising · forward f32 · backward f32)

A commit appends one chunk to each list that it touches; nothing is read back. Readers decay the
chunks to one moment and add them up, and compaction leaves one chunk of the heaviest neighbours.

A record, as `lua/commit_items.lua` takes it, is the key in Redis, the length of the chunk (u32) and
the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from config.errors import StoreError
from config.settings import StoreSettings
from processors.cooccurrence import Increments
from store.keys import head_rows
from store.list_loops import choose, group, sum_up, weigh, write
from streams.columns import F64, I64, U64

__all__ = [
    "ENTRY_BYTES",
    "HEAD_BYTES",
    "ItemLists",
    "Weighed",
    "list_bound",
    "pack_increments",
    "sum_lists",
    "weigh_lists",
]

F32 = npt.NDArray[np.float32]

HEAD_BYTES, ENTRY_BYTES = 8, 16
_NOT_A_LIST = (
    "a neighbour list that cannot be read: does something else write to this namespace "
    "(setting store.namespace)?"
)
_OWN_MOMENT = -1.0


@dataclass(frozen=True, slots=True)
class ItemLists:
    """Summed neighbour lists of m items, k neighbours in all."""

    start: I64
    """(m + 1,) where each item's neighbours begin."""
    neighbour: U64
    """(k,) rising for each item."""
    forward: F64
    """(k,) decayed to the item's `time`."""
    backward: F64
    """(k,) decayed to the item's `time`."""
    time: I64
    """(m,) seconds since 1970 of the latest chunk; 0 where there is none."""

    def keep_best(self, most: int, backward: float) -> ItemLists:
        """The `most` heaviest neighbours of each item; `backward` is what a backward count is worth
        (setting `rank.backward`).
        """
        keep = np.zeros(len(self.neighbour), np.bool_)
        start = np.zeros_like(self.start)
        choose(self.start, self.forward + backward * self.backward, most, keep, start)
        return ItemLists(
            start, self.neighbour[keep], self.forward[keep], self.backward[keep], self.time
        )

    def pack(self) -> list[bytes]:
        """Each item's list: one chunk, or nothing where it has no neighbours."""
        counts = np.diff(self.start)
        sizes = HEAD_BYTES * (counts > 0) + ENTRY_BYTES * counts
        ends = np.cumsum(sizes)
        words = np.zeros(int(ends[-1] if len(ends) else 0) // 8, np.uint64)
        heads = (ends - sizes)[counts > 0] // 8
        words[heads] = counts[counts > 0] | (self.time[counts > 0] << 32)
        body = np.ones(len(words), np.bool_)
        body[heads] = False
        entries = np.empty((len(self.neighbour), 2), np.uint64)
        entries[:, 0] = self.neighbour
        weights = np.stack([self.forward, self.backward], axis=1).astype(np.float32)
        entries[:, 1] = weights.view(np.uint64)[:, 0]
        words[body] = entries.ravel()
        data = words.tobytes()
        return [data[a:b] for a, b in pairwise([0, *ends.tolist()])]


@dataclass(frozen=True, slots=True)
class Weighed:
    """The neighbours of m items, k in all, as requests use them: see `candidates.Neighbours`."""

    start: list[int]
    """(m + 1,) where each item's neighbours begin."""
    neighbour: U64
    """(k,)."""
    strength: F64
    """(k,)."""
    counts: F32
    """(3, k)."""
    after: list[float]
    """(m,)."""
    before: list[float]
    """(m,)."""


def sum_lists(values: list[bytes | None], rate: float) -> ItemLists:
    """Sum the lists of m items; `rate` is that of `processors.cooccurrence.decay_rate`.

    Raises StoreError for a value that is no list.
    """
    return ItemLists(*_summed(values, rate, _OWN_MOMENT))


def weigh_lists(
    values: list[bytes | None], rate: float, moment: int, backward: float, power: float
) -> Weighed:
    """What `sum_lists` says, with all weights decayed to a moment in seconds since 1970. A backward
    count is worth `backward`, and strength is what both make to the power `power`.
    """
    start, neighbour, there, back, _ = _summed(values, rate, float(moment))
    strength, counts, after, before = weigh(start, there, back, backward, power)
    return Weighed(start.tolist(), neighbour, strength, counts, after.tolist(), before.tolist())


def list_bound(settings: StoreSettings) -> int:
    """Length in bytes past which a list is to be compacted."""
    return HEAD_BYTES + ENTRY_BYTES * int(settings.compact_factor * settings.neighbours)


def pack_increments(increments: Increments, rate: float, heads: list[bytes]) -> list[bytes]:
    """Records of all lists that increments go to, joined for each shard. The key of a list is its
    shard's head, then the item's hash; item i lies in shard i modulo their number.
    """
    shards = len(heads)
    member, begin = np.empty(len(increments.source), np.int64), np.zeros(1, np.int64)
    if len(member):
        begin = group(increments.source, increments.neighbour, shards, member)
    source, time = increments.source[member], increments.time[member]
    size = np.diff(begin)
    latest = np.maximum.reduceat(time, begin[:-1]) if len(member) else time
    # In f64: the difference of two u32 may be negative where clocks differ.
    left = np.exp(-rate * (np.repeat(latest, size).astype(np.float64) - time))
    known, lengths = head_rows(heads)
    out = np.empty(len(size) * (known.shape[1] + 20) + len(member) * ENTRY_BYTES, np.uint8)
    ends = np.zeros(len(heads), np.int64)
    write(
        out,
        ends,
        known,
        lengths,
        source[begin[:-1]],
        begin,
        latest,
        increments.neighbour[member],
        (increments.forward[member] * left).astype(np.float32).view(np.uint32),
        (increments.backward[member] * left).astype(np.float32).view(np.uint32),
    )
    return [out[a:b].tobytes() for a, b in pairwise([0, *ends.tolist()])]


def _summed(
    values: list[bytes | None], rate: float, moment: float
) -> tuple[I64, U64, F64, F64, I64]:
    sizes = np.array([len(value) if value else 0 for value in values], np.int64)
    if (sizes % 8).any():
        raise StoreError(_NOT_A_LIST)
    data = b"".join([value for value in values if value])
    most = len(data) // ENTRY_BYTES
    start, time = np.zeros(len(values) + 1, np.int64), np.zeros(len(values), np.int64)
    neighbour = np.empty(most, np.uint64)
    forward, backward = np.empty(most), np.empty(most)
    count = sum_up(
        np.frombuffer(data, np.uint64),
        np.frombuffer(data, np.float32),
        np.frombuffer(data, np.uint32),
        sizes,
        rate,
        moment,
        start,
        neighbour,
        forward,
        backward,
        time,
    )
    if count < 0:
        raise StoreError(_NOT_A_LIST)
    return start, neighbour[:count], forward[:count], backward[:count], time
