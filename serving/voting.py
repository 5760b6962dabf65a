"""Votes: what the items of sessions say of their neighbours. Compiled loops over arrays.

B sessions stand one after the other, and so do their S items, the E entries of the items' lists and
the U candidates that these lead to. Within a session, candidates stand in the order in which they
are met: its own items, then their neighbours, then what only two steps lead to.

Each candidate of a session is found by its small int in a hash table that fits the nearest cache,
whatever the number of items that a shop has: open addressing, cleared for each session.
"""

from __future__ import annotations

import math

import numpy as np

from config.compiled import compiled
from streams.columns import F64, I64

__all__ = ["table_for", "through", "values", "vote", "widen"]

_LEAST_TABLE = 64
_MIX = 0x9E3779B1


def table_for(entries: int) -> I64:
    """A table (slots, 2) for sessions with so many entries, own items among them."""
    return np.zeros((max(_LEAST_TABLE, 1 << (2 * entries - 1).bit_length()), 2), np.int64)


@compiled("i8(i8[:, ::1], i8)")
def _cleared(table: I64, entries: int) -> int:
    """Clears as many slots as this session needs; returns their mask."""
    slots = _LEAST_TABLE
    while slots < 2 * entries:
        slots *= 2
    for slot in range(slots):
        table[slot, 0] = -1
    return slots - 1


@compiled("i8(i8[:, ::1], i8, i8, i8)")
def _place(table: I64, mask: int, key: int, fresh: int) -> int:
    """Where a small int stands; it is put at `fresh` where it is new."""
    slot = (key * _MIX >> 7) & mask
    while True:
        known = table[slot, 0]
        if known == key:
            return int(table[slot, 1])
        if known < 0:
            table[slot, 0] = key
            table[slot, 1] = fresh
            return fresh
        slot = (slot + 1) & mask


@compiled("Tuple((f8[::1], f8[::1]))(i8[::1], f8[::1], f8, f8, f8)")
def values(
    distance: I64, known: F64, sessions: float, decay: float, power: float
) -> tuple[F64, F64]:
    """(S,) each: rarity of the sessions' items, and what a vote of each is worth.

    `distance` (S,) is as `SessionItems` says, `known` (S,) the sessions with each item, of
    `sessions` in all.
    """
    s = len(distance)
    rarity, weight = np.zeros(s), np.zeros(s)
    for i in range(s):
        if known[i] > 0:
            rarity[i] = 1 + math.log(max(sessions, known[i]) / known[i])
            weight[i] = decay ** (distance[i] - 1.0) * rarity[i] ** power
    return rarity, weight


@compiled(
    "Tuple((i8[::1], i8[::1], f8[::1], f8[::1], i8[::1]))"
    "(i8[::1], i8[::1], f8[::1], i8[::1], i8[::1], f8[::1], i8[:, ::1])"
)
def vote(
    start: I64, own: I64, weight: F64, lists: I64, index: I64, strength: F64, table: I64
) -> tuple[I64, I64, F64, F64, I64]:
    """The candidates of sessions, and their votes as shares of each session's.

    `start` (B + 1,), `own` (S,) and `weight` (S,) are of the sessions' items; `lists` (S + 1,) says
    where each one's entries begin among `index` (E,) and `strength` (E,); `table` is of
    `table_for`. Returns where each session's candidates begin (B + 1,), their small ints (U,) and
    scores (U,), what the votes of each session summed to (B,), and which candidate of its session
    each entry (E,) is. The own items are the first candidates of their session.
    """
    b, s, entries = len(start) - 1, len(own), len(index)
    begin = np.zeros(b + 1, np.int64)
    found = np.empty(s + entries, np.int64)
    score = np.zeros(s + entries)
    total = np.zeros(b)
    place = np.empty(entries, np.int64)
    u = 0
    for one in range(b):
        begin[one] = u
        first, last = start[one], start[one + 1]
        mask = _cleared(table, last - first + lists[last] - lists[first])
        for i in range(first, last):
            _place(table, mask, own[i], u)
            found[u] = own[i]
            u += 1
        for i in range(first, last):
            for e in range(lists[i], lists[i + 1]):
                at = _place(table, mask, index[e], u)
                if at == u:
                    found[u] = index[e]
                    u += 1
                place[e] = at - begin[one]
                score[at] += weight[i] * strength[e]
        votes = 0.0
        for at in range(begin[one], u):
            votes += score[at]
        total[one] = votes
        if votes > 0:
            for at in range(begin[one], u):
                score[at] /= votes
    begin[b] = u
    return begin, found[:u].copy(), score[:u].copy(), total, place


