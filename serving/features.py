"""What the learned ranking looks at: features of the best candidates. Pure, one compiled loop.

All of them are ratios, shares or presence, mostly in logarithms, centred and scaled by the fixed
constants below: nothing has to be estimated before learning starts, and no feature knows how large
a shop is or what its items are called. Several say the same with other constants (how fast a vote
fades with distance, which direction counts): weighing them is how the model chooses the constants.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from config.compiled import compiled
from processors.session import WINDOW
from serving.batch import Queries, Sessions, Voted
from serving.candidates import F32, Popularity
from streams.columns import F64, I64, Bool

__all__ = ["CANDIDATE_FEATURES", "FLOOR", "SESSION_FEATURES", "weigh"]

FLOOR = 0.3
"""Added to a list's total wherever its counts become shares: about the weight of one far pair, so
that one lonely pair is no certainty."""
_FAST, _SLOW, _NEAR = 0.4, 0.8, 0.6
"""Two other decays by distance than the rule's, and that of the shares of a list."""
# Logarithms are taken of what is no less than this.
_LEAST_SHARE, _LEAST_OF_LAST, _LEAST_TWO = 1e-4, 1e-3, 1e-4
_LEAST_RULE, _LEAST_PRIOR, _LEAST_RECENT = 1e-5, 1e-3, 0.1
_TINY_SCORE = 1e-30
_TREND = (0.2, 0.5)
"""Recent events are told as a share of (a·sessions + b)."""


class _Scale(NamedTuple):
    centre: float
    scale: float


_SHARE = _Scale(-6.0, 2.5)
_NOBODY_LOOKED = math.exp(_SHARE.centre)
"""The centre of a logarithm: says nothing."""

CANDIDATE_FEATURES = {
    "votes_fast": _SHARE,  # ln share of the candidates' votes, fading by 0.4 a step, with idf³
    "votes_rule": _SHARE,  # by the rule
    "votes_slow": _SHARE,  # by 0.8, with idf³
    "votes_flat": _SHARE,  # not at all, and by idf instead of its power
    "follows": _SHARE,  # ln share of Σ 0.6^d · share of a's list that comes after a
    "precedes": _SHARE,  # … before it
    "after_last": _Scale(-5.0, 2.0),  # ln share of the last item's list
    "before_last": _Scale(-5.0, 2.0),
    "after_second": _Scale(-5.0, 2.0),  # of the item before it
    "before_second": _Scale(-5.0, 2.0),
    "count_after": _Scale(0.5, 0.7),  # ln(1 + count) after the last item
    "count_before": _Scale(0.5, 0.7),
    "voters": _Scale(0.7, 0.7),  # ln(1 + session items that know the candidate)
    "popular": _Scale(-8.0, 2.0),  # ln share of all sessions
    "recent": _Scale(0.0, 1.2),  # ln recent events
    "trend": _Scale(0.0, 0.8),  # ln(recent events / sessions)
    "two_steps": _SHARE,  # ln share of the two-step votes
    "rule": _Scale(-5.0, 2.0),  # ln score by the rule
    "rank": _Scale(3.5, 1.0),  # ln rank by the rule
    "relative": _Scale(0.2, 0.3),  # score / best score
    "known_by": _Scale(0.4, 0.4),  # share of the session's items that know it
    "own": _Scale(0.1, 0.4),  # stands in the session
    "last": _Scale(0.02, 0.2),  # is its last item
    "prior": _Scale(0.0, 1.5),  # ln repeat prior, 0 where not own
    "indirect": _Scale(0.02, 0.3),  # only two steps lead to it
}
"""Of each candidate, in the order of the rows of `Query.x`."""

