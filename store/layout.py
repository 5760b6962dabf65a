"""How values lie in Redis, byte by byte. Pure numpy; all little-endian.

Session vector of a user: the time of the latest event (i64, ms), then 20 bytes an event in time
order:
    item u64 · age u32, ms before the latest event, at most 49 days · word u64 =
    event key (40 bits) · session tag (19 bits) · event type (5 bits)

Neighbour list of an item: a log of 20-byte entries
    neighbour u64 · forward f32 · backward f32 · time u32, s, at which both weights hold
Readers sum what stands there; compaction replaces a prefix by its sum.

Statistics of an item: 16 bytes
    sessions u32 · events u32 · recent events f32, decayed to · time u32, s
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from config.errors import StoreError
from processors.cooccurrence import Increments
from processors.session import SessionTable
from streams.columns import EVENT_BITS, F64, I64, TAG_BITS, U64

__all__ = [
    "ENTRY",
    "STATISTICS",
    "ItemLists",
    "Sums",
    "neighbour_entries",
    "pack_sessions",
    "sum_for_requests",
    "sum_lists",
    "unpack_sessions",
    "unpack_statistics",
]

ENTRY = np.dtype([("neighbour", "<u8"), ("forward", "<f4"), ("backward", "<f4"), ("time", "<u4")])
STATISTICS = np.dtype(
    [("sessions", "<u4"), ("events", "<u4"), ("recent", "<f4"), ("recent_at", "<u4")]
)
_EVENT = np.dtype([("item", "<u8"), ("age", "<u4"), ("word", "<u8")])
_HEAD_WORDS, _EVENT_WORDS = 2, 5
_FARTHEST_AHEAD = 40.0
"""A clock that runs years ahead makes a count e to this power too large, and not infinite."""
_TYPE_BITS = 64 - EVENT_BITS - TAG_BITS
_TAG_MASK = np.uint64((1 << TAG_BITS) - 1)
_NOT_A_SESSION, _NOT_A_LIST, _NO_STATISTICS = (
    f"{what} of an impossible length: does something else write to this namespace "
    "(setting store.namespace)?"
    for what in ("a session vector", "a neighbour list", "an item's statistics")
)
_TYPE_MASK = np.uint64((1 << _TYPE_BITS) - 1)


def pack_sessions(table: SessionTable) -> tuple[npt.NDArray[np.uint32], bytes]:
    """Session vectors of all users of a table: their lengths in bytes, and all of them joined.

    No user of the table may be without events.
    """
    counts = np.diff(table.start)
    latest = table.time[table.start[1:] - 1]
    age = np.repeat(latest, counts) - table.time
    events = np.zeros(len(table.item), _EVENT)
    events["item"] = table.item
    events["age"] = np.minimum(age, 0xFFFFFFFF)
    events["word"] = (
        (table.event << np.uint64(TAG_BITS + _TYPE_BITS))
        | (table.tag.astype(np.uint64) << np.uint64(_TYPE_BITS))
        | table.kind.astype(np.uint64)
    )
    words = np.zeros(len(counts) * _HEAD_WORDS + len(events) * _EVENT_WORDS, "<u4")
    head = np.arange(len(counts)) * _HEAD_WORDS + table.start[:-1] * _EVENT_WORDS
    words[head[:, None] + np.arange(_HEAD_WORDS)] = (
        latest.astype("<i8").view("<u4").reshape(-1, _HEAD_WORDS)
    )
    # An event stands behind all heads up to its user's own and all events before it.
    heads_before = np.repeat(np.arange(1, len(counts) + 1), counts) * _HEAD_WORDS
    at = heads_before + np.arange(len(events)) * _EVENT_WORDS
    words[at[:, None] + np.arange(_EVENT_WORDS)] = events.view("<u4").reshape(-1, _EVENT_WORDS)
    lengths = 4 * (_HEAD_WORDS + counts * _EVENT_WORDS)
    return lengths.astype(np.uint32), words.tobytes()


def unpack_sessions(user: U64, values: list[bytes | None]) -> SessionTable:
    """The table of users (m,), rising, from their session vectors; None where there is none.

    Raises StoreError for a value that is no session vector.
    """
    sizes = np.array([len(v) if v else 0 for v in values], np.int64)
    counts = (sizes // 4 - _HEAD_WORDS) // _EVENT_WORDS
    counts[sizes == 0] = 0
    if (sizes != np.where(sizes, 4 * (_HEAD_WORDS + counts * _EVENT_WORDS), 0)).any():
        raise StoreError(_NOT_A_SESSION)
    words = np.frombuffer(b"".join(v for v in values if v), "<u4")
    start = np.zeros(len(user) + 1, np.int64)
    np.cumsum(counts, out=start[1:])
    filled = np.flatnonzero(counts)
    head = np.arange(len(filled)) * _HEAD_WORDS + start[filled] * _EVENT_WORDS
    latest = words[head[:, None] + np.arange(_HEAD_WORDS)].copy().view("<i8").ravel()
    heads_before = np.repeat(np.arange(1, len(filled) + 1), counts[filled]) * _HEAD_WORDS
    at = heads_before + np.arange(start[-1]) * _EVENT_WORDS
    events = words[at[:, None] + np.arange(_EVENT_WORDS)].copy().view(_EVENT).ravel()
    word = events["word"]
    return SessionTable(
        user,
        start,
        events["item"].astype(np.uint64),
        np.repeat(latest, counts[filled]).astype(np.int64) - events["age"].astype(np.int64),
        word >> np.uint64(TAG_BITS + _TYPE_BITS),
        ((word >> np.uint64(_TYPE_BITS)) & _TAG_MASK).astype(np.uint32),
        (word & _TYPE_MASK).astype(np.uint8),
    )


def neighbour_entries(increments: Increments) -> npt.NDArray[np.void]:
    """Increments as list entries, in the same order."""
    return _entries(increments.neighbour, increments.forward, increments.backward, increments.time)


def _entries(
    neighbour: U64,
    forward: npt.NDArray[np.floating],
    backward: npt.NDArray[np.floating],
    time: npt.NDArray[np.integer],
) -> npt.NDArray[np.void]:
    entries = np.zeros(len(neighbour), ENTRY)
    entries["neighbour"] = neighbour
    entries["forward"] = forward
    entries["backward"] = backward
    entries["time"] = time
    return entries


@dataclass(frozen=True, slots=True)
class ItemLists:
    """Summed neighbour lists of m items, k neighbours in all."""

    start: I64
    """(m + 1,) where each item's neighbours begin."""
    neighbour: U64
    forward: F64
    """Decayed to `time`."""
    backward: F64
    """Decayed to `time`."""
    time: I64
    """Seconds since 1970 of the latest entry of each neighbour."""

    def keep_best(self, most: int, rate: float, backward: float) -> ItemLists:
        """The `most` heaviest neighbours of each item, compared at one time; `backward` is what
        a backward count is worth (setting `rank.backward`).
        """
        owner = np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))
        # ln(weight at a common time): no overflow, however far the times lie apart.
        with np.errstate(divide="ignore"):
            strength = np.log(self.forward + backward * self.backward) + rate * self.time
        order = np.lexsort((-strength, owner))
        rank = np.arange(len(order)) - self.start[owner[order]]
        keep = np.sort(order[rank < most])
        start = np.zeros_like(self.start)
        np.cumsum(np.minimum(np.diff(self.start), most), out=start[1:])
        return ItemLists(
            start, self.neighbour[keep], self.forward[keep], self.backward[keep], self.time[keep]
        )

    def pack(self) -> list[bytes]:
        """Each item's list."""
        data = _entries(self.neighbour, self.forward, self.backward, self.time).tobytes()
        ends = (self.start * ENTRY.itemsize).tolist()
        return [data[a:b] for a, b in pairwise(ends)]


