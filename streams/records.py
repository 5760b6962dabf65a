"""Kafka records as columns: thousands are held and handed on without an object for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple, Protocol

import numpy as np

from streams.columns import I64

__all__ = ["Record", "RecordLike", "Records", "concatenate_records"]


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


class Record(NamedTuple):
    """One record."""

    offset: int
    timestamp: int
    """The broker's or the sender's, as the topic is configured; milliseconds since 1970."""
    key: bytes | None
    value: bytes | None


_offset, _timestamp, _key, _value = map(attrgetter, Record._fields)


@dataclass(frozen=True, slots=True)
class Records:
    """n consecutive records of one partition."""

    offset: I64
    """(n,) rising."""
    timestamp: I64
    """(n,) milliseconds since 1970."""
    key: list[bytes | None]
    value: list[bytes | None]

    @classmethod
    def of(cls, records: Iterable[RecordLike]) -> Records:
        """From records one by one."""
        records = list(records)
        n = len(records)
        return cls(
            np.fromiter(map(_offset, records), np.int64, n),
            np.fromiter(map(_timestamp, records), np.int64, n),
            list(map(_key, records)),
            list(map(_value, records)),
        )

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Record]:
        columns = self.offset.tolist(), self.timestamp.tolist(), self.key, self.value
        return map(Record, *columns)

    def span(self, begin: int, end: int) -> Records:
        """Records `begin` … `end - 1`."""
        some = slice(begin, end)
        return Records(self.offset[some], self.timestamp[some], self.key[some], self.value[some])


def concatenate_records(parts: Sequence[Records]) -> Records:
    """The parts' records behind one another; at least one part."""
    if len(parts) == 1:
        return parts[0]
    return Records(
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.timestamp for part in parts]),
        [key for part in parts for key in part.key],
        [value for part in parts for value in part.value],
    )
