"""How values lie in Redis, byte by byte. Pure numpy; all little-endian.

Session vector of a user: the time of the latest event (i64, ms), then 20 bytes an event in time
order:
    item u64 · age u32, ms before the latest event, at most 49 days · word u64 =
    event key (40 bits) · session tag (19 bits) · event type (5 bits)

Neighbour list of an item: a log of 16-byte entries
    neighbour u64 · weight f32 · time u32, s, at which the weight holds
in which the reserved neighbours COUNT_SESSIONS and COUNT_EVENTS carry a u64 count instead of weight
and time. Readers sum what stands there; compaction replaces a prefix by its sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.errors import StoreError
from processors.cooccurrence import Increments
from processors.session import SessionTable, empty_table
from streams.columns import EVENT_BITS, F64, I64, RESERVED_IDS, TAG_BITS, U64

__all__ = [
    "COUNT_EVENTS",
    "COUNT_SESSIONS",
    "ENTRY",
    "ItemLists",
    "count_entries",
    "neighbour_entries",
    "pack_sessions",
    "sum_lists",
    "sum_strengths",
    "unpack_session",
    "unpack_sessions",
]

ENTRY = np.dtype([("neighbour", "<u8"), ("weight", "<f4"), ("time", "<u4")])
COUNT_SESSIONS = 1
COUNT_EVENTS = 2
_COUNT = np.dtype([("neighbour", "<u8"), ("count", "<u8")])
_EVENT = np.dtype([("item", "<u8"), ("age", "<u4"), ("word", "<u8")])
_HEAD_WORDS, _EVENT_WORDS = 2, 5
_TYPE_BITS = 64 - EVENT_BITS - TAG_BITS
_TAG_MASK = np.uint64((1 << TAG_BITS) - 1)
_NOT_A_SESSION, _NOT_A_LIST = (
    f"a {what} has an impossible length: does something else write to this namespace "
    "(setting store.namespace)?"
    for what in ("session vector", "neighbour list")
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


def unpack_session(user: U64, value: bytes | None) -> SessionTable:
    """`unpack_sessions` of one user (1,), in a fraction of its time."""
    if not value:
        return empty_table(user)
    count, rest = divmod(len(value) - 4 * _HEAD_WORDS, _EVENT.itemsize)
    if count < 1 or rest:
        raise StoreError(_NOT_A_SESSION)
    events = np.frombuffer(value, _EVENT, count, 4 * _HEAD_WORDS)
    word = events["word"]
    return SessionTable(
        user,
        np.array([0, count], np.int64),
        events["item"],
        int.from_bytes(value[: 4 * _HEAD_WORDS], "little", signed=True)
        - events["age"].astype(np.int64),
        word >> np.uint64(TAG_BITS + _TYPE_BITS),
        ((word >> np.uint64(_TYPE_BITS)) & _TAG_MASK).astype(np.uint32),
        (word & _TYPE_MASK).astype(np.uint8),
    )


def neighbour_entries(increments: Increments) -> npt.NDArray[np.void]:
    """Increments as list entries, in the same order."""
    entries = np.zeros(len(increments.neighbour), ENTRY)
    entries["neighbour"] = increments.neighbour
    entries["weight"] = increments.weight
    entries["time"] = increments.time
    return entries


def count_entries(which: int, counts: I64) -> npt.NDArray[np.void]:
    """Counters as list entries; `which` is COUNT_SESSIONS or COUNT_EVENTS."""
    entries = np.zeros(len(counts), _COUNT)
    entries["neighbour"] = which
    entries["count"] = counts
    return entries.view(ENTRY)


@dataclass(frozen=True, slots=True)
class ItemLists:
    """Summed neighbour lists of m items, k neighbours in all."""

    start: I64
    """(m + 1,) where each item's neighbours begin."""
    neighbour: U64
    weight: F64
    """Decayed to `time`."""
    time: I64
    """Seconds since 1970 of the latest entry of each neighbour."""
    sessions: I64
    """(m,) sessions with the item."""
    events: I64
    """(m,) events of the item."""

    def keep_best(self, most: int, rate: float) -> ItemLists:
        """The `most` heaviest neighbours of each item, weights compared at one time."""
        owner = np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))
        # ln(weight at a common time): no overflow, however far the times lie apart.
        strength = np.log(self.weight) + rate * self.time
        order = np.lexsort((-strength, owner))
        rank = np.arange(len(order)) - self.start[owner[order]]
        keep = np.sort(order[rank < most])
        start = np.zeros_like(self.start)
        np.cumsum(np.minimum(np.diff(self.start), most), out=start[1:])
        return ItemLists(
            start,
            self.neighbour[keep],
            self.weight[keep],
            self.time[keep],
            self.sessions,
            self.events,
        )

    def pack(self) -> list[bytes]:
        """Each item's list: its counters, then its neighbours."""
        entries = np.zeros(len(self.neighbour), ENTRY)
        entries["neighbour"] = self.neighbour
        entries["weight"] = self.weight
        entries["time"] = self.time
        sessions = count_entries(COUNT_SESSIONS, self.sessions)
        events = count_entries(COUNT_EVENTS, self.events)
        return [
            sessions[i : i + 1].tobytes()
            + events[i : i + 1].tobytes()
            + entries[self.start[i] : self.start[i + 1]].tobytes()
            for i in range(len(self.start) - 1)
        ]


