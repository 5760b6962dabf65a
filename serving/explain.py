"""Why an item is recommended: what each item of the session contributes. Pure numpy.

The rule is a sum over the session's items, so its parts are told as they are; a two-step vote goes
to the session's items by their shares in the neighbour that it came through. The learned ranking
weighs a candidate as a whole: its `factor` is what it makes of the rule's score. So for every item

    factor · Σ (co_occurrence + repeat) + trending = score
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serving.rank import BEHIND, Asked, Ranker
from streams.columns import F64, I64, U64

__all__ = ["Explanation", "explain", "of_trending"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one recommended item's score is made of."""

    item: U64
    """(s,) the session's latest distinct items, latest first."""
    co_occurrence: F64
    """(s,) what their neighbours' votes add."""
    repeat: F64
    """(s,) the repeat prior, where the item itself is recommended."""
    trending: float
    """The whole score of an item that no item of the session speaks for, else 0."""
    factor: float
    """Score over the rule's score: 1 where the rule is served."""


def explain(ranker: Ranker, asked: Asked, index: I64, score: F64) -> list[Explanation]:
    """Explanations of some of the chosen candidates, with the scores that they were given."""
    session, candidates, query = asked.session, asked.candidates, asked.query
    order = {item: place for place, item in enumerate(query.index.tolist())}
    chosen = [order[item] for item in index.tolist()]
    where = query.where[chosen]
    votes = _votes(asked)
    # Direct votes of the session's items, and through whom the two-step ones came.
    direct = votes[:, where]
    if candidates.through is not None:
        through, lists = candidates.through.where, candidates.through.lists
        column = {item: place for place, item in enumerate(candidates.index.tolist())}
        steps = np.zeros((len(through), len(candidates.index)))
        for row, (one, shares) in enumerate(zip(lists, ranker.shares(lists), strict=True)):
            steps[row, [column[item] for item in one.index.tolist()]] = shares
        total = float((candidates.score[through] @ steps).sum()) or 1.0
        indirect = BEHIND * (votes[:, through] @ steps)[:, where] / total
        only_so = where >= len(candidates.index) - candidates.indirect
        direct = np.where(only_so, indirect, direct)
    rule = query.rule[chosen]
    return [
        Explanation(
            session.items.item,
            direct[:, place],
            np.where(np.arange(len(session.own)) == where[place], session.prior, 0.0),
            # The learned ranking gives even an item that nobody votes for a chance.
            0.0 if rule[place] > 0 else float(score[place]),
            float(score[place] / rule[place]) if rule[place] > 0 else 1.0,
        )
        for place in range(len(index))
    ]


def of_trending(score: F64) -> list[Explanation]:
    """Explanations of items that are only trending."""
    nobody, nothing = np.zeros(0, np.uint64), np.zeros(0)
    return [Explanation(nobody, nothing, nothing, one, 1.0) for one in score.tolist()]


def _votes(asked: Asked) -> F64:
    """(s, u) what each item of the session votes for each candidate, scaled as scores are."""
    session, candidates = asked.session, asked.candidates
    s = len(session.own)
    votes = np.zeros((s, len(candidates.index)))
    at = 0
    for row, (one, weight) in enumerate(zip(session.lists, session.weight.tolist(), strict=True)):
        votes[row, candidates.place[at : at + len(one.index)]] = weight * one.strength
        at += len(one.index)
    return votes / candidates.total if candidates.total > 0 else votes
