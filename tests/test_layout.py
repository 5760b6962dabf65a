"""How values lie in Redis: what is packed comes back, and what is summed is the sum."""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import StoreError
from processors.cooccurrence import Increments, decay_rate
from processors.fold import ItemDeltas
from processors.popularity import TrendRows
from processors.session import SessionTable, empty_table
from store.additions import pack_additions
from store.latest import latest_items
from store.layout import STATISTICS, name_of, unpack_statistics
from store.lists import ItemLists, pack_increments, sum_lists, weigh_lists
from store.vectors import pack_records, pack_sessions, unpack_joined, unpack_sessions
from streams.columns import EVENT_BITS, RESERVED_IDS, TAG_BITS

RATE = decay_rate(30)
DAY = 20_000
ids = st.integers(RESERVED_IDS, 2**64 - 1)
Row = tuple[int, int, int, int, int]

rows = st.tuples(
    st.integers(0, 253_402_300_799_999),  # the end of the year 9999
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


def _histories(least: int) -> st.SearchStrategy[dict[int, list[Row]]]:
    some = st.lists(rows, min_size=least, max_size=6)
    return st.dictionaries(ids, some.map(lambda some: sorted(some, key=lambda r: r[0])))


histories, also_empty = _histories(1), _histories(0)


def bytes_of(history: list[Row]) -> bytes:
    """A session vector, written event by event; of no events, none."""
    if not history:
        return b""
    packed = struct.pack("<QB", history[-1][0] << 16 | DAY, len(history))
    time, known = history[-1][0], 0
    for at, item, event, tag, kind in reversed(history):
        packed += struct.pack("<BQ", kind | (event > 0) << 5 | (tag != known) << 6, item)
        age, time = time - at, at
        while age > 127:
            packed += bytes([age & 127 | 128])
            age >>= 7
        packed += bytes([age])
        packed += struct.pack("<Q", event)[:5] if event else b""
        packed += struct.pack("<I", tag)[:3] if tag != known else b""
        known = tag
    return packed


@settings(max_examples=150, deadline=None)
@given(also_empty, st.sets(ids), st.randoms())
def test_sessions_come_back(known: dict[int, list[Row]], unknown: set[int], random: Any) -> None:
    lengths, data = pack_sessions(table_of(known), DAY)
    vectors = dict(zip(sorted(known), split(lengths, data), strict=True))
    assert vectors == {user: bytes_of(history) for user, history in known.items()}
    users = sorted({*known, *unknown})
    found = unpack_sessions(np.array(users, np.uint64), [vectors.get(user) for user in users])
    assert histories_of(found) == {user: known.get(user, []) for user in users}
    place = random.sample(range(len(users)), len(users))
    values: list[bytes | None] = [None] * len(users)
    for user, at in zip(users, place, strict=True):
        values[at] = vectors.get(user)
    joined = unpack_joined(np.array(users, np.uint64), values, np.array(place, np.int64))
    assert histories_of(joined) == histories_of(found)


@settings(max_examples=50, deadline=None)
@given(also_empty, st.sampled_from([[b"h"], [b"ab{1.u0}s", b"ab{1.u10}s", b"s"]]))
def test_records_hold_key_length_and_vector(
    known: dict[int, list[Row]], heads: list[bytes]
) -> None:
    table = table_of(known)
    shard = (table.user % np.uint64(len(heads))).astype(np.int64)
    wanted = [b""] * len(heads)
    for user, history in sorted(known.items()):
        vector = bytes_of(history)
        key = heads[user % len(heads)] + struct.pack("<Q", user)
        wanted[user % len(heads)] += key + struct.pack("<I", len(vector)) + vector
    assert pack_records(table, DAY, heads, shard) == wanted


def test_a_session_vector_byte_by_byte() -> None:
    table = table_of({99: [(1_000, 77, 5, 6, 7), (1_500, 2**64 - 1, 0, 6, 0)]})
    _, data = pack_sessions(table, DAY)
    assert data == (
        struct.pack("<HIHB", DAY, 1_500, 0, 2)
        + struct.pack("<BQB", 64, 2**64 - 1, 0)
        + b"\6\0\0"
        + struct.pack("<BQ", 7 | 32, 77)
        + bytes([500 & 127 | 128, 500 >> 7])
        + b"\5\0\0\0\0"
    )


def test_an_event_of_a_click_stream_takes_seventeen_bytes() -> None:
    clicks = [(10**12 + 20_000 * n, 2**63 + n, 2**39 + n, 5, 1) for n in range(20)]
    _, data = pack_sessions(table_of({99: clicks}), DAY)
    assert len(data) == 9 + 3 + 20 * (1 + 8 + 5) + 1 + 19 * 3


def test_no_users_and_users_without_events() -> None:
    lengths, data = pack_sessions(empty_table(np.zeros(0, np.uint64)), DAY)
    assert (lengths.tolist(), data) == ([], b"")
    assert histories_of(unpack_sessions(np.zeros(0, np.uint64), [])) == {}
    assert histories_of(unpack_sessions(np.array([20, 30], np.uint64), [None, b""])) == {
        20: [],
        30: [],
    }


@settings(max_examples=200, deadline=None)
@given(histories.filter(len), st.data())
def test_what_is_cut_or_grown_is_no_session_vector(
    known: dict[int, list[Row]], data: st.DataObject
) -> None:
    users = np.array(sorted(known), np.uint64)
    vectors = [bytes_of(known[user]) for user in sorted(known)]
    broken = data.draw(st.integers(0, len(vectors) - 1))
    cut = data.draw(st.integers(1, len(vectors[broken]) - 1))
    for wrong in (vectors[broken][:cut], vectors[broken] + b"\0"):
        values: list[bytes | None] = [*vectors[:broken], wrong, *vectors[broken + 1 :]]
        with pytest.raises(StoreError, match="cannot be read"):
            unpack_sessions(users, values)
        with pytest.raises(StoreError, match="cannot be read"):
            latest_items(values, -1, 15)


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=80))
def test_any_bytes_are_a_vector_and_a_list_or_refused(value: bytes) -> None:
    refused = []
    for read in (
        lambda: unpack_sessions(np.array([20], np.uint64), [value]),
        lambda: latest_items([value], -1, 15),
        lambda: sum_lists([value], RATE),
    ):
        try:
            read()
        except StoreError as error:
            assert "store.namespace" in str(error)  # noqa: PT017
            refused.append(True)
        else:
            refused.append(False)
    assert refused[0] == refused[1], "who reads a part of a vector refuses what others do"