def sum_lists(values: list[bytes | None], rate: float) -> ItemLists:
    """Sum the logs of m items; `rate` is that of `processors.cooccurrence.decay_rate`.

    Raises StoreError for a value that is no list.
    """
    sizes = np.array([len(v) if v else 0 for v in values], np.int64)
    if (sizes % ENTRY.itemsize).any():
        raise StoreError(_NOT_A_LIST)
    entries = np.frombuffer(b"".join(v for v in values if v), ENTRY)
    owner = np.repeat(np.arange(len(values)), sizes // ENTRY.itemsize)
    reserved = entries["neighbour"] < RESERVED_IDS
    counts = entries[reserved].view(_COUNT)
    count_owner = owner[reserved]
    sessions, events = (
        _sum_counts(count_owner, counts, which, len(values))
        for which in (COUNT_SESSIONS, COUNT_EVENTS)
    )
    entries, owner = entries[~reserved], owner[~reserved]
    order = np.lexsort((entries["neighbour"], owner))
    entries, owner = entries[order], owner[order]
    if len(entries):
        changes = (entries["neighbour"][1:] != entries["neighbour"][:-1]) | (
            owner[1:] != owner[:-1]
        )
        begin = np.flatnonzero(np.concatenate([[True], changes]))
    else:
        begin = np.zeros(0, np.intp)
    time = entries["time"].astype(np.int64)
    if len(begin):
        latest = np.maximum.reduceat(time, begin)
        age = np.repeat(latest, np.diff(np.append(begin, len(entries)))) - time
        weight = np.add.reduceat(entries["weight"] * np.exp(-rate * age), begin)
    else:
        latest, weight = time, np.zeros(0)
    start = np.searchsorted(owner[begin], np.arange(len(values) + 1)).astype(np.int64)
    return ItemLists(
        start, entries["neighbour"][begin].astype(np.uint64), weight, latest, sessions, events
    )


def sum_strengths(
    values: list[bytes | None], rate: float, moment: int
) -> tuple[I64, U64, F64, I64]:
    """The neighbours of m items, their weights decayed to one moment (seconds since 1970).

    What `sum_lists` says, less the times and the events, for the path of requests: where each
    item's neighbours begin (m + 1,), neighbours, weights, and sessions with the item (m,).
    """
    sizes = [len(v) if v else 0 for v in values]
    data = b"".join([v for v in values if v])
    if any([size % ENTRY.itemsize for size in sizes]):
        raise StoreError(_NOT_A_LIST)
    entries = np.frombuffer(data, ENTRY)
    owner = np.repeat(np.arange(len(values)), np.array(sizes) // ENTRY.itemsize)
    neighbour = entries["neighbour"]
    reserved = neighbour < RESERVED_IDS
    mine = neighbour == COUNT_SESSIONS
    sessions = np.bincount(
        owner[mine], np.frombuffer(data, _COUNT)["count"][mine], len(values)
    ).astype(np.int64)
    weight = entries["weight"] * np.exp(rate * (entries["time"].astype(np.float64) - moment))
    order = np.lexsort((neighbour, owner))
    order = order[~reserved[order]]
    neighbour, owner = neighbour[order], owner[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (neighbour[1:] != neighbour[:-1]) | (owner[1:] != owner[:-1])
    begin = begins.nonzero()[0]
    summed = np.add.reduceat(weight[order], begin) if len(begin) else np.zeros(0)
    start = owner[begin].searchsorted(np.arange(len(values) + 1)).astype(np.int64)
    return start, neighbour[begin], summed, sessions


def _sum_counts(owner: I64, counts: npt.NDArray[np.void], which: int, m: int) -> I64:
    total = np.zeros(m, np.int64)
    mine = counts["neighbour"] == which
    np.add.at(total, owner[mine], counts["count"][mine].astype(np.int64))
    return total
