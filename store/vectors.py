"""Session vectors: packing and unpacking the histories of a whole batch in one loop each.

One vector, little-endian:

    word u64 = time of the latest event (48 bits, ms since 1970) · day of writing (16 bits, since
    1970), by which users are forgotten (`forget.py`)
    number of events u8
    and for each event, latest first:
        flags u8 = event type (5 bits) · has an event key (bit 5) · begins a run of one tag (bit 6)
        item u64
        ms between this event and the one before it in this list, 7 bits a byte, lowest first,
            bit 7 set where another byte follows (the latest event has a 0)
        event key, 5 bytes, where bit 5 is set
        session tag, 3 bytes, where bit 6 is set; else that of the event before it in this list

A record, as `lua/commit_users.lua` takes it, is the key in Redis, the length of the vector (u32)
and the vector.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from config.compiled import compiled
from config.errors import StoreError
from processors.session import SessionTable
from store.keys import head_rows
from streams.columns import EVENT_BITS, I64, TAG_BITS, U64

__all__ = [
    "HAS_KEY",
    "HEAD_BYTES",
    "KIND_BITS",
    "NEW_TAG",
    "NOT_A_SESSION",
    "READ_BYTES",
    "U8",
    "pack_records",
    "pack_sessions",
    "unpack_joined",
    "unpack_sessions",
]

U8 = npt.NDArray[np.uint8]

HEAD_BYTES = 9
_LONGEST_EVENT = 1 + 8 + 10 + 5 + 3
NOT_A_SESSION = (
    "a session vector that cannot be read: does something else write to this namespace "
    "(setting store.namespace)?"
)
KIND_BITS, HAS_KEY, NEW_TAG = 31, 32, 64
"""Of an event's flags."""
READ_BYTES = "Array(uint8, 1, 'C', readonly=True)"
_COLUMNS = "u8[::1], i8[::1], u8[::1], u4[::1], u1[::1]"

assert EVENT_BITS <= 40 and TAG_BITS <= 24, "they have 5 and 3 bytes"  # noqa: S101, PT018


def pack_sessions(table: SessionTable, day: int) -> tuple[npt.NDArray[np.uint32], bytes]:
    """Session vectors of all users of a table: their lengths in bytes, and all of them joined.

    A user without events has no vector, which is one of 0 bytes; nobody may have more than 255.
    `day` is that of writing.
    """
    out, ends = _room(table, 0), np.zeros(len(table.user), np.int64)
    _pack(out, ends, day, table.start, *_columns(table))
    lengths = np.diff(ends, prepend=0).astype(np.uint32)
    return lengths, out[: ends[-1] if len(ends) else 0].tobytes()


def pack_records(table: SessionTable, day: int, heads: list[bytes], shard: I64) -> list[bytes]:
    """Records of all users of a table, joined for each shard; the key of a user is its shard's
    head, then the user's hash. `shard` (m,) says where each user lies, `day` is that of writing.
    """
    known, sizes = head_rows(heads)
    out, ends = _room(table, known.shape[1] + 12), np.zeros(len(heads), np.int64)
    order = np.argsort(shard, kind="stable")
    _pack_records(
        out, ends, day, known, sizes, shard, order, table.user, table.start, *_columns(table)
    )
    bounds = [0, *ends.tolist()]
    return [out[a:b].tobytes() for a, b in pairwise(bounds)]


def unpack_sessions(user: U64, values: list[bytes | None]) -> SessionTable:
    """The table of users (m,), rising, from their session vectors; None where there is none.

    Raises StoreError for a value that is no session vector.
    """
    return unpack_joined(user, values, np.arange(len(values)))


def unpack_joined(user: U64, values: list[bytes | None], place: I64) -> SessionTable:
    """The same of values in another order: that of user i is `values[place[i]]`."""
    size = np.array([len(value) if value else 0 for value in values], np.int64)
    data = np.frombuffer(b"".join([value for value in values if value]), np.uint8)
    begin = (np.cumsum(size) - size)[place]
    size = size[place]
    start = np.zeros(len(user) + 1, np.int64)
    if not _count(data, begin, size, start):
        raise StoreError(NOT_A_SESSION)
    count = int(start[-1])
    table = SessionTable(
        user,
        start,
        np.empty(count, np.uint64),
        np.empty(count, np.int64),
        np.empty(count, np.uint64),
        np.empty(count, np.uint32),
        np.empty(count, np.uint8),
    )
    if not _unpack(data, begin, size, start, *_columns(table)):
        raise StoreError(NOT_A_SESSION)
    return table


def _columns(
    table: SessionTable,
) -> tuple[U64, I64, U64, npt.NDArray[np.uint32], U8]:
    columns = (table.item, table.time, table.event, table.tag, table.kind)
    return tuple(np.ascontiguousarray(column) for column in columns)  # type: ignore[return-value]


def _room(table: SessionTable, more: int) -> U8:
    """Bytes for all vectors, and `more` for each."""
    return np.empty(
        len(table.item) * _LONGEST_EVENT + len(table.user) * (HEAD_BYTES + more), np.uint8
    )


@compiled("i8(u1[::1], i8, u8, i8)")
def _put(out: U8, at: int, value: np.uint64, size: int) -> int:
    """Write the low bytes of a number; returns where they end."""
    for _ in range(size):
        out[at] = value & np.uint64(0xFF)
        value >>= np.uint64(8)
        at += 1
    return at


