"""Users' sessions: which events stand before which. Pure; the first step of every fold.

A user's history is the last `history` events in the order of their times. Within it, events of
one session carry the same tag. An event joins

- the session of its `session_id`, if it has one;
- else the session of the user's event before it, if the pause between them is short enough;
- else (only when it came late) the session of the event after it, by the same rule;
- else a session of its own.

Whatever follows (co-occurrence, repeats) sees for each event its *prefix*: the events of the same
session right before it, at most WINDOW of them. All of it is a function of the log alone, however
the log is cut into batches: that is what makes a batch derived a second time come out the same.

Events in order take the compiled way of `lines.py`. A user with a late event or a repeated event_id
in the batch takes the way of `late.py`, one event at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from processors.grouping import places
from processors.lines import line_up, look_back, newest
from streams.columns import U64, Bool, EventColumns

__all__ = [
    "WINDOW",
    "Pairs",
    "Prefixes",
    "SessionRules",
    "SessionTable",
    "empty_table",
    "place_in_order",
    "select_users",
]

WINDOW = 30
"""Events of a session that an event is paired with, at most."""


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
        return places(self.user, user)


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


def place_in_order(
    before: SessionTable, events: EventColumns, rules: SessionRules
) -> tuple[SessionTable, Prefixes, Pairs, Bool]:
    """Append a batch to its users' histories, for all users at once.

    `before` must hold exactly the users of `events`. Returns the histories after the batch, the
    new events' prefixes (only of events that have one), their pairs, and a mask (m,) of users with
    a late event or a repeated event_id: theirs are left out of everything returned and have to be
    placed one event at a time.
    """
    start, item, time, event, tag, kind, row, hard = line_up(
        before.start,
        before.item,
        before.time,
        before.event,
        before.tag,
        before.kind,
        before.row_of(events.user),
        events.item,
        events.time,
        events.event,
        events.tag,
        events.kind,
        rules.pause_ms,
        rules.history,
    )
    found = look_back(start, item, time, tag, kind, row, rules.history, WINDOW)
    keep, begin = newest(start, rules.history)
    table = SessionTable(
        before.user, begin, item[keep], time[keep], event[keep], tag[keep], kind[keep]
    )
    if hard.any():
        table = select_users(table, ~hard)
    return table, Prefixes(*found[:3]), Pairs(*found[3:]), hard