@pytest.mark.parametrize("size", [1, 4, 9, 16, 40])
def test_a_neighbour_list_of_impossible_length_is_refused(size: int) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        sum_lists([bytes(8), b"\1" * size], RATE)
    with pytest.raises(StoreError, match="cannot be read"):
        weigh_lists([bytes(8), b"\1" * size], RATE, 0, 0.5, 0.5)


counts = st.floats(2**-20, 1000, width=32)
entries = st.tuples(counts | st.just(0.0), counts)
Entries = dict[int, tuple[float, float]]
Chunk = tuple[int, Entries]
chunks: st.SearchStrategy[Chunk] = st.tuples(
    st.integers(1_699_000_000, 1_700_000_000),
    st.dictionaries(st.integers(RESERVED_IDS, RESERVED_IDS + 40) | ids, entries, max_size=30),
)
logs = st.lists(st.none() | st.lists(chunks, max_size=8), max_size=4)
WORTH = 0.5


def chunk_of(time: int, some: Entries) -> bytes:
    return struct.pack("<II", len(some), time) + b"".join(
        struct.pack("<Qff", neighbour, *weights) for neighbour, weights in sorted(some.items())
    )


def packed(log: list[Chunk] | None) -> bytes | None:
    return None if log is None else b"".join(chunk_of(*chunk) for chunk in log)