SESSION_FEATURES = {
    "one": _Scale(0.3, 0.45),  # the session has one event
    "two": _Scale(0.2, 0.4),
    "few": _Scale(0.25, 0.43),  # three or four
    "length": _Scale(1.0, 0.9),  # ln of its events
    "repeats": _Scale(0.2, 0.25),  # sum of the repeat priors
    "best": _Scale(0.2, 0.2),  # best score by the rule
    "support": _Scale(3.0, 1.5),  # ln(1 + sessions with the last item)
    "outflow": _Scale(2.0, 1.5),  # ln(1 + all that came after it)
    "peak": _Scale(0.2, 0.2),  # largest share of it that a candidate has
    "distinct": _Scale(0.9, 0.2),  # distinct items a event
    "widened": _Scale(0.2, 0.4),  # two steps were looked at
}
"""The same for all candidates, in the order of `Query.q`."""

_LOGS = list(CANDIDATE_FEATURES).index("rule") + 1
"""Rows before this one are logarithms, taken in one go."""
_SUMS = 13
"""Rows before this one are summed over the entries of the session's lists."""


def _scales(features: dict[str, _Scale]) -> tuple[F32, F32]:
    centre, scale = np.array(list(features.values()), np.float32).T
    return centre.copy(), np.ascontiguousarray(1 / scale)


_SCALES = (*_scales(CANDIDATE_FEATURES), *_scales(SESSION_FEATURES))


def weigh(
    queries: Queries, sessions: Sessions, voted: Voted, popularity: Popularity, total: int
) -> Queries:
    """The same M candidates, with their features. `popularity` is that of all of them, and `total`
    the number of all sessions.
    """
    lists = sessions.lists
    x = np.zeros((len(CANDIDATE_FEATURES), len(queries.index)), np.float32)
    q = np.zeros((len(SESSION_FEATURES), len(sessions.items)), np.float32)
    _fill(
        x,
        q,
        sessions.start,
        sessions.length,
        sessions.distance,
        sessions.rarity,
        sessions.weight,
        sessions.sessions,
        sessions.prior,
        sessions.entries,
        np.concatenate([one.counts for one in lists], axis=1),
        np.array([one.after for one in lists]),
        np.array([one.before for one in lists]),
        voted.start,
        voted.place,
        voted.two_steps,
        voted.indirect,
        voted.looked,
        queries.start,
        queries.where,
        queries.rule,
        popularity.sessions,
        popularity.recent,
        float(total),
    )
    np.log(x[:_LOGS], out=x[:_LOGS])
    base = _centred(x, q, *_SCALES)
    same = queries.start, queries.where, queries.index, queries.rule, queries.boost
    return Queries(*same, base, x, q)


@compiled("f4[::1](f4[:, ::1], f4[:, ::1], f4[::1], f4[::1], f4[::1], f4[::1])")
def _centred(x: F32, q: F32, centre: F32, factor: F32, q_centre: F32, q_factor: F32) -> F32:
    """Centre and scale both, in place; returns what the row "rule" was (M,)."""
    base: F32 = x[_LOGS - 1].copy()
    for f in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[f, j] = (x[f, j] - centre[f]) * factor[f]
    for f in range(q.shape[0]):
        for b in range(q.shape[1]):
            q[f, b] = (q[f, b] - q_centre[f]) * q_factor[f]
    return base


