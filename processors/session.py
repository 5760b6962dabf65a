"""Users' sessions: which events stand before which. Pure numpy; the first step of every fold.

A user's history is the last `history` events in the order of their times. Within it, events of
one session carry the same tag. An event joins

- the session of its `session_id`, if it has one;
- else the session of the user's event before it, if the pause between them is short enough;
- else (only when it came late) the session of the event after it, by the same rule;
- else a session of its own.

Whatever follows (co-occurrence, repeats) sees for each event its *prefix*: the events of the same
session right before it, at most WINDOW of them. All of it is a function of the log alone, however
the log is cut into batches: that is what makes a batch derived a second time come out the same.

Events in order take the vectorised way below. A user with a late event or a repeated event_id in
the batch takes the way of `late.py`, one event at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from streams.columns import EVENT_BITS, TAG_BITS, U64, Bool, EventColumns

__all__ = [
    "WINDOW",
    "Pairs",
    "Prefixes",
    "SessionRules",
    "SessionTable",
    "empty_table",
    "place_in_order",
    "select_users",
    "tag_of_time",
]

WINDOW = 30
"""Events of a session that an event is paired with, at most."""

_TAG_MASK = (1 << TAG_BITS) - 1


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What the placing of events depends on."""

    pause_ms: int
    """A pause this long ends a session without session_id."""
    history: int
    """Events kept for a user."""


@dataclass(frozen=True, slots=True)
class SessionTable:
    """Histories of m users as one table of k events, grouped by user, each in time order."""

    user: U64
    """(m,) hashed user ids, rising."""
    start: npt.NDArray[np.int64]
    """(m + 1,) where each user's events begin."""
    item: U64
    """(k,) hashed item ids."""
    time: npt.NDArray[np.int64]
    """(k,) milliseconds since 1970."""
    event: U64
    """(k,) 40-bit event keys, 0 for none."""
    tag: npt.NDArray[np.uint32]
    """(k,) 19-bit session tags."""
    kind: npt.NDArray[np.uint8]
    """(k,) positions of event types in the settings."""

    def row_of(self, user: U64) -> npt.NDArray[np.int64]:
        """Rows of users, all of which must be in the table."""
        return np.searchsorted(self.user, user).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Prefixes:
    """For p new events: the items of the same session right before each, latest first."""

    row: npt.NDArray[np.int64]
    """(p,) which event of the batch."""
    items: U64
    """(p, ≤ WINDOW) items one step back, two steps back, …; 0 where there is none."""
    length: npt.NDArray[np.int64]
    """(p,) events of the session before this one, as far as the history is kept."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """q pairs "first stands `gap` events before second in one session"."""

    first: U64
    second: U64
    gap: npt.NDArray[np.int64]
    """1 … WINDOW."""
    position: npt.NDArray[np.int64]
    """1-based position of the second in its session."""
    time: npt.NDArray[np.int64]
    """Milliseconds; of the second."""
    first_kind: npt.NDArray[np.uint8]
    second_kind: npt.NDArray[np.uint8]
    row: npt.NDArray[np.int64]
    """Which event of the batch brought the pair."""

    def take(self, where: Bool) -> Pairs:
        """Those at a mask."""
        return Pairs(*(getattr(self, f.name)[where] for f in fields(self)))


def empty_table(user: U64) -> SessionTable:
    """A table of users (rising) of whom nothing is known."""
    zero = np.zeros(0, np.uint64)
    return SessionTable(
        user,
        np.zeros(len(user) + 1, np.int64),
        zero,
        np.zeros(0, np.int64),
        zero,
        np.zeros(0, np.uint32),
        np.zeros(0, np.uint8),
    )


def select_users(table: SessionTable, rows: npt.NDArray[np.intp] | Bool) -> SessionTable:
    """The table of some of its users, given by rising row numbers or a mask."""
    lengths = np.diff(table.start)
    keep = np.zeros(len(table.user), np.bool_)
    keep[rows] = True
    events = np.repeat(keep, lengths)
    start = np.zeros(int(keep.sum()) + 1, np.int64)
    np.cumsum(lengths[keep], out=start[1:])
    return SessionTable(
        table.user[keep],
        start,
        table.item[events],
        table.time[events],
        table.event[events],
        table.tag[events],
        table.kind[events],
    )


def tag_of_time(time: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Tags of sessions that have no id, from the times at which they begin (Fibonacci hashing)."""
    mixed = time.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    tag = (mixed >> np.uint64(64 - TAG_BITS)).astype(np.uint32)
    return np.maximum(tag, np.uint32(1))


def place_in_order(
    before: SessionTable, events: EventColumns, rules: SessionRules
) -> tuple[SessionTable, Prefixes, Pairs, Bool]:
    """Append a batch to its users' histories, for all users at once.

    `before` must hold exactly the users of `events`. Returns the histories after the batch, the
    new events' prefixes (only of events that have one), their pairs, and a mask (m,) of users with
    a late event or a repeated event_id: theirs are left out of everything returned and have to be
    placed one event at a time.
    """
    hard = np.zeros(len(before.user), np.bool_)
    while True:
        easy_rows = np.flatnonzero(~hard)
        table = before if not hard.any() else select_users(before, easy_rows)
        chosen = np.arange(len(events))
        if hard.any():
            chosen = np.flatnonzero(~hard[before.row_of(events.user)])
        line = _line_up(table, events.take(chosen) if hard.any() else events, chosen, rules)
        found = _disordered(line, rules)
        if not found.any():
            break
        hard[easy_rows[found]] = True
    prefixes, pairs = _look_back(line, rules)
    return _trim(table.user, line, rules.history), prefixes, pairs, hard


