"""How values lie in Redis: what is packed comes back, and what is summed is the sum."""

from __future__ import annotations

import math
import struct
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import StoreError
from processors.cooccurrence import Increments, decay_rate
from processors.session import SessionTable, empty_table
from store.layout import (
    ENTRY,
    STATISTICS,
    neighbour_entries,
    pack_sessions,
    sum_for_requests,
    sum_lists,
    unpack_sessions,
    unpack_statistics,
)
from streams.columns import EVENT_BITS, RESERVED_IDS, TAG_BITS

LONGEST_AGE = 0xFFFFFFFF
RATE = decay_rate(30)
ids = st.integers(RESERVED_IDS, 2**64 - 1)
Row = tuple[int, int, int, int, int]

rows = st.tuples(
    st.integers(0, 4_000_000_000_000),
    ids,
    st.integers(0, 2**EVENT_BITS - 1),
    st.integers(1, 2**TAG_BITS - 1),
    st.integers(0, 31),
)


def table_of(histories: dict[int, list[Row]]) -> SessionTable:
    users = sorted(histories)
    events = [row for user in users for row in histories[user]]
    columns = list(zip(*events, strict=True)) or [()] * 5
    return SessionTable(
        user=np.array(users, np.uint64),
        start=np.cumsum([0] + [len(histories[user]) for user in users]).astype(np.int64),
        time=np.array(columns[0], np.int64),
        item=np.array(columns[1], np.uint64),
        event=np.array(columns[2], np.uint64),
        tag=np.array(columns[3], np.uint32),
        kind=np.array(columns[4], np.uint8),
    )


def histories_of(table: SessionTable) -> dict[int, list[Row]]:
    columns = (table.time, table.item, table.event, table.tag, table.kind)
    events = list(zip(*(column.tolist() for column in columns), strict=True))
    start = table.start.tolist()
    return {u: events[start[i] : start[i + 1]] for i, u in enumerate(table.user.tolist())}


def split(lengths: np.ndarray[tuple[int], np.dtype[np.uint32]], data: bytes) -> list[bytes]:
    ends = np.cumsum(lengths).tolist()
    assert ends[-1:] == [len(data)] if ends else data == b""
    return [data[end - size : end] for end, size in zip(ends, lengths.tolist(), strict=True)]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(ids, st.lists(rows, min_size=1, max_size=6), max_size=5), st.sets(ids))
def test_sessions_come_back(histories: dict[int, list[Row]], unknown: set[int]) -> None:
    histories = {
        user: sorted(
            (row for row in events if row[0] >= max(e[0] for e in events) - LONGEST_AGE),
            key=lambda row: row[0],
        )
        for user, events in histories.items()
    }
    lengths, data = pack_sessions(table_of(histories))
    vectors = dict(zip(sorted(histories), split(lengths, data), strict=True))
    assert {u: len(v) for u, v in vectors.items()} == {
        u: 8 + 20 * len(events) for u, events in histories.items()
    }
    users = sorted({*histories, *unknown})
    found = unpack_sessions(np.array(users, np.uint64), [vectors.get(user) for user in users])
    assert histories_of(found) == {user: histories.get(user, []) for user in users}


def test_a_session_vector_byte_by_byte() -> None:
    table = table_of({99: [(1_000, 77, 5, 6, 7), (1_500, 2**64 - 1, 0, 1, 0)]})
    lengths, data = pack_sessions(table)
    assert lengths.tolist() == [48]
    assert data == struct.pack(
        "<qQIQQIQ", 1_500, 77, 500, 5 << 24 | 6 << 5 | 7, 2**64 - 1, 0, 1 << 5
    )


def test_an_event_is_at_most_49_days_older_than_the_latest() -> None:
    year = 365 * 86_400_000
    _, data = pack_sessions(table_of({99: [(0, 77, 0, 1, 0), (year, 78, 0, 1, 0)]}))
    found = histories_of(unpack_sessions(np.array([99], np.uint64), [data]))[99]
    assert [row[0] for row in found] == [year - LONGEST_AGE, year]


def test_no_users_and_users_without_events() -> None:
    lengths, data = pack_sessions(empty_table(np.zeros(0, np.uint64)))
    assert (lengths.tolist(), data) == ([], b"")
    assert histories_of(unpack_sessions(np.zeros(0, np.uint64), [])) == {}
    assert histories_of(unpack_sessions(np.array([20, 30], np.uint64), [None, b""])) == {
        20: [],
        30: [],
    }


@pytest.mark.parametrize("size", [1, 4, 7, 9, 20, 27, 29, 47])
def test_a_session_vector_of_impossible_length_is_refused(size: int) -> None:
    with pytest.raises(StoreError, match="impossible length"):
        unpack_sessions(np.array([20], np.uint64), [b"\1" * size])


@pytest.mark.parametrize("size", [1, 8, 19, 21, 39])
def test_a_neighbour_list_of_impossible_length_is_refused(size: int) -> None:
    with pytest.raises(StoreError, match="impossible length"):
        sum_lists([bytes(20), b"\1" * size], RATE)
    with pytest.raises(StoreError, match="impossible length"):
        sum_for_requests([bytes(20), b"\1" * size], RATE, 0)


counts = st.floats(2**-20, 1000, width=32)
entries = st.tuples(
    st.integers(RESERVED_IDS, RESERVED_IDS + 6) | ids,
    counts | st.just(0.0),
    counts,
    st.integers(1_600_000_000, 1_800_000_000) | st.integers(0, 2**32 - 1),
)
logs = st.lists(st.none() | st.lists(entries, max_size=30), max_size=4)
Entry = tuple[int, float, float, int]
WORTH = 0.5


