"""Kafka records as columns: thousands are held and handed on without an object for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple, Protocol

import numpy as np

from streams.columns import I64

__all__ = [
    "Header",
    "Record",
    "RecordBatch",
    "RecordLike",
    "Records",
    "concatenate_records",
    "join_batches",
]


Header = tuple[str, bytes | None]


class RecordLike(Protocol):
    """What is read of a record, whoever made it."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[Header]: ...


class Record(NamedTuple):
    """One record."""

    offset: int
    timestamp: int
    """The broker's or the sender's, as the topic is configured; milliseconds since 1970."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()


_offset, _timestamp, _key, _value, _headers = map(attrgetter, Record._fields)


@dataclass(frozen=True, slots=True)
class Records:
    """n consecutive records of one partition."""

    offset: I64
    """(n,) rising."""
    timestamp: I64
    """(n,) milliseconds since 1970."""
    key: list[bytes | None]
    value: list[bytes | None]
    headers: list[Sequence[Header]] | None = None
    """None where no record has any, as it nearly always is."""

    @classmethod
    def of(cls, records: Iterable[RecordLike]) -> Records:
        """From records one by one, their offsets rising."""
        records = list(records)
        n = len(records)
        return cls(
            _offsets(records),
            np.fromiter(map(_timestamp, records), np.int64, n),
            list(map(_key, records)),
            list(map(_value, records)),
            list(map(_headers, records)) if any(map(_headers, records)) else None,
        )

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Record]:
        columns = self.offset.tolist(), self.timestamp.tolist(), self.key, self.value
        if self.headers is None:
            return map(Record, *columns)
        return map(Record, *columns, self.headers)

    def span(self, begin: int, end: int) -> Records:
        """Records `begin` … `end - 1`."""
        some = slice(begin, end)
        return Records(
            self.offset[some],
            self.timestamp[some],
            self.key[some],
            self.value[some],
            None if self.headers is None else self.headers[some],
        )


def _offsets(records: list[RecordLike]) -> I64:
    n = len(records)
    if n and records[-1].offset - records[0].offset == n - 1:  # none is missing: nearly always
        return np.arange(records[0].offset, records[0].offset + n, dtype=np.int64)
    return np.fromiter(map(_offset, records), np.int64, n)


def concatenate_records(parts: Sequence[Records]) -> Records:
    """The parts' records behind one another; at least one part."""
    if len(parts) == 1:
        return parts[0]
    return Records(
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.timestamp for part in parts]),
        [key for part in parts for key in part.key],
        [value for part in parts for value in part.value],
        None
        if all(part.headers is None for part in parts)
        else [one for part in parts for one in part.headers or [()] * len(part)],
    )


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Consecutive records of one partition."""

    topic: str
    partition: int
    start: int
    """The position that was asked for. Less than the first record's offset where the log has a
    gap: a transaction's marker, a compacted record, or records that retention took."""
    records: Records

    @property
    def last(self) -> int:
        """Offset of the last record."""
        return int(self.records.offset[-1])

    def cut(self, most: int) -> tuple[RecordBatch, RecordBatch]:
        """The first `most` records, and the others; there must be more."""
        first = RecordBatch(self.topic, self.partition, self.start, self.records.span(0, most))
        rest = self.records.span(most, len(self.records))
        return first, RecordBatch(self.topic, self.partition, first.last + 1, rest)


def join_batches(batches: Sequence[RecordBatch]) -> RecordBatch:
    """Batches of one partition, each beginning where the one before ends, as one."""
    first = batches[0]
    records = concatenate_records([batch.records for batch in batches])
    return RecordBatch(first.topic, first.partition, first.start, records)
