"""What the learned ranking looks at: features of the best candidates. Pure numpy.

All of them are ratios, shares or presence, mostly in logarithms, centred and scaled by the fixed
constants below: nothing has to be estimated before learning starts, and no feature knows how large
a shop is or what its items are called. Several say the same with other constants (how fast a vote
fades with distance, which direction counts): weighing them is how the model chooses the constants.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from processors.session import WINDOW
from serving.candidates import F32, Candidates, Popularity, Query, Session
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
_NO_X, _NO_Q = np.zeros((0, 0), np.float32), np.zeros(0, np.float32)


def unweighed(where: I64, index: I64, rule: F64) -> Query:
    """Candidates (m,) in falling order of `rule`, without features."""
    return Query(where, index, rule, _NO_Q, _NO_X, _NO_Q)


def weigh(
    query: Query,
    session: Session,
    candidates: Candidates,
    popularity: Popularity,
    sessions: int,
) -> Query:
    """The same candidates (m,), with their features. `popularity` is theirs, `sessions` the number
    of all sessions.
    """
    s, m = len(session.own), len(query.index)
    column = np.full(len(candidates.index), -1)
    column[query.where] = np.arange(m)
    place = column[candidates.place]
    after, before, strength = _grids(place[s:], candidates.row, session, m)
    totals = np.array([(one.after, one.before) for one in session.lists], np.float32).T
    totals += FLOOR
    fast, slow, near = _DECAYED[:, session.items.distance]
    idf = session.rarity**_IDF_POWER
    votes = np.array([fast * idf, session.weight, slow * idf, session.rarity], np.float32)
    x = np.zeros((len(_NAMES), m), np.float32)
    np.matmul(votes, strength, out=x[0:4])
    np.matmul(near / totals[0], after, out=x[4])
    np.matmul(near / totals[1], before, out=x[5])
    shares = x[:_SHARES]
    shares /= shares.sum(axis=1, keepdims=True) + _TINY
    shares += _LEAST_SHARE
    for back in range(min(s, 2)):
        np.divide(after[back], totals[0, back], out=x[6 + 2 * back])
        np.divide(before[back], totals[1, back], out=x[7 + 2 * back])
    peak = float(x[6].max())
    x[6:10] += _LEAST_OF_LAST
    x[10] = after[0]
    x[11] = before[0]
    voters = np.count_nonzero(strength, axis=0)
    x[12] = voters
    x[13] = popularity.sessions
    x[14] = popularity.recent
    np.divide(x[14] + _LEAST_RECENT, _TREND[0] * x[13] + _TREND[1], out=x[15])
    x[10:14] += 1
    x[13] /= sessions + 1
    x[14] += _LEAST_RECENT
    if candidates.two_steps is None:
        x[16] = _NOBODY_LOOKED
    else:
        x[16] = candidates.two_steps[query.where] + _LEAST_TWO
    np.log(x[:_LOGS], out=x[:_LOGS])
    base = np.log(query.rule + _LEAST_RULE).astype(np.float32)
    x[_LOGS] = base
    x[18] = _LN_RANK[:m]
    best = float(query.rule[0])
    x[19] = query.rule / max(best, _TINY_SCORE)
    x[20] = voters / s
    mine = place[:s]
    shown = mine >= 0
    own = mine[shown]
    x[21, own] = 1
    if shown[0]:
        x[22, mine[0]] = 1
    x[23, own] = np.log(session.prior[shown] + _LEAST_PRIOR)
    x[24] = query.where < candidates.indirect
    x -= _CENTRE
    x *= _FACTOR
    length = session.items.length
    q = np.array(
        [
            length == 1,
            length == 2,
            3 <= length <= 4,
            math.log(length),
            session.prior.sum(),
            best,
            math.log(1 + session.sessions[0]),
            math.log(1 + session.lists[0].after),
            peak,
            s / min(length, WINDOW),
            candidates.two_steps is not None,
        ],
        np.float32,
    )
    return Query(query.where, query.index, query.rule, base, x, (q - _Q_CENTRE) * _Q_FACTOR)


def _grids(place: I64, row: I64, session: Session, m: int) -> F32:
    """(3, s, m) counts after, counts before and strengths: session's items by candidates.

    Entries of the lists stand in `row`, and `place` says which candidate each is for; -1: none of
    the best.
    """
    lists = session.lists
    here = (place >= 0).nonzero()[0]
    cell = row[here] * m + place[here]
    grids = np.zeros((3, len(lists) * m), np.float32)
    grids[:, cell] = np.concatenate([one.counts for one in lists], axis=1)[:, here]
    return grids.reshape(3, len(lists), m)
