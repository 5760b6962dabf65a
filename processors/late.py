"""Users whose events come late, out of order or twice: one event at a time.

The rules are those of `session.py`, written the plain way; for users whose events are in order both
ways give the same (a test holds them against each other). A late event is put where its time
belongs: it is paired with the events of its session on both sides, counting the steps between them
as they stand at that moment. What was counted before is not taken back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from processors.lines import tag_of_time
from processors.session import (
    WINDOW,
    Pairs,
    Prefixes,
    SessionRules,
    SessionTable,
)
from streams.columns import EventColumns

__all__ = ["Placed", "place_one_by_one"]


@dataclass(slots=True)
class _Kept:
    """One event of a user's history."""

    time: int
    item: int
    event: int
    tag: int
    kind: int


@dataclass(slots=True)
class Placed:
    """What the events of these users brought."""

    table: SessionTable
    """Histories after the batch."""
    prefixes: Prefixes
    """Of events that came last in their session; the others predict nothing."""
    pairs: Pairs
    duplicates: list[int] = field(default_factory=list)
    """Rows of events that repeat an event_id and count for nothing."""
    joined: list[int] = field(default_factory=list)
    """Rows of events that open no session though they have no prefix."""


def place_one_by_one(before: SessionTable, events: EventColumns, rules: SessionRules) -> Placed:
    """Place the events of users (all in `before`), each where its time puts it.

    Rows in the result are positions in `events`.
    """
    histories = [
        [_Kept(*entry) for entry in _entries(before, row)] for row in range(len(before.user))
    ]
    owner = before.row_of(events.user)
    pairs: list[tuple[int, ...]] = []
    prefixes: list[tuple[int, list[int], int]] = []
    placed = Placed(before, *_as_arrays([], []))
    for row in range(len(events)):
        history = histories[owner[row]]
        event = int(events.event[row])
        if event and any(kept.event == event for kept in history):
            placed.duplicates.append(row)
            continue
        new = _Kept(
            int(events.time[row]),
            int(events.item[row]),
            event,
            int(events.tag[row]),
            int(events.kind[row]),
        )
        at = bisect_right([kept.time for kept in history], new.time)
        new.tag = new.tag or _session_of(new.time, history, at, rules)
        earlier = [kept for kept in history[:at] if kept.tag == new.tag]
        later = [kept for kept in history[at:] if kept.tag == new.tag]
        pairs += _pairs(row, new, earlier, later)
        if earlier and not later:
            prefixes.append((row, [k.item for k in earlier[: -WINDOW - 1 : -1]], len(earlier)))
        elif earlier or later:
            placed.joined.append(row)
        history.insert(at, new)
        del history[: -rules.history]
    placed.prefixes, placed.pairs = _as_arrays(prefixes, pairs)
    placed.table = _as_table(before, histories)
    return placed


def _entries(table: SessionTable, row: int) -> Iterator[tuple[int, ...]]:
    span = slice(int(table.start[row]), int(table.start[row + 1]))
    return zip(
        table.time[span].tolist(),
        table.item[span].tolist(),
        table.event[span].tolist(),
        table.tag[span].tolist(),
        table.kind[span].tolist(),
        strict=True,
    )


def _session_of(time: int, history: list[_Kept], at: int, rules: SessionRules) -> int:
    """The tag of an event without session_id that goes to position `at`."""
    if at > 0 and time - history[at - 1].time < rules.pause_ms:
        return history[at - 1].tag
    if at < len(history) and history[at].time - time < rules.pause_ms:
        return history[at].tag
    return int(tag_of_time(time))


def _pairs(
    row: int, new: _Kept, earlier: list[_Kept], later: list[_Kept]
) -> Iterator[tuple[int, ...]]:
    for gap, kept in enumerate(earlier[: -WINDOW - 1 : -1], 1):
        position = len(earlier) + 1
        yield kept.item, new.item, gap, position, new.time, kept.kind, new.kind, row
    for gap, kept in enumerate(later[:WINDOW], 1):
        position = len(earlier) + 1 + gap
        yield new.item, kept.item, gap, position, kept.time, new.kind, kept.kind, row


def _as_arrays(
    prefixes: list[tuple[int, list[int], int]], pairs: list[tuple[int, ...]]
) -> tuple[Prefixes, Pairs]:
    items = np.zeros((len(prefixes), max((len(p[1]) for p in prefixes), default=0)), np.uint64)
    for i, (_, known, _length) in enumerate(prefixes):
        items[i, : len(known)] = known
    columns = list(zip(*pairs, strict=True)) or [()] * 8
    types = (np.uint64, np.uint64, np.int64, np.int64, np.int64, np.uint8, np.uint8, np.int64)
    return (
        Prefixes(
            np.array([p[0] for p in prefixes], np.int64),
            items,
            np.array([p[2] for p in prefixes], np.int64),
        ),
        Pairs(*(np.array(c, t) for c, t in zip(columns, types, strict=True))),
    )


def _as_table(before: SessionTable, histories: list[list[_Kept]]) -> SessionTable:
    start = np.zeros(len(histories) + 1, np.int64)
    np.cumsum([len(h) for h in histories], out=start[1:])
    kept = [k for history in histories for k in history]
    return SessionTable(
        before.user,
        start,
        np.array([k.item for k in kept], np.uint64),
        np.array([k.time for k in kept], np.int64),
        np.array([k.event for k in kept], np.uint64),
        np.array([k.tag for k in kept], np.uint32),
        np.array([k.kind for k in kept], np.uint8),
    )