def summed(log: list[Chunk], at: int) -> dict[int, tuple[float, float]]:
    """Neighbour to (forward, backward) at a time."""
    sums: dict[int, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for time, some in log:
        left = math.exp(RATE * (time - at))
        for neighbour, (forward, backward) in some.items():
            known = sums[neighbour]
            sums[neighbour] = known[0] + forward * left, known[1] + backward * left
    return dict(sums)


def latest(log: list[Chunk]) -> int:
    return max((time for time, _ in log), default=0)


def assert_lists_are(found: ItemLists, wanted: list[dict[int, tuple[float, float]]]) -> None:
    start = found.start.tolist()
    assert len(start) == len(wanted) + 1
    for place, lists in enumerate(wanted):
        mine = slice(start[place], start[place + 1])
        assert found.neighbour[mine].tolist() == sorted(lists)
        for part, weights in enumerate((found.forward, found.backward)):
            assert weights[mine].tolist() == pytest.approx(
                [lists[n][part] for n in sorted(lists)], rel=1e-6
            )


@settings(max_examples=200, deadline=None)
@given(logs)
def test_lists_sum_as_dicts_do(log: list[list[Chunk] | None]) -> None:
    found = sum_lists([packed(some) for some in log], RATE)
    assert found.time.tolist() == [latest(some or []) for some in log]
    assert_lists_are(found, [summed(some or [], latest(some or [])) for some in log])


@settings(max_examples=100, deadline=None)
@given(logs, st.randoms())
def test_chunks_that_are_not_rising_sum_the_same(
    log: list[list[Chunk] | None], random: Any
) -> None:
    """No commit writes one, but a sum must not depend on it."""
    mixed: list[bytes | None] = []
    for some in log:
        value = b""
        for time, part in some or []:
            order = random.sample(sorted(part), len(part))
            value += struct.pack("<II", len(part), time) + b"".join(
                struct.pack("<Qff", n, *part[n]) for n in order
            )
        mixed.append(value)
    assert_lists_are(
        sum_lists(mixed, RATE), [summed(some or [], latest(some or [])) for some in log]
    )


@settings(max_examples=200, deadline=None)
@given(logs, st.integers(1, 5))
def test_the_best_are_kept_and_packed_again(log: list[list[Chunk] | None], most: int) -> None:
    values = sum_lists([packed(some) for some in log], RATE).keep_best(most, WORTH).pack()
    again = sum_lists(list(values), RATE)
    assert len(values) == len(log)
    kept = []
    for place, some in enumerate(log):
        lists = summed(some or [], latest(some or []))
        mine = slice(int(again.start[place]), int(again.start[place + 1]))
        neighbours = again.neighbour[mine].tolist()
        assert len(values[place]) == (8 + 16 * len(neighbours) if neighbours else 0)
        assert len(neighbours) == min(most, len(lists))
        assert again.time[place] == (latest(some or []) if neighbours else 0)
        kept.append({n: lists[n] for n in neighbours})
        weight = {n: f + WORTH * b for n, (f, b) in lists.items()}
        gone = [weight[n] for n in lists if n not in neighbours]
        if gone:
            assert min(weight[n] for n in neighbours) >= max(gone) * (1 - 1e-9)
    assert_lists_are(again, kept)


increments = st.lists(
    st.tuples(
        st.integers(RESERVED_IDS, RESERVED_IDS + 9) | ids,
        st.integers(RESERVED_IDS, RESERVED_IDS + 60) | ids,
        counts | st.just(0.0),
        counts,
        st.integers(1_699_000_000, 1_700_000_000),
    ),
    max_size=120,
    unique_by=lambda row: row[:2],
)


@settings(max_examples=150, deadline=None)
@given(increments, st.sampled_from([[b"h"], [b"ab{1.i0}n", b"ab{1.i10}n", b"n"]]))
def test_increments_become_chunks(
    some: list[tuple[int, int, float, float, int]], heads: list[bytes]
) -> None:
    columns = list(zip(*some, strict=True)) or [()] * 5
    packed = pack_increments(
        Increments(
            np.array(columns[0], np.uint64),
            np.array(columns[1], np.uint64),
            np.array(columns[2], np.float32),
            np.array(columns[3], np.float32),
            np.array(columns[4], np.uint32),
        ),
        RATE,
        heads,
    )
    found: dict[int, bytes] = {}
    for shard, (head, data) in enumerate(zip(heads, packed, strict=True)):
        at = 0
        while at < len(data):
            assert data[at : at + len(head)] == head
            source, size = struct.unpack_from("<QI", data, at + len(head))
            at += len(head) + 12
            assert source % len(heads) == shard
            assert source not in found
            found[source] = data[at : at + size]
            at += size
    wanted: dict[int, list[Chunk]] = defaultdict(list)
    for source, neighbour, forward, backward, time in some:
        wanted[source].append((time, {neighbour: (forward, backward)}))
    assert set(found) == set(wanted)
    for source, log in wanted.items():
        assert found[source][:8] == struct.pack("<II", len(log), latest(log))
        assert_lists_are(sum_lists([found[source]], RATE), [summed(log, latest(log))])
        ids = [i for i, _, _ in struct.iter_unpack("<Qff", found[source][8:])]
        assert ids == sorted(ids)


def added_to(statistics: dict[int, tuple[int, int, float, int]]) -> ItemDeltas:
    """What a batch adds to statistics, and to nothing else."""
    item = sorted(statistics)
    columns = list(zip(*(statistics[one] for one in item), strict=True)) or [()] * 4
    nothing = Increments(*(np.empty(0, kind) for kind in (np.uint64, np.uint64, "f4", "f4", "u4")))
    return ItemDeltas(
        increments=nothing,
        bought=nothing,
        item=np.array(item, np.uint64),
        sessions=np.array(columns[0], np.int64),
        events=np.array(columns[1], np.int64),
        recent=np.array(columns[2], np.float64),
        recent_at=np.array(columns[3], np.int64),
        trend=TrendRows(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0)),
    )