def sum_lists(values: list[bytes | None], rate: float) -> ItemLists:
    """Sum the logs of m items; `rate` is that of `processors.cooccurrence.decay_rate`.

    Raises StoreError for a value that is no list.
    """
    entries, owner = _joined(values)
    order = np.lexsort((entries["neighbour"], owner))
    entries, owner = entries[order], owner[order]
    begin = _begins(entries["neighbour"], owner)
    time = entries["time"].astype(np.int64)
    if not len(begin):
        nothing = np.zeros(0)
        start = np.zeros(len(values) + 1, np.int64)
        return ItemLists(start, np.zeros(0, np.uint64), nothing, nothing, time)
    latest = np.maximum.reduceat(time, begin)
    age = np.repeat(latest, np.diff(np.append(begin, len(entries)))) - time
    left = np.exp(-rate * age)
    return ItemLists(
        owner[begin].searchsorted(np.arange(len(values) + 1)).astype(np.int64),
        entries["neighbour"][begin].astype(np.uint64),
        np.add.reduceat(entries["forward"] * left, begin),
        np.add.reduceat(entries["backward"] * left, begin),
        latest,
    )


@dataclass(frozen=True, slots=True)
class Sums:
    """The neighbours of m items, k in all, their weights decayed to one moment."""

    start: list[int]
    """(m + 1,) where each item's neighbours begin."""
    neighbour: U64
    forward: npt.NDArray[np.float32]
    backward: npt.NDArray[np.float32]


