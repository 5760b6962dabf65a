"""From the records of partitions to numpy columns, and to dead letters for the rest.

A record with a value is an event. One with a key and no value is a *tombstone*: everything that was
kept of the user with that id is to be forgotten, and what comes after it in the log is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import attrgetter

import numpy as np

from streams.cloudevents import attributes_of, filled
from streams.columns import (
    I64,
    NO_TOMBSTONES,
    EventColumns,
    Tombstones,
    concatenate,
    event_keys,
    hash_names,
    session_tags,
)
from streams.event import Event, EventRules, Rejection, time_of
from streams.records import Record, Records, concatenate_records

__all__ = [
    "DecodedBatch",
    "RejectedRecord",
    "decode_batch",
    "decode_batches",
    "join_decoded",
    "unwrapped",
]

_user_id, _item_id, _timestamp, _event_id, _session_id = map(
    attrgetter, ("user_id", "item_id", "timestamp", "event_id", "session_id")
)

_TOGETHER = 2000
"""Records that are decoded together: their objects stay in a core's cache from pass to pass, and
a bad one sends no more of them the slow way."""


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record that goes to `events.dead`."""

    record: Record
    rejection: Rejection


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """n good events, those of one partition in log order, and the bad ones."""

    events: EventColumns
    item_ids: list[bytes]
    """(n,) what `events.item` are the hashes of, as UTF-8."""
    rejected: list[RejectedRecord]
    tombstones: Tombstones = NO_TOMBSTONES


def decode_batch(records: Records, rules: EventRules) -> DecodedBatch:
    """Decode, check and hash the records of one partition. Never raises for what they hold.

    A rejected record of CloudEvents' binary mode holds what its headers said, too: it can be sent
    again as it is.
    """
    records = unwrapped(records, rules)
    parts = [
        _decode(records.span(begin, begin + _TOGETHER), rules)
        for begin in range(0, max(len(records), 1), _TOGETHER)
    ]
    return join_decoded(parts)


def decode_batches(batches: Sequence[Records], rules: EventRules) -> list[DecodedBatch]:
    """`decode_batch` of each. Small ones are decoded together where all is good in them: most of
    what that costs is there for one record as for a hundred.
    """
    ends = list(accumulate(map(len, batches), initial=0))
    if 1 < len(batches) and ends[-1] <= _TOGETHER:
        records = concatenate_records([unwrapped(one, rules) for one in batches])
        decoded = _all_at_once(records, rules)
        if decoded is not None:
            events, items = decoded
            return [DecodedBatch(events.span(a, b), items[a:b], []) for a, b in pairwise(ends)]
    return [decode_batch(one, rules) for one in batches]


def join_decoded(parts: list[DecodedBatch]) -> DecodedBatch:
    """Decoded batches behind one another."""
    if len(parts) == 1:
        return parts[0]
    return DecodedBatch(
        concatenate([part.events for part in parts]),
        [item for part in parts for item in part.item_ids],
        [dead for part in parts for dead in part.rejected],
        _join_tombstones(parts),
    )


def _join_tombstones(parts: list[DecodedBatch]) -> Tombstones:
    if not any(len(part.tombstones) for part in parts):
        return NO_TOMBSTONES
    ends = np.cumsum([len(part.events) for part in parts])
    some = [part.tombstones for part in parts]
    return Tombstones(
        np.concatenate([one.offset for one in some]),
        np.concatenate([one.user for one in some]),
        np.concatenate(
            [
                one.row + end - len(part.events)
                for one, end, part in zip(some, ends, parts, strict=True)
            ]
        ),
    )


def _decode(records: Records, rules: EventRules) -> DecodedBatch:
    decoded = _all_at_once(records, rules)
    if decoded is not None:
        return DecodedBatch(*decoded, [])
    records, rejected, tombstones = _part(records, rules)
    decoded = _all_at_once(records, rules)
    assert decoded is not None, "what is good one by one is good together"  # noqa: S101
    return DecodedBatch(*decoded, rejected, tombstones)


def _all_at_once(records: Records, rules: EventRules) -> tuple[EventColumns, list[bytes]] | None:
    """The events' columns and item ids, if every record is good, as in nearly all batches."""
    events = rules.decode_all(records.value)
    kind = None if events is None else rules.kinds_of(events)
    if events is None or kind is None:
        return None
    time = _times_of(events)
    if (time < 0).any() or (time > records.timestamp + rules.future_ms).any():
        return None
    users = list(map(str.encode, map(_user_id, events)))
    if users != records.key:
        return None
    items = list(map(str.encode, map(_item_id, events)))
    columns = EventColumns(
        offset=records.offset,
        user=hash_names(users),
        item=hash_names(items),
        time=time,
        kind=kind,
        event=event_keys(list(map(_event_id, events))),
        tag=session_tags(list(map(_session_id, events))),
    )
    return columns, items


def _times_of(events: list[Event]) -> I64:
    try:
        return np.fromiter(map(_timestamp, events), np.int64, len(events))
    except TypeError:  # some are written as text
        return np.fromiter(map(time_of, events), np.int64, len(events))


def unwrapped(records: Records, rules: EventRules) -> Records:
    """The same records, those of CloudEvents' binary mode with what their headers say in them."""
    if records.headers is None:
        return records
    values = [
        filled(value, rules.names, **attributes)[0]
        if value is not None and (attributes := attributes_of(some))
        else value
        for value, some in zip(records.value, records.headers, strict=True)
    ]
    return Records(records.offset, records.timestamp, records.key, values)


def _part(records: Records, rules: EventRules) -> tuple[Records, list[RejectedRecord], Tombstones]:
    """The records of good events, the bad records with what is wrong, and the tombstones."""
    good: list[Record] = []
    rejected: list[RejectedRecord] = []
    forgotten: list[tuple[int, bytes, int]] = []
    for record in records:
        try:
            if record.value is None and record.key is not None:
                rules.check_user(record.key)
                forgotten.append((record.offset, record.key, len(good)))
                continue
            event = rules.decode(record.value)
            rules.kind_of(event)
            rules.check_time(time_of(event), record.timestamp)
            if record.key != event.user_id.encode():
                raise _wrong_key(record.key)
        except Rejection as rejection:
            rejected.append(RejectedRecord(record, rejection))
        else:
            good.append(record)
    tombstones = Tombstones(
        np.array([offset for offset, _, _ in forgotten], np.int64),
        hash_names([key for _, key, _ in forgotten]),
        np.array([row for _, _, row in forgotten], np.int64),
    )
    return Records.of(good), rejected, tombstones


def _wrong_key(key: bytes | None) -> Rejection:
    # One user's events must lie in one partition: two workers would fold them past each other.
    if key is None:
        return Rejection("no_key", "the record has no key; its key must be the event's user_id")
    return Rejection("wrong_key", "the record's key is not the event's user_id")
