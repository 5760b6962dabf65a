"""From the records of one poll to numpy columns, and to dead letters for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streams.columns import EventColumns, event_key, hash_ids, session_tag
from streams.event import Event, EventRules, Rejection, time_of

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
    rejected: list[RejectedRecord] = []
    events = _all_at_once(records, rules)
    if events is None:
        records, events, rejected = _one_by_one(records, rules)
    columns = EventColumns(
        offset=np.array([record.offset for record in records], np.int64),
        user=hash_ids([event.user_id for event in events]),
        item=hash_ids([event.item_id for event in events]),
        time=np.array([time_of(event) for event in events], np.int64),
        kind=np.array([rules.kind_of(event) for event in events], np.uint8),
        event=np.array(
            [event_key(event.event_id) if event.event_id else 0 for event in events], np.uint64
        ),
        tag=np.array(
            [session_tag(event.session_id) if event.session_id else 0 for event in events],
            np.uint32,
        ),
    )
    return DecodedBatch(columns, [event.item_id for event in events], rejected)


def _all_at_once(records: Sequence[Record], rules: EventRules) -> list[Event] | None:
    """The events, if every record is good, as nearly all batches are; else None."""
    try:
        events = [rules.decode(record.value) for record in records]
        for event in events:
            rules.kind_of(event)
        times = np.array([time_of(event) for event in events], np.int64)
    except (Rejection, OverflowError):
        return None
    now = np.array([record.timestamp for record in records], np.int64)
    if (times < 0).any() or (times > now + rules.future_ms).any():
        return None
    if [record.key for record in records] != [event.user_id.encode() for event in events]:
        return None
    return events


def _one_by_one(
    records: Sequence[Record], rules: EventRules
) -> tuple[list[Record], list[Event], list[RejectedRecord]]:
    """Good records with their events, and the bad ones with what is wrong."""
    good: list[Record] = []
    events: list[Event] = []
    rejected: list[RejectedRecord] = []
    for record in records:
        try:
            event = rules.decode(record.value)
            rules.kind_of(event)
            rules.check_time(time_of(event), record.timestamp)
            if record.key != event.user_id.encode():
                raise _wrong_key(record.key)
        except Rejection as rejection:
            rejected.append(RejectedRecord(record, rejection))
        else:
            good.append(record)
            events.append(event)
    return good, events, rejected


def _wrong_key(key: bytes | None) -> Rejection:
    # One user's events must lie in one partition: two workers would fold them past each other.
    if key is None:
        return Rejection("no_key", "the record has no key; its key must be the event's user_id")
    return Rejection("wrong_key", "the record's key is not the event's user_id")
