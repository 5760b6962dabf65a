"""One batch of events, folded: from histories and columns to what has to be written. Pure numpy.

`fold_batch` places the events in sessions, and empties the histories of users who are forgotten:
what their events have added to counts is nobody's and stays. `item_deltas` and `total_deltas` then
say what the events add, leaving out what a shard already contains: after a crash between the
commits of two shards, the same events are folded again for the shard that missed them alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from config.settings import Settings
from processors.cooccurrence import (
    Contributions,
    Increments,
    contributions,
    decay_rate,
    sum_by_pair,
)
from processors.grouping import unique_places
from processors.late import place_one_by_one
from processors.lives import join_lives, split_lives
from processors.popularity import TrendRows, count_recent, count_trend
from processors.repeats import CELLS, Repeats, count_repeats
from processors.session import (
    Pairs,
    Prefixes,
    SessionRules,
    SessionTable,
    place_in_order,
    select_users,
)
from streams.columns import (
    F64,
    I64,
    NO_TOMBSTONES,
    U64,
    Bool,
    EventColumns,
    Tombstones,
)

__all__ = [
    "FoldRules",
    "Folded",
    "ItemDeltas",
    "TotalDeltas",
    "fold_batch",
    "item_deltas",
    "total_deltas",
]


class FoldRules:
    """The settings that folding depends on."""

    def __init__(self, settings: Settings) -> None:
        self.sessions = SessionRules(
            int(settings.events.session_pause_minutes * 60_000), settings.store.history
        )
        self.weights: F64 = np.array(list(settings.events.weights.values()), np.float64)
        self.pairs = settings.fold
        self.session_items = settings.rank.session_items
        self.rate = decay_rate(settings.fold.half_life_days)
        self.bought: Bool = np.array(
            [kind in settings.events.purchases for kind in settings.events.weights], np.bool_
        )


@dataclass(frozen=True, slots=True)
class Folded:
    """What n events brought; rows are positions among them."""

    events: EventColumns
    sessions: SessionTable
    """Histories after the batch of their users, and of those who were forgotten."""
    prefixes: Prefixes
    counted: Bool
    """(n,) false for an event whose event_id was seen before."""
    opens: Bool
    """(n,) the event begins a session."""
    first: Bool
    """(n,) the event weighs something, and no event that does holds its item among the WINDOW
    events of its session on either side."""
    weight: F64
    """(n,) of the event's type."""
    pairs: Contributions
    bought: Contributions
    """Those of two purchases."""
    repeats: Repeats


@dataclass(frozen=True, slots=True)
class ItemDeltas:
    """What is added to the items' shards."""

    increments: Increments
    bought: Increments
    item: U64
    """(i,) items of the batch, rising, with the counts below."""
    sessions: I64
    events: I64
    recent: F64
    """Events, decayed to `recent_at`."""
    recent_at: I64
    """Seconds since 1970."""
    trend: TrendRows


@dataclass(frozen=True, slots=True)
class TotalDeltas:
    """What is added to the totals."""

    sessions: int
    events: int
    latest: int
    """Seconds since 1970 of the latest event; 0 where there is none."""
    opportunities: I64
    """(CELLS,) of the repeat prior."""
    hits: I64
    """(CELLS,)."""


def fold_batch(
    before: SessionTable,
    events: EventColumns,
    rules: FoldRules,
    tombstones: Tombstones = NO_TOMBSTONES,
) -> Folded:
    """Fold events (n,) in log order, with tombstones between them, into the histories of exactly
    their users.
    """
    if not len(tombstones):
        return _fold(before, events, rules)
    lives, of_lives, last = split_lives(before, events, tombstones)
    folded = _fold(lives, of_lives, rules)
    return replace(folded, events=events, sessions=join_lives(before, folded.sessions, last))