@dataclass(slots=True)
class _Line:
    """Histories and new events of all users in one row, by user, then as they came."""

    user: npt.NDArray[np.int64]
    item: U64
    time: npt.NDArray[np.int64]
    event: U64
    tag: npt.NDArray[np.uint32]
    kind: npt.NDArray[np.uint8]
    row: npt.NDArray[np.int64]
    """Position in the batch; -1 for what was known before."""
    start: npt.NDArray[np.int64]
    """(m + 1,) where each user begins."""


def _line_up(
    table: SessionTable,
    events: EventColumns,
    rows: npt.NDArray[np.intp],
    rules: SessionRules,
) -> _Line:
    known = np.diff(table.start)
    user = np.concatenate([np.repeat(np.arange(len(known)), known), table.row_of(events.user)])
    order = np.argsort(user, kind="stable")
    user = user[order]
    line = _Line(
        user=user,
        item=np.concatenate([table.item, events.item])[order],
        time=np.concatenate([table.time, events.time])[order],
        event=np.concatenate([table.event, events.event])[order],
        tag=np.concatenate([table.tag, events.tag])[order],
        kind=np.concatenate([table.kind, events.kind])[order],
        row=np.concatenate([np.full(len(table.item), -1, np.int64), rows])[order],
        start=np.searchsorted(user, np.arange(len(known) + 1)).astype(np.int64),
    )
    # A new event without session_id carries its predecessor's tag on, unless a session begins.
    begins = np.ones(len(user), np.bool_)
    begins[1:] = (user[1:] != user[:-1]) | (line.time[1:] - line.time[:-1] >= rules.pause_ms)
    untagged = line.tag == 0
    fresh = untagged & begins
    line.tag[fresh] = tag_of_time(line.time[fresh])
    source = np.maximum.accumulate(np.where(untagged & ~begins, 0, np.arange(len(user))))
    line.tag = line.tag[source]
    return line


def _disordered(line: _Line, rules: SessionRules) -> Bool:
    """Users (m,) of whom a new event is earlier than the last, or repeats a kept event_id."""
    found = np.zeros(len(line.start) - 1, np.bool_)
    new = np.flatnonzero(line.row >= 0)
    back = new[new > line.start[line.user[new]]]
    found[line.user[back[line.time[back] < line.time[back - 1]]]] = True
    named = new[line.event[new] != 0]
    for gap in range(1, rules.history + 1):
        named = named[named - gap >= line.start[line.user[named]]]
        if not len(named):
            break
        found[line.user[named[line.event[named] == line.event[named - gap]]]] = True
    return found


def _look_back(line: _Line, rules: SessionRules) -> tuple[Prefixes, Pairs]:
    """Prefixes and pairs of the new events."""
    group = (line.user << TAG_BITS) | (line.tag & _TAG_MASK)
    # Only sessions that a new event belongs to matter: most of a history is older ones.
    active = np.zeros(len(line.user), np.bool_)
    last = line.start[1:] - 1
    active |= group == group[last][line.user]
    new = line.row >= 0
    elsewhere = new & ~active
    if elsewhere.any():  # a user with new events in several sessions
        several = np.zeros(len(last), np.bool_)
        several[line.user[elsewhere]] = True
        active |= several[line.user]
    at = np.flatnonzero(active)
    at = at[np.argsort(group[at], kind="stable")]
    group = group[at]
    begin = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    begin = np.repeat(begin, np.diff(np.append(begin, len(group))))
    item, time, kind, row = line.item[at], line.time[at], line.kind[at], line.row[at]

    # An event sees at most the `history` events of its user before it.
    here = np.flatnonzero(row >= 0)
    floor = at - rules.history
    first_seen = begin[here]
    long = here - first_seen > 0
    crowded = long & (at[first_seen] < floor[here])
    for i in np.flatnonzero(crowded):
        span = at[first_seen[i] : here[i]]
        first_seen[i] += np.searchsorted(span, floor[here[i]])
    length = here - first_seen
    here, length = here[length > 0], length[length > 0]

    width = int(min(WINDOW, length.max(initial=0)))
    items = np.zeros((len(here), width), np.uint64)
    steps = []
    alive = np.arange(len(here))
    for gap in range(1, width + 1):
        alive = alive[length[alive] >= gap]
        items[alive, gap - 1] = item[here[alive] - gap]
        steps.append(alive)
    which = np.concatenate(steps) if steps else np.zeros(0, np.intp)
    gaps = np.repeat(np.arange(1, width + 1), [len(s) for s in steps])
    second = here[which]
    first = second - gaps
    pairs = Pairs(
        item[first],
        item[second],
        gaps,
        length[which] + 1,
        time[second],
        kind[first],
        kind[second],
        row[second],
    )
    return Prefixes(row[here], items, length), pairs


def _trim(user: U64, line: _Line, history: int) -> SessionTable:
    """The line as a table, each user's last `history` events."""
    end = line.start[1:]
    keep = np.arange(len(line.user)) >= (end - history)[line.user]
    start = np.zeros(len(user) + 1, np.int64)
    np.cumsum(np.minimum(np.diff(line.start), history), out=start[1:])
    return SessionTable(
        user,
        start,
        line.item[keep],
        line.time[keep],
        line.event[keep],
        line.tag[keep],
        line.kind[keep],
    )


assert EVENT_BITS + TAG_BITS + 5 == 64, "an event's key, tag and type share one word"  # noqa: S101
