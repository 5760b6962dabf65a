"""What the learned ranking looks at: features of the best candidates. Pure numpy.

All of them are ratios, shares or presence, mostly in logarithms, centred and scaled by the fixed
constants below: nothing has to be estimated before learning starts, and no feature knows how large
a shop is or what its items are called. Several say the same with other constants (how fast a vote
fades with distance, which direction counts): weighing them is how the model chooses the constants.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from processors.session import WINDOW
from serving.candidates import F32, Popularity, Queries, Sessions, Voted
from streams.columns import F64, I64

__all__ = ["CANDIDATE_FEATURES", "FLOOR", "SESSION_FEATURES", "unweighed", "weigh"]

FLOOR = 0.3
"""Added to a list's total wherever its counts become shares: about the weight of one far pair, so
that one lonely pair is no certainty."""
_DECAYED: F64 = np.array([[0.4], [0.8], [0.6]]) ** (np.arange(WINDOW + 1) - 1.0)
"""(3, distance): two other decays by distance than the rule's, and that of the shares of a list."""
_IDF_POWER = 3
# Logarithms are taken of what is no less than this.
_LEAST_SHARE, _LEAST_OF_LAST, _LEAST_TWO = 1e-4, 1e-3, 1e-4
_LEAST_RULE, _LEAST_PRIOR, _LEAST_RECENT = 1e-5, 1e-3, 0.1
_TINY, _TINY_SCORE = 1e-9, 1e-30
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

_NAMES = list(CANDIDATE_FEATURES)
_SHARES = 6
"""The first rows: shares of the candidates' sum."""
_LOGS = _NAMES.index("rule")
"""Rows before this one are logarithms taken in one go."""


def _scales(features: dict[str, _Scale]) -> tuple[F32, F32]:
    centre, scale = np.array(list(features.values()), np.float32).T
    return centre.copy(), 1 / scale


_CENTRE, _FACTOR = (part[:, None] for part in _scales(CANDIDATE_FEATURES))
_Q_CENTRE, _Q_FACTOR = _scales(SESSION_FEATURES)
_LN_RANK: F32 = np.log(1.0 + np.arange(1000)).astype(np.float32)


def unweighed(count: I64, where: I64, index: I64, rule: F64) -> Queries:
    """Candidates (B, M) in falling order of `rule`, without features."""
    b = len(count)
    none = np.zeros((b, 0), np.float32)
    return Queries(count, where, index, rule, none, none[None], np.zeros((0, b), np.float32))


def weigh(
    queries: Queries,
    sessions: Sessions,
    voted: Voted,
    popularity: Popularity,
    total: int,
) -> Queries:
    """The same candidates (B, M), with their features. `popularity` is that of all of them, session
    by session, and `total` the number of all sessions.
    """
    b, m = queries.rule.shape
    shown = np.arange(m) < queries.count[:, None]
    cell_of = np.full(len(voted.index), -1)
    cell_of[queries.where[shown]] = shown.ravel().nonzero()[0]
    x = np.zeros((len(_NAMES), b * m), np.float32)
    peak = _fill_votes(x, cell_of, sessions, voted, b, m)
    flat = shown.ravel()
    x[13, flat] = popularity.sessions
    x[14, flat] = popularity.recent
    np.divide(x[14] + _LEAST_RECENT, _TREND[0] * x[13] + _TREND[1], out=x[15])
    voters = x[12].copy()
    x[10:14] += 1
    x[13] /= total + 1
    x[14] += _LEAST_RECENT
    x[16] = _NOBODY_LOOKED
    if voted.through:
        looked = np.zeros(b, np.bool_)
        looked[list(voted.through)] = True
        two = (shown & looked[:, None]).ravel()
        x[16, two] = voted.two_steps[queries.where.ravel()[two]] + _LEAST_TWO
    np.log(x[:_LOGS], out=x[:_LOGS])
    rule = np.where(shown, queries.rule, 0.0)
    base = np.log(rule + _LEAST_RULE).astype(np.float32)
    best = rule[:, 0]
    sizes = np.diff(sessions.start)
    by_session = x.reshape(len(_NAMES), b, m)
    by_session[_LOGS] = base
    by_session[18] = _LN_RANK[:m]
    by_session[19] = rule / np.maximum(best, _TINY_SCORE)[:, None]
    by_session[20] = voters.reshape(b, m) / sizes[:, None]
    mine = cell_of[voted.own]
    own = mine >= 0
    x[21, mine[own]] = 1
    last = mine[sessions.start[:-1]]
    x[22, last[last >= 0]] = 1
    x[23, mine[own]] = np.log(sessions.prior[own] + _LEAST_PRIOR)
    by_session[24] = queries.where - voted.start[:-1, None] < voted.indirect[:, None]
    x -= _CENTRE
    x *= _FACTOR
    q = _session_features(sessions, voted, best, peak, sizes)
    base[~shown] = -np.inf
    return replace(queries, base=base, x=by_session, q=q)


