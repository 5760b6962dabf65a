"""From the records of one poll to numpy columns, and to dead letters for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streams.columns import EventColumns, event_key, hash_id, session_tag
from streams.event import EventRules, Rejection, time_of

__all__ = ["DecodedBatch", "Record", "RejectedRecord", "decode_batch"]


class Record(Protocol):
    """What is read of a Kafka record."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record that goes to `events.dead`."""

    record: Record
    rejection: Rejection


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """n good events in log order, and the bad ones."""

    events: EventColumns
    item_ids: list[str]
    """(n,) what `events.item` are the hashes of."""
    rejected: list[RejectedRecord]


def decode_batch(records: Sequence[Record], rules: EventRules) -> DecodedBatch:
    """Decode, check and hash the records of one partition. Never raises for what they hold."""
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    item_ids: list[str] = []
    rejected: list[RejectedRecord] = []
    decode, kind_of, check_time = rules.decode, rules.kind_of, rules.check_time
    for record in records:
        try:
            event = decode(record.value)
            kind = kind_of(event)
            time = time_of(event)
            check_time(time, record.timestamp)
            if record.key != event.user_id.encode():
                raise _wrong_key(record.key)
        except Rejection as rejection:
            rejected.append(RejectedRecord(record, rejection))
            continue
        rows.append(
            (
                record.offset,
                hash_id(event.user_id),
                hash_id(event.item_id),
                time,
                kind,
                event_key(event.event_id) if event.event_id else 0,
                session_tag(event.session_id) if event.session_id else 0,
            )
        )
        item_ids.append(event.item_id)
    offset, user, item, times, kinds, events, tags = zip(*rows, strict=True) if rows else ((),) * 7
    columns = EventColumns(
        np.array(offset, np.int64),
        np.array(user, np.uint64),
        np.array(item, np.uint64),
        np.array(times, np.int64),
        np.array(kinds, np.uint8),
        np.array(events, np.uint64),
        np.array(tags, np.uint32),
    )
    return DecodedBatch(columns, item_ids, rejected)


def _wrong_key(key: bytes | None) -> Rejection:
    # One user's events must lie in one partition: two workers would fold them past each other.
    if key is None:
        return Rejection("no_key", "the record has no key; its key must be the event's user_id")
    return Rejection("wrong_key", "the record's key is not the event's user_id")