@compiled(f"u8({READ_BYTES}, i8, i8)")
def _get(data: U8, at: int, size: int) -> np.uint64:
    """Read a number of some bytes."""
    value = np.uint64(0)
    for n in range(size - 1, -1, -1):
        value = (value << np.uint64(8)) | np.uint64(data[at + n])
    return value


@compiled(f"i8(u1[::1], i8, i8, i8, i8, {_COLUMNS})")
def _pack_one(
    out: U8,
    at: int,
    day: int,
    first: int,
    end: int,
    item: U64,
    time: I64,
    event: U64,
    tag: npt.NDArray[np.uint32],
    kind: U8,
) -> int:
    """Write the vector of events first … end - 1; returns where it ends."""
    if first == end:
        return at
    latest = time[end - 1]
    at = _put(out, at, (np.uint64(latest) << np.uint64(16)) | np.uint64(day & 0xFFFF), 8)
    out[at] = end - first
    at += 1
    before, known = latest, np.uint32(0)
    for k in range(end - 1, first - 1, -1):
        flags = kind[k]
        if event[k]:
            flags |= HAS_KEY
        if tag[k] != known or k == end - 1:
            flags |= NEW_TAG
        out[at] = flags
        at = _put(out, at + 1, item[k], 8)
        age = np.uint64(before - time[k])
        while age > np.uint64(127):
            out[at] = (age & np.uint64(127)) | np.uint64(128)
            age >>= np.uint64(7)
            at += 1
        out[at] = age
        at += 1
        if event[k]:
            at = _put(out, at, event[k], 5)
        if flags & NEW_TAG:
            at = _put(out, at, np.uint64(tag[k]), 3)
        before, known = time[k], tag[k]
    return at


@compiled(f"void(u1[::1], i8[::1], i8, i8[::1], {_COLUMNS})")
def _pack(
    out: U8,
    ends: I64,
    day: int,
    start: I64,
    item: U64,
    time: I64,
    event: U64,
    tag: npt.NDArray[np.uint32],
    kind: U8,
) -> None:
    at = 0
    for i in range(len(ends)):
        at = _pack_one(out, at, day, start[i], start[i + 1], item, time, event, tag, kind)
        ends[i] = at


@compiled(
    "void(u1[::1], i8[::1], i8, u1[:, ::1], i8[::1], i8[::1], i8[::1], u8[::1], i8[::1], "
    f"{_COLUMNS})"
)
def _pack_records(
    out: U8,
    ends: I64,
    day: int,
    heads: npt.NDArray[np.uint8],
    sizes: I64,
    shard: I64,
    order: I64,
    user: U64,
    start: I64,
    item: U64,
    time: I64,
    event: U64,
    tag: npt.NDArray[np.uint32],
    kind: U8,
) -> None:
    at = 0
    place = 0
    for s in range(len(ends)):
        while place < len(order) and shard[order[place]] == s:
            i = order[place]
            out[at : at + sizes[s]] = heads[s, : sizes[s]]
            at = _put(out, at + sizes[s], user[i], 8)
            vector = at + 4
            end = _pack_one(out, vector, day, start[i], start[i + 1], item, time, event, tag, kind)
            _put(out, at, np.uint64(end - vector), 4)
            at = end
            place += 1
        ends[s] = at


@compiled(f"b1({READ_BYTES}, i8[::1], i8[::1], i8[::1])")
def _count(data: U8, begin: I64, size: I64, start: I64) -> bool:
    """Where each user's events begin, as the heads say; false where they cannot be right."""
    for i in range(len(begin)):
        count = np.int64(0)
        if size[i]:
            if size[i] < HEAD_BYTES:
                return False
            count = np.int64(data[begin[i] + 8])
            if count * 10 > size[i] - HEAD_BYTES:
                return False
        start[i + 1] = start[i] + count
    return True


@compiled(f"b1({READ_BYTES}, i8[::1], i8[::1], i8[::1], {_COLUMNS})")
def _unpack(
    data: U8,
    begin: I64,
    size: I64,
    start: I64,
    item: U64,
    time: I64,
    event: U64,
    tag: npt.NDArray[np.uint32],
    kind: U8,
) -> bool:
    """Fill the columns; false where a vector does not end where it has to."""
    for i in range(len(begin)):
        if not size[i]:
            continue
        at, end = begin[i], begin[i] + size[i]
        moment = np.int64(_get(data, at, 8) >> np.uint64(16))
        known = np.uint32(0)
        at += HEAD_BYTES
        for k in range(start[i + 1] - 1, start[i] - 1, -1):
            if at + 10 > end:
                return False
            flags = data[at]
            item[k] = _get(data, at + 1, 8)
            at += 9
            age, shift, more = np.uint64(0), np.uint64(0), True
            while more:
                if at >= end or shift > np.uint64(63):
                    return False
                age |= np.uint64(data[at] & 127) << shift
                more = data[at] > 127
                shift += np.uint64(7)
                at += 1
            moment -= np.int64(age)
            time[k] = moment
            event[k] = 0
            if at + (5 if flags & HAS_KEY else 0) + (3 if flags & NEW_TAG else 0) > end:
                return False
            if flags & HAS_KEY:
                event[k] = _get(data, at, 5)
                at += 5
            if flags & NEW_TAG:
                known = np.uint32(_get(data, at, 3))
                at += 3
            tag[k] = known
            kind[k] = flags & KIND_BITS
        if at != end:
            return False
    return True