few_ids = st.integers(RESERVED_IDS, RESERVED_IDS + 9) | ids
numbers = st.integers(0, 2**32 - 1)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(few_ids, st.tuples(numbers, numbers, counts, numbers), max_size=20),
    st.dictionaries(few_ids, st.text(min_size=1, max_size=9).map(str.encode), max_size=20),
    st.sampled_from([[b"h"], [b"ab{1.i0}x", b"ab{1.i10}x", b"x"]]),
)
def test_what_is_added_to_an_item_goes_with_its_name(
    statistics: dict[int, tuple[int, int, float, int]], names: dict[int, bytes], heads: list[bytes]
) -> None:
    packed = pack_additions(added_to(statistics), names, heads)
    found: dict[int, tuple[tuple[int, int, float, int], bytes]] = {}
    for shard, (head, data) in enumerate(zip(heads, packed, strict=True)):
        at = 0
        while at < len(data):
            assert data[at : at + len(head)] == head
            item, *row, size = struct.unpack_from("<QIIfII", data, at + len(head))
            at += len(head) + 28 + size
            assert item % len(heads) == shard
            assert item not in found
            found[item] = tuple(row), data[at - size : at]
    nothing = (0, 0, 0.0, 0)
    assert found == {
        item: (
            struct.unpack("<IIfI", struct.pack("<IIfI", *statistics.get(item, nothing))),
            names.get(item, b""),
        )
        for item in {*statistics, *names}
    }


def test_a_chunk_and_statistics_byte_by_byte() -> None:
    one = Increments(
        np.array([21, 20, 21], np.uint64),
        np.array([31, 30, 29], np.uint64),
        np.array([2, 0.5, 1], np.float32),
        np.array([0.25, 0, 3], np.float32),
        np.array([7, 2**32 - 1, 7], np.uint32),
    )
    first = struct.pack("<QIIIQff", 20, 24, 1, 2**32 - 1, 30, 0.5, 0)
    second = struct.pack("<QIIIQffQff", 21, 40, 2, 7, 29, 1, 3, 31, 2, 0.25)
    assert pack_increments(one, 1e-6, [b"a", b"bc"]) == [b"a" + first, b"bc" + second]
    assert STATISTICS.itemsize == 16
    value = struct.pack("<IIfI", 1, 2, 0.5, 7)
    found = unpack_statistics([None, value + "ä".encode(), b"", value])
    assert found.tolist() == [(0, 0, 0, 0), (1, 2, 0.5, 7), (0, 0, 0, 0), (1, 2, 0.5, 7)]
    assert [name_of(v) for v in (None, value + "ä".encode(), value)] == ["", "ä", ""]
    with pytest.raises(StoreError, match="impossible length"):
        unpack_statistics([bytes(15)])


@settings(max_examples=100, deadline=None)
@given(logs, st.sampled_from([0.5, 0.8]))
def test_the_quick_way_of_requests_says_the_same(
    log: list[list[Chunk] | None], power: float
) -> None:
    moment = 1_699_500_000
    found = weigh_lists([packed(some) for some in log], RATE, moment, 0.3, power)
    wanted = [summed(some or [], moment) for some in log]
    for place, lists in enumerate(wanted):
        mine = slice(found.start[place], found.start[place + 1])
        assert found.neighbour[mine].tolist() == sorted(lists)
        counts = [lists[n] for n in sorted(lists)]
        columns = [
            [there for there, _ in counts],
            [back for _, back in counts],
            [(there + 0.3 * back) ** power for there, back in counts],
        ]
        for column, told in zip(columns, found.counts[:, mine].tolist(), strict=True):
            assert told == pytest.approx(column, rel=1e-6)
        assert found.strength[mine].tolist() == pytest.approx(columns[2], rel=1e-6)
        assert found.after[place] == pytest.approx(sum(columns[0]), rel=1e-6)
        assert found.before[place] == pytest.approx(sum(columns[1]), rel=1e-6)


def test_a_clock_far_ahead_makes_no_infinity() -> None:
    value = chunk_of(2**32 - 1, {20: (1.0, 2.0)})
    found = weigh_lists([value], RATE, 1_000, 0.5, 0.5)
    assert found.counts[:2, 0].tolist() == pytest.approx([math.exp(40), 2 * math.exp(40)], rel=1e-6)
