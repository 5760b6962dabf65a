"""Users who are forgotten in the middle of a batch. Pure numpy; around the placing of events.

A tombstone ends all that is kept of a user: what comes after it in the log begins with nothing. A
user with t tombstones in a batch therefore has t + 1 *lives*, one after the other. They are folded
as if they were users of their own, of whom the first alone has a history. The last one's history is
what the user has after the batch; it is empty where no event came after the last tombstone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from processors.session import SessionTable, select_users
from streams.columns import I64, EventColumns, Tombstones

__all__ = ["join_lives", "split_lives"]


def split_lives(
    before: SessionTable, events: EventColumns, tombstones: Tombstones
) -> tuple[SessionTable, EventColumns, I64]:
    """Histories of all lives, numbered from 0 by user and then as they come, in place of those of
    m users; the events (n,) as those of lives; and (m,) the users' last lives.

    `before` must hold exactly the users of events and tombstones.
    """
    users, n = len(before.user), len(events)
    owner, forgotten = before.row_of(events.user), before.row_of(tombstones.user)
    # All on one line: user by user, the events' rows; each tombstone stands before that at its row.
    ends = np.sort(forgotten * (n + 1) + tombstones.row)
    life = owner + np.searchsorted(ends, owner * (n + 1) + np.arange(n), side="right")
    deaths = np.bincount(forgotten, minlength=users)
    last = np.arange(users) + np.cumsum(deaths)
    lengths = np.zeros(users + len(tombstones), np.int64)
    lengths[last - deaths] = np.diff(before.start)
    lives = replace(
        before,
        user=np.arange(len(lengths), dtype=np.uint64),
        start=np.concatenate([[0], np.cumsum(lengths)]),
    )
    return lives, replace(events, user=life.astype(np.uint64)), last


def join_lives(before: SessionTable, lives: SessionTable, last: I64) -> SessionTable:
    """The users of `before` with their last lives' histories."""
    return replace(select_users(lives, last), user=before.user)