def sum_for_requests(values: list[bytes | None], rate: float, moment: int) -> Sums:
    """What `sum_lists` says, for the path of requests: `moment` is in seconds since 1970."""
    entries, owner = _joined(values)
    neighbour = entries["neighbour"]
    ahead = rate * (entries["time"].astype(np.float64) - moment)
    left = np.exp(np.minimum(ahead, _FARTHEST_AHEAD))
    order = np.lexsort((neighbour, owner))
    neighbour, owner, left = neighbour[order], owner[order], left[order]
    begin = _begins(neighbour, owner)
    sums = [
        np.add.reduceat(entries[part][order] * left, begin).astype(np.float32)
        if len(begin)
        else np.zeros(0, np.float32)
        for part in ("forward", "backward")
    ]
    start = owner[begin].searchsorted(np.arange(len(values) + 1)).tolist()
    return Sums(start, neighbour[begin], *sums)


def unpack_statistics(values: list[bytes | None]) -> npt.NDArray[np.void]:
    """Statistics (m,) of items as STATISTICS, zeros where there are none.

    Raises StoreError for a value that is none.
    """
    nothing = bytes(STATISTICS.itemsize)
    data = b"".join([value or nothing for value in values])
    if len(data) != len(values) * STATISTICS.itemsize:
        raise StoreError(_NO_STATISTICS)
    return np.frombuffer(data, STATISTICS)


def _joined(values: list[bytes | None]) -> tuple[npt.NDArray[np.void], I64]:
    """All entries of m logs, and whose they are."""
    sizes = [len(v) if v else 0 for v in values]
    if any([size % ENTRY.itemsize for size in sizes]):
        raise StoreError(_NOT_A_LIST)
    entries = np.frombuffer(b"".join([v for v in values if v]), ENTRY)
    return entries, np.repeat(np.arange(len(values)), np.array(sizes, np.int64) // ENTRY.itemsize)


def _begins(neighbour: U64, owner: I64) -> npt.NDArray[np.intp]:
    """Where the runs of one owner's same neighbours begin, of sorted entries."""
    begins = np.ones(len(owner), np.bool_)
    begins[1:] = (neighbour[1:] != neighbour[:-1]) | (owner[1:] != owner[:-1])
    return begins.nonzero()[0]