def packed(log: list[Entry] | None) -> bytes | None:
    if log is None:
        return None
    return b"".join(struct.pack("<QffI", *entry) for entry in log)


def summed(log: list[Entry]) -> dict[int, tuple[float, float, int]]:
    """Neighbour to (forward, backward, latest time)."""
    parts: dict[int, list[tuple[float, float, int]]] = defaultdict(list)
    for neighbour, *part in log:
        parts[neighbour].append(tuple(part))  # type: ignore[arg-type]
    lists = {}
    for neighbour, some in parts.items():
        latest = max(time for _, _, time in some)
        left = [math.exp(RATE * (time - latest)) for _, _, time in some]
        forward = sum(part[0] * x for part, x in zip(some, left, strict=True))
        backward = sum(part[1] * x for part, x in zip(some, left, strict=True))
        lists[neighbour] = forward, backward, latest
    return lists


@settings(max_examples=200, deadline=None)
@given(logs)
def test_lists_sum_as_dicts_do(log: list[list[Entry] | None]) -> None:
    found = sum_lists([packed(entries) for entries in log], RATE)
    start = found.start.tolist()
    assert len(start) == len(log) + 1
    for place, entries in enumerate(log):
        lists = summed(entries or [])
        mine = slice(start[place], start[place + 1])
        assert found.neighbour[mine].tolist() == sorted(lists)
        for part, counts in enumerate((found.forward, found.backward)):
            assert counts[mine].tolist() == pytest.approx(
                [lists[n][part] for n in sorted(lists)], rel=1e-6
            )
        assert found.time[mine].tolist() == [lists[n][2] for n in sorted(lists)]


@settings(max_examples=200, deadline=None)
@given(logs, st.integers(1, 5))
def test_the_best_are_kept_and_packed_again(log: list[list[Entry] | None], most: int) -> None:
    kept = sum_lists([packed(entries) for entries in log], RATE).keep_best(most, RATE, WORTH)
    values = kept.pack()
    again = sum_lists(list(values), RATE)
    assert len(values) == len(log)
    for place, entries in enumerate(log):
        lists = summed(entries or [])
        mine = slice(int(again.start[place]), int(again.start[place + 1]))
        neighbours = again.neighbour[mine].tolist()
        assert len(values[place]) == 20 * len(neighbours)
        assert len(neighbours) == min(most, len(lists))
        for part, counts in enumerate((again.forward, again.backward)):
            assert counts[mine].tolist() == pytest.approx(
                [lists[n][part] for n in neighbours], rel=1e-6
            )
        assert again.time[mine].tolist() == [lists[n][2] for n in neighbours]
        # ln(weight) at one moment: the kept are no weaker than those that went.
        strength = {n: math.log(f + WORTH * b) + RATE * t for n, (f, b, t) in lists.items()}
        gone = [strength[n] for n in lists if n not in neighbours]
        if gone:
            assert min(strength[n] for n in neighbours) >= max(gone) - 1e-9


def test_entries_and_statistics_byte_by_byte() -> None:
    assert ENTRY.itemsize == 20
    increments = Increments(
        np.array([20, 21], np.uint64),
        np.array([30, 31], np.uint64),
        np.array([0.5, 2], np.float32),
        np.array([0, 0.25], np.float32),
        np.array([7, 2**32 - 1], np.uint32),
    )
    assert neighbour_entries(increments).tobytes() == struct.pack(
        "<QffIQffI", 30, 0.5, 0, 7, 31, 2, 0.25, 2**32 - 1
    )
    assert STATISTICS.itemsize == 16
    found = unpack_statistics([None, struct.pack("<IIfI", 1, 2, 0.5, 7), b""])
    assert found.tolist() == [(0, 0, 0, 0), (1, 2, 0.5, 7), (0, 0, 0, 0)]
    with pytest.raises(StoreError, match="impossible length"):
        unpack_statistics([bytes(15)])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 90)), max_size=40))
def test_the_quick_ways_of_requests_say_the_same(rows: list[tuple[int, int, int]]) -> None:
    rate, moment = 0.01, 1_000_100
    logs: list[bytes | None] = [None] * 4
    for item, neighbour, seconds in rows:
        entry = struct.pack(
            "<QffI", 100 + neighbour, 0.5 + neighbour, seconds % 3, 1_000_000 + seconds
        )
        logs[item] = (logs[item] or b"") + entry
    slow = sum_lists(logs, rate)
    quick = sum_for_requests(logs, rate, moment)
    assert quick.start == slow.start.tolist()
    assert quick.neighbour.tolist() == slow.neighbour.tolist()
    left = np.exp(rate * (slow.time - moment))
    assert quick.forward == pytest.approx(slow.forward * left, rel=1e-6)
    assert quick.backward == pytest.approx(slow.backward * left, rel=1e-6)


def test_one_session_field_by_field() -> None:
    user = np.array([77], np.uint64)
    vector = struct.pack("<q", 10**12) + b"".join(
        struct.pack("<QIQ", 50 + n, 9 - n, (n << 24) | (3 << 5) | 1) for n in range(4)
    )
    found = unpack_sessions(user, [vector])
    columns = {
        "user": [77],
        "start": [0, 4],
        "item": [50, 51, 52, 53],
        "time": [10**12 - age for age in (9, 8, 7, 6)],
        "event": [0, 1, 2, 3],
        "tag": [3] * 4,
        "kind": [1] * 4,
    }
    for name, wanted in columns.items():
        assert getattr(found, name).tolist() == wanted, name
    assert len(unpack_sessions(user, [None]).item) == 0
    with pytest.raises(StoreError):
        unpack_sessions(user, [vector[:-1]])