def _fill_votes(x: F32, cell_of: I64, sessions: Sessions, voted: Voted, b: int, m: int) -> F32:
    """Fill the rows that sum over the sessions' lists, up to the number of voters; logarithms are
    still to be taken of the first twelve. Returns the largest share after the last item (b,).
    """
    lists = sessions.lists
    cell = cell_of[voted.place]
    here = (cell >= 0).nonzero()[0]
    cell, row = cell[here], voted.row[here]
    counts = np.concatenate([one.counts for one in lists], axis=1)[:, here]
    after, before, strength = counts
    totals = np.array([(one.after, one.before) for one in lists], np.float32).T
    totals += np.float32(FLOOR)
    fast, slow, near = _DECAYED[:, sessions.distance]
    idf = sessions.rarity**_IDF_POWER
    votes = np.array([fast * idf, sessions.weight, slow * idf, sessions.rarity])[:, row]
    votes *= strength
    shares = np.array([near / totals[0], near / totals[1]])[:, row]
    shares *= counts[:2]
    cells = b * m
    for place, weight in enumerate([*votes, *shares]):
        x[place] = np.bincount(cell, weight, cells)
    part = x[:_SHARES].reshape(_SHARES, b, m)
    part /= part.sum(axis=2, keepdims=True) + np.float32(_TINY)
    x[:_SHARES] += np.float32(_LEAST_SHARE)
    step = row - sessions.start[sessions.slot[row]]
    peak = np.zeros(b, np.float32)
    for back in (0, 1):
        there = (step == back).nonzero()[0]
        at, of = cell[there], row[there]
        x[6 + 2 * back, at] = after[there] / totals[0, of]
        x[7 + 2 * back, at] = before[there] / totals[1, of]
        if back == 0:
            x[10, at], x[11, at] = after[there], before[there]
            peak = x[6].reshape(b, m).max(axis=1)
    x[6:10] += np.float32(_LEAST_OF_LAST)
    x[12] = np.bincount(cell, strength > 0, cells)
    return peak


def _session_features(sessions: Sessions, voted: Voted, best: F64, peak: F32, sizes: I64) -> F32:
    """(SHARED, b) of each session."""
    first = sessions.start[:-1]
    length = np.array([one.length for one in sessions.items], np.float64)
    looked = np.zeros(len(length))
    looked[list(voted.through)] = 1
    after = np.array([sessions.lists[place].after for place in first.tolist()])
    q = np.array(
        [
            length == 1,
            length == 2,
            (length >= 3) & (length <= 4),
            np.log(length),
            np.add.reduceat(sessions.prior, first),
            best,
            np.log(1 + sessions.sessions[first]),
            np.log(1 + after),
            peak,
            sizes / np.minimum(length, WINDOW),
            looked,
        ],
        np.float32,
    )
    q -= _Q_CENTRE[:, None]
    q *= _Q_FACTOR[:, None]
    return q