def _fold(before: SessionTable, events: EventColumns, rules: FoldRules) -> Folded:
    sessions, prefixes, pairs, hard = place_in_order(before, events, rules.sessions)
    counted = np.ones(len(events), np.bool_)
    joined = np.zeros(len(events), np.bool_)
    seen = np.zeros(len(events), np.bool_)
    if hard.any():
        rows = np.flatnonzero(hard[before.row_of(events.user)])
        placed = place_one_by_one(
            select_users(before, np.flatnonzero(hard)), events.take(rows), rules.sessions
        )
        counted[rows[placed.duplicates]] = False
        joined[rows[placed.joined]] = True
        sessions = _merge_tables(sessions, placed.table)
        prefixes = _merge_prefixes(prefixes, placed.prefixes, rows)
        pairs = _merge_pairs(pairs, placed.pairs, rows)
    weight = rules.weights[events.kind]
    has_prefix = np.zeros(len(events), np.bool_)
    has_prefix[prefixes.row] = True
    # An item seen in events that weigh nothing alone (impressions, dislikes) is still new.
    again = (pairs.first == pairs.second) & (rules.weights[pairs.first_kind] > 0)
    again &= rules.weights[pairs.second_kind] > 0
    seen[pairs.row[again]] = True
    weighty = weight[prefixes.row] > 0
    outcomes = Prefixes(prefixes.row[weighty], prefixes.items[weighty], prefixes.length[weighty])
    return Folded(
        events=events,
        sessions=sessions,
        prefixes=outcomes,
        counted=counted,
        opens=counted & ~has_prefix & ~joined,
        first=counted & ~seen & (weight > 0),
        weight=weight,
        pairs=contributions(pairs, rules.weights, rules.pairs),
        bought=contributions(
            pairs.take(rules.bought[pairs.first_kind] & rules.bought[pairs.second_kind]),
            rules.weights,
            rules.pairs,
        ),
        repeats=count_repeats(outcomes, events.item[outcomes.row], rules.session_items),
    )


def item_deltas(folded: Folded, rules: FoldRules, newer: Callable[[U64, I64], Bool]) -> ItemDeltas:
    """What the events add to items. `newer(items, rows)` tells of events, by their rows, which
    ones the items' shards do not contain yet.
    """
    events = folded.events
    increments, bought = (
        sum_by_pair(parts.take(newer(parts.source, parts.row)), rules.rate)
        for parts in (folded.pairs, folded.bought)
    )
    mine = folded.counted & newer(events.item, np.arange(len(events)))
    item, code = unique_places(events.item[mine])
    sessions = np.bincount(code, folded.first[mine], len(item)).astype(np.int64)
    recent, recent_at = count_recent(code, events.time[mine], len(item), rules.rate)
    return ItemDeltas(
        increments=increments,
        bought=bought,
        item=item,
        sessions=sessions,
        events=np.bincount(code, minlength=len(item)).astype(np.int64),
        recent=recent,
        recent_at=recent_at,
        trend=count_trend(item, code, events.time[mine], folded.weight[mine]),
    )


def total_deltas(folded: Folded, newer: Bool) -> TotalDeltas:
    """What the events add to the totals; `newer` (n,) tells which are not contained yet."""
    mine = folded.counted & newer
    times = folded.events.time[mine]
    repeats = folded.repeats
    fresh = newer[repeats.row]
    return TotalDeltas(
        sessions=int((folded.opens & mine).sum()),
        events=int(mine.sum()),
        latest=int(times.max(initial=0)) // 1000,
        opportunities=np.bincount(repeats.cell[fresh], minlength=CELLS).astype(np.int64),
        hits=np.bincount(repeats.cell[fresh & repeats.hit], minlength=CELLS).astype(np.int64),
    )


def _merge_tables(a: SessionTable, b: SessionTable) -> SessionTable:
    user = np.concatenate([a.user, b.user])
    order = np.argsort(user)
    counts = np.concatenate([np.diff(a.start), np.diff(b.start)])
    owner = np.repeat(np.argsort(order), counts)
    at = np.argsort(owner, kind="stable")
    start = np.zeros(len(user) + 1, np.int64)
    np.cumsum(counts[order], out=start[1:])
    return SessionTable(
        user[order],
        start,
        np.concatenate([a.item, b.item])[at],
        np.concatenate([a.time, b.time])[at],
        np.concatenate([a.event, b.event])[at],
        np.concatenate([a.tag, b.tag])[at],
        np.concatenate([a.kind, b.kind])[at],
    )


def _merge_prefixes(a: Prefixes, b: Prefixes, rows: I64) -> Prefixes:
    items = np.zeros((len(a.row) + len(b.row), max(a.items.shape[1], b.items.shape[1])), np.uint64)
    items[: len(a.row), : a.items.shape[1]] = a.items
    items[len(a.row) :, : b.items.shape[1]] = b.items
    return Prefixes(
        np.concatenate([a.row, rows[b.row]]), items, np.concatenate([a.length, b.length])
    )


def _merge_pairs(a: Pairs, b: Pairs, rows: I64) -> Pairs:
    return Pairs(
        np.concatenate([a.first, b.first]),
        np.concatenate([a.second, b.second]),
        np.concatenate([a.gap, b.gap]),
        np.concatenate([a.position, b.position]),
        np.concatenate([a.time, b.time]),
        np.concatenate([a.first_kind, b.first_kind]),
        np.concatenate([a.second_kind, b.second_kind]),
        np.concatenate([a.row, rows[b.row]]),
    )
