"""From the records of one partition to numpy columns, and to dead letters for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from streams.columns import I64, EventColumns, concatenate, event_keys, hash_names, session_tags
from streams.event import Event, EventRules, Rejection, time_of
from streams.records import Record, Records

__all__ = ["DecodedBatch", "RejectedRecord", "decode_batch", "join_decoded"]

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


def decode_batch(records: Records, rules: EventRules) -> DecodedBatch:
    """Decode, check and hash the records of one partition. Never raises for what they hold."""
    parts = [
        _decode(records.span(begin, begin + _TOGETHER), rules)
        for begin in range(0, max(len(records), 1), _TOGETHER)
    ]
    return join_decoded(parts)


def join_decoded(parts: list[DecodedBatch]) -> DecodedBatch:
    """Decoded batches behind one another."""
    if len(parts) == 1:
        return parts[0]
    return DecodedBatch(
        concatenate([part.events for part in parts]),
        [item for part in parts for item in part.item_ids],
        [dead for part in parts for dead in part.rejected],
    )


def _decode(records: Records, rules: EventRules) -> DecodedBatch:
    rejected: list[RejectedRecord] = []
    decoded = _all_at_once(records, rules)
    if decoded is None:
        records, rejected = _part(records, rules)
        decoded = _all_at_once(records, rules)
        assert decoded is not None, "what is good one by one is good together"  # noqa: S101
    return DecodedBatch(*decoded, rejected)


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


def _part(records: Records, rules: EventRules) -> tuple[Records, list[RejectedRecord]]:
    """The good records, and the bad ones with what is wrong."""
    good: list[Record] = []
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
    return Records.of(good), rejected


def _wrong_key(key: bytes | None) -> Rejection:
    # One user's events must lie in one partition: two workers would fold them past each other.
    if key is None:
        return Rejection("no_key", "the record has no key; its key must be the event's user_id")
    return Rejection("wrong_key", "the record's key is not the event's user_id")