@compiled(
    "void(f4[:, ::1], f4[:, ::1], i8[::1], i8[::1], i8[::1], f8[::1], f8[::1], f8[::1], f8[::1], "
    "i8[::1], f4[:, ::1], f8[::1], f8[::1], i8[::1], i8[::1], f8[::1], i8[::1], b1[::1], "
    "i8[::1], i8[::1], f8[::1], f8[::1], f8[::1], f8)"
)
def _fill(
    x: F32,
    q: F32,
    start: I64,
    length: I64,
    distance: I64,
    rarity: F64,
    weight: F64,
    known: F64,
    prior: F64,
    entries: I64,
    counts: F32,
    after: F64,
    before: F64,
    begin: I64,
    place: I64,
    two_steps: F64,
    indirect: I64,
    looked: Bool,
    first: I64,
    where: I64,
    rule: F64,
    popular: F64,
    recent: F64,
    total: float,
) -> None:
    """Fill `x` and `q`, which are zeros, with what is still to be centred and scaled; of the first
    rows of `x`, logarithms are still to be taken.
    """
    cell = np.empty(np.diff(begin).max(), np.int64)
    sums = np.empty((np.diff(first).max(), _SUMS))
    for b in range(len(length)):
        low, high = first[b], first[b + 1]
        m, s, base = high - low, start[b + 1] - start[b], begin[b]
        u = begin[b + 1] - base
        cell[:u] = -1
        for j in range(m):
            cell[where[low + j] - base] = j
        sums[:m] = 0
        for i in range(start[b], start[b + 1]):
            step, steps = i - start[b], distance[i] - 1.0
            cubed = rarity[i] ** 3
            fast, slow, near = _FAST**steps * cubed, _SLOW**steps * cubed, _NEAR**steps
            all_after, all_before = after[i] + FLOOR, before[i] + FLOOR
            for e in range(entries[i], entries[i + 1]):
                j = cell[place[e]]
                if j < 0:
                    continue
                strength = counts[2, e]
                follows, precedes = counts[0, e] / all_after, counts[1, e] / all_before
                sums[j, 0] += fast * strength
                sums[j, 1] += weight[i] * strength
                sums[j, 2] += slow * strength
                sums[j, 3] += rarity[i] * strength
                sums[j, 4] += near * follows
                sums[j, 5] += near * precedes
                if step == 0:
                    sums[j, 6], sums[j, 7] = follows, precedes
                    sums[j, 10], sums[j, 11] = counts[0, e], counts[1, e]
                elif step == 1:
                    sums[j, 8], sums[j, 9] = follows, precedes
                if strength > 0:
                    sums[j, 12] += 1
        peak = 0.0
        for j in range(m):
            peak = max(peak, sums[j, 6])
        for f in range(6):
            whole = 0.0
            for j in range(m):
                whole += sums[j, f]
            share = 1 / whole if whole else 0.0
            for j in range(m):
                x[f, low + j] = sums[j, f] * share + _LEAST_SHARE
        best = rule[low] if m else 0.0
        for j in range(m):
            at = low + j
            mine = where[at] - base
            for f in range(6, 10):
                x[f, at] = sums[j, f] + _LEAST_OF_LAST
            for f in range(10, _SUMS):
                x[f, at] = sums[j, f] + 1
            x[13, at] = (popular[at] + 1) / (total + 1)
            x[14, at] = recent[at] + _LEAST_RECENT
            x[15, at] = x[14, at] / (_TREND[0] * popular[at] + _TREND[1])
            x[16, at] = two_steps[where[at]] + _LEAST_TWO if looked[b] else _NOBODY_LOOKED
            x[17, at] = rule[at] + _LEAST_RULE
            x[18, at] = math.log(j + 1.0)
            x[19, at] = rule[at] / max(best, _TINY_SCORE)
            x[20, at] = sums[j, 12] / s
            if mine < s:
                x[21, at] = 1
                x[22, at] = mine == 0
                x[23, at] = math.log(prior[start[b] + mine] + _LEAST_PRIOR)
            x[24, at] = mine >= u - indirect[b]
        last = start[b]
        repeats = 0.0
        for i in range(start[b], start[b + 1]):
            repeats += prior[i]
        q[0, b], q[1, b], q[2, b] = length[b] == 1, length[b] == 2, 3 <= length[b] <= 4
        q[3, b] = math.log(length[b])
        q[4, b] = repeats
        q[5, b] = best
        q[6, b] = math.log(1 + known[last])
        q[7, b] = math.log(1 + after[last])
        q[8, b] = peak
        q[9, b] = s / min(length[b], WINDOW)
        q[10, b] = looked[b]
