# ruff: noqa: SLF001 - as streams/fetched.py
"""What is taken from a fetch: every record past the position, once, and nothing else.

The fetch is aiokafka's own, over batches as a broker would send them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from faust.types import TP

from streams.fetched import take_fetched
from streams.records import Record, Records

PARTITION = TP("events", 0)
OTHER = TP("events", 1)
GZIP = 1
CONTROL = 0x20


def log_batch(
    base: int,
    count: int,
    *,
    compression: int = 0,
    last: int | None = None,
    writer: int = -1,
) -> bytes:
    """Records `base` … as one batch of the log; `last` is its last offset where more were there.
    `writer` is the producer whose transaction it is of.
    """
    transactional = int(writer >= 0)
    builder = DefaultRecordBatchBuilder(2, compression, transactional, writer, 0, 0, 1 << 20)
    for n in range(count):
        builder.append(n, 1000 + n, b"k%d" % (base + n), b"v%d" % (base + n), [("h", b"x")])
    data = bytearray(builder.build())
    data[0:8] = base.to_bytes(8, "big")
    if last is not None:
        data[23:27] = (last - base).to_bytes(4, "big")
    return bytes(data)


def marker(base: int, writer: int, *, commit: bool) -> bytes:
    """The end of a transaction, as one batch of the log."""
    builder = DefaultRecordBatchBuilder(2, 0, 1, writer, 0, -1, 1 << 20)
    builder.append(0, 1000, struct.pack(">hh", 0, int(commit)), struct.pack(">hi", 0, 0), [])
    data = bytearray(builder.build())
    data[0:8] = base.to_bytes(8, "big")
    data[22] |= CONTROL
    return bytes(data)


class Fetched:
    """A fetcher that holds one fetch of PARTITION from `position`."""

    def __init__(
        self,
        position: int,
        *batches: bytes,
        checked: bool = False,
        aborted: Sequence[tuple[int, int]] = (),
    ) -> None:
        """`aborted` are transactions: producer, and offset of its first record."""
        self.state = SimpleNamespace(paused=False, position=position)
        self.state.consumed_to = lambda to: setattr(self.state, "position", to)
        assignment = SimpleNamespace(active=True, state_value=lambda _: self.state)
        records = PartitionRecords(
            PARTITION,
            MemoryRecords(b"".join(batches)),
            aborted,
            position,
            None,
            None,
            checked,
            READ_COMMITTED,
        )
        result = FetchResult(PARTITION, assignment=assignment, partition_records=records, backoff=0)
        self._records: dict[TP, Any] = {PARTITION: result}
        self._subscriptions = SimpleNamespace(
            reassignment_in_progress=False, is_assigned=lambda _: True
        )
        self._wait_consume_future = None

    def _notify(self, _: Any) -> None: ...

    async def take(self, enough: int = 1000, active: set[TP] | None = None) -> list[int]:
        """Offsets of what is taken at once."""
        taken = await take_fetched(self, active, 0.0, enough)
        records = taken.get(PARTITION, Records.of([]))
        for record in records:
            assert record.key == b"k%d" % record.offset
            assert record.value == b"v%d" % record.offset
        offsets: list[int] = records.offset.tolist()
        return offsets


async def test_a_fetch_is_taken_whole_and_let_go() -> None:
    fetched = Fetched(0, log_batch(0, 3), log_batch(3, 2, compression=GZIP))
    assert await fetched.take() == [0, 1, 2, 3, 4]
    assert (fetched._records, fetched.state.position) == ({}, 5)
    assert await fetched.take() == []


async def test_timestamps_and_headers_are_kept() -> None:
    fetched = Fetched(0, log_batch(0, 2))
    taken = await take_fetched(fetched, None, 0.0, 10)
    told = [("h", b"x")]
    assert list(taken[PARTITION]) == [
        Record(0, 1000, b"k0", b"v0", told),
        Record(1, 1001, b"k1", b"v1", told),
    ]


async def test_enough_is_reached_by_whole_batches() -> None:
    fetched = Fetched(0, log_batch(0, 3), log_batch(3, 3), log_batch(6, 1))
    assert await fetched.take(enough=4) == [0, 1, 2, 3, 4, 5]
    assert fetched.state.position == 6
    assert PARTITION in fetched._records
    assert await fetched.take(enough=4) == [6]
    assert (fetched._records, fetched.state.position) == ({}, 7)


async def test_a_batch_that_begins_before_the_position_is_cut() -> None:
    assert await Fetched(2, log_batch(0, 4)).take() == [2, 3]


async def test_control_batches_and_compacted_ends_are_passed_over() -> None:
    fetched = Fetched(0, log_batch(0, 1), marker(1, 3, commit=True), log_batch(2, 1, last=8))
    assert await fetched.take() == [0, 2]
    assert fetched.state.position == 9
    only_control = Fetched(5, marker(5, 3, commit=True))
    assert await only_control.take() == []
    assert (only_control._records, only_control.state.position) == ({}, 6)


async def test_what_a_seek_left_behind_is_dropped() -> None:
    fetched = Fetched(0, log_batch(0, 3))
    fetched.state.position = 1
    assert await fetched.take() == []
    assert (fetched._records, fetched.state.position) == ({}, 1)


async def test_other_partitions_are_left_alone() -> None:
    fetched = Fetched(0, log_batch(0, 3))
    assert await fetched.take(active={OTHER}) == []
    assert await fetched.take(active={PARTITION}) == [0, 1, 2]


async def test_a_broken_batch_raises_after_what_stands_before_it() -> None:
    broken = bytearray(log_batch(2, 2))
    broken[-1] ^= 1
    fetched = Fetched(0, log_batch(0, 2), bytes(broken), checked=True)
    assert await fetched.take() == [0, 1]
    assert (fetched._records, fetched.state.position) == ({}, 2)
    fetched = Fetched(2, bytes(broken), checked=True)
    with pytest.raises(CorruptRecordException):
        await fetched.take()
    assert fetched.state.position == 2
    assert await Fetched(0, log_batch(0, 2), checked=True).take() == [0, 1]


async def test_a_failed_fetch_raises_once() -> None:
    class Failed:
        def check_raise(self) -> None:
            raise LookupError

    fetched = Fetched(0, log_batch(0, 2))
    fetched._records = {OTHER: Failed(), **fetched._records}
    with pytest.raises(LookupError):
        await fetched.take()
    assert await fetched.take() == [0, 1]


async def test_what_was_aborted_did_not_happen() -> None:
    fetched = Fetched(
        0,
        log_batch(0, 2, writer=7),
        log_batch(2, 2, writer=8),
        log_batch(4, 1),
        marker(5, 7, commit=False),
        log_batch(6, 3, writer=7),
        marker(9, 8, commit=True),
        marker(10, 7, commit=True),
        aborted=[(7, 0)],
    )
    assert await fetched.take() == [2, 3, 4, 6, 7, 8]
    assert (fetched._records, fetched.state.position) == ({}, 11)