@compiled("Tuple((i8[::1], i8[::1]))(i8[::1], i8[::1], f8[::1], f8[::1], f8[::1], i8, i8)")
def through(
    start: I64, begin: I64, score: F64, total: F64, weight: F64, below: int, most: int
) -> tuple[I64, I64]:
    """Through which candidates to look on: in sessions that have less than `below` of them to show,
    the `most` best voted ones that are not the session's own; of equal ones the first.

    `weight` (U,) is 0 of what must not be shown, and empty where all may be.

    Returns where each session's begin (B + 1,), and the candidates.
    """
    b = len(total)
    first = np.zeros(b + 1, np.int64)
    where = np.empty(b * most, np.int64)
    count = 0
    for one in range(b):
        first[one] = count
        low, high = begin[one] + start[one + 1] - start[one], begin[one + 1]
        shown = high - begin[one]
        if len(weight) > 0:
            shown = 0
            for at in range(begin[one], high):
                shown += weight[at] > 0
        if shown >= below or total[one] <= 0:
            continue
        mine = count
        for at in range(low, high):
            if score[at] <= 0:
                continue
            # Insertion into the best so far, which are few.
            to = min(count, mine + most - 1)
            if count == mine + most and score[where[to]] >= score[at]:
                continue
            while to > mine and score[where[to - 1]] < score[at]:
                where[to] = where[to - 1]
                to -= 1
            where[to] = at
            count = min(count + 1, mine + most)
    first[b] = count
    return first, where[:count].copy()


@compiled(
    "Tuple((i8[::1], i8[::1], f8[::1], f8[::1], i8[::1]))"
    "(i8[::1], i8[::1], f8[::1], i8[::1], i8[::1], i8[::1], i8[::1], f8[::1], f8, i8[:, ::1])"
)
def widen(
    begin: I64,
    index: I64,
    score: F64,
    first: I64,
    where: I64,
    lists: I64,
    entry: I64,
    share: F64,
    behind: float,
    table: I64,
) -> tuple[I64, I64, F64, F64, I64]:
    """Put behind the candidates what only the lists of those at `where` lead to.

    `begin`, `index` and `score` come from `vote`, `first` and `where` from `through`; `lists` says
    where the entries of each one looked through begin, `entry` are their small ints and `share`
    their parts of the list. Returns begin, index and score of all candidates, their shares of the
    two-step votes (U',), and how many of each session only two steps lead to (B,).
    """
    b, u = len(begin) - 1, len(index)
    more = np.zeros(b + 1, np.int64)
    found = np.empty(u + len(entry), np.int64)
    scores = np.zeros(u + len(entry))
    two = np.zeros(u + len(entry))
    indirect = np.zeros(b, np.int64)
    end = 0
    for one in range(b):
        more[one] = end
        known = begin[one + 1] - begin[one]
        base = end
        for at in range(begin[one], begin[one + 1]):
            found[end] = index[at]
            scores[end] = score[at]
            end += 1
        a, z = first[one], first[one + 1]
        if a == z:
            continue
        mask = _cleared(table, known + lists[z] - lists[a])
        for at in range(base, end):
            _place(table, mask, found[at], at)
        votes = 0.0
        for k in range(a, z):
            for e in range(lists[k], lists[k + 1]):
                at = _place(table, mask, entry[e], end)
                if at == end:
                    found[end] = entry[e]
                    end += 1
                gain = share[e] * score[where[k]]
                two[at] += gain
                votes += gain
        indirect[one] = end - base - known
        if votes > 0:
            for at in range(base, end):
                two[at] /= votes
        for at in range(base + known, end):
            scores[at] = behind * two[at]
    more[b] = end
    return more, found[:end].copy(), scores[:end].copy(), two[:end].copy(), indirect
