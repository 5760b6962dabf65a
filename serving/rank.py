"""From a session and its items' neighbours to candidates and scores: the rule. Pure numpy.

    score(c) = Σ_a d^(events after a in the session) · idf(a)^p · w(a, c)^q,      scaled to sum 1
             + P(the next event repeats c)                          for the session's own items

over the latest distinct items a of the session, with idf(a) = 1 + ln(sessions / sessions with a),
w(a, c) = forward + β·backward the decayed co-occurrence counts, d, p, q, β settings of `rank`, and
P from `processors/repeats.py`.

Where fewer than `rank.widen_below` candidates come out (the session's own items among them), the
lists n of the `rank.widen_by` best voted ones that are not the session's own are looked at too.
Over all items c that they lead to

    two(c) = Σ_n votes(n) · w(n, c) / (0.3 + Σ w(n, ·)),                          scaled to sum 1

and those that no item of the session votes for are put behind with score(c) = 10⁻⁶ · two(c).

`ask` is the order of the steps. It reads nothing itself: it yields what it needs to know next, so
that a server, which waits for Redis, and an evaluation in memory walk the same way.
Next: `features.py` and `model.py`, which weigh the candidates by what the stream has taught.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from config.settings import RankSettings
from processors.repeats import cell_of
from serving.candidates import (
    Candidates,
    Counts,
    Lists,
    Neighbours,
    Popularity,
    Query,
    Ranked,
    Session,
    SessionItems,
)
from serving.features import FLOOR, unweighed, weigh
from serving.model import Model
from streams.columns import F64, I64

__all__ = ["BEHIND", "CANDIDATES", "Asked", "Knowledge", "Ranker", "Steps", "ranked"]

CANDIDATES = 100
"""Best ones by the rule that go on to be weighed and shown, at most."""
BEHIND = 1e-6
"""Scale of what only two steps lead to: behind every direct candidate."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the stream has taught about sessions at large."""

    sessions: int
    events: int
    prior: F64
    """(CELLS,) repeat prior."""
    model: Model | None = None
    """The learned ranking, where it leads."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the steps of an answer came to."""

    session: Session
    candidates: Candidates
    query: Query
    model: Model | None
    """What is to weigh the query; None: the rule is served as it is."""


Steps = Generator[Lists | Counts, Sequence[Neighbours] | Popularity, Asked]
"""Yields Lists, to be sent Neighbours, and Counts, to be sent Popularity."""


class Ranker:
    """Ranks one session after another over a dense array that it keeps."""

    def __init__(self, settings: RankSettings) -> None:
        self._settings = settings
        self._mark = np.zeros(1024, np.int64)
        self._places = np.arange(4096)

    def ask(
        self,
        items: SessionItems,
        own: I64,
        knowledge: Knowledge,
        excluded: I64 | None,
        *,
        weighed: bool,
    ) -> Steps:
        """The steps of an answer.

        `own` are the small ints of `items`. Items in `excluded` are left out. Features are there
        only where `weighed`.
        """
        lists = yield from _neighbours(own)
        sessions = (yield from _popularity(own)).sessions
        session = self._session(items, own, lists, sessions, knowledge)
        candidates = self.vote(session)
        through = self._through(candidates, len(own))
        if len(through):
            further = yield from _neighbours(candidates.index[through])
            candidates = self.widen(candidates, through, further)
        query = self.choose(session, candidates, excluded)
        if weighed and len(query.index):
            popularity = yield from _popularity(query.index)
            query = weigh(query, session, candidates, popularity, knowledge.sessions)
        return Asked(session, candidates, query, knowledge.model if weighed else None)

    def _session(
        self,
        items: SessionItems,
        own: I64,
        lists: Sequence[Neighbours],
        sessions: F64,
        knowledge: Knowledge,
    ) -> Session:
        rules = self._settings
        known = np.maximum(sessions, 1)
        rarity = 1 + np.log(np.maximum(knowledge.sessions, known) / known)
        weight = rules.distance_decay ** (items.distance - 1.0) * rarity**rules.idf_power
        unseen = sessions == 0
        rarity[unseen] = weight[unseen] = 0
        cells = cell_of(items.distance, items.times, np.int64(items.length))
        return Session(items, own, lists, sessions, rarity, weight, knowledge.prior[cells])

    def vote(self, session: Session) -> Candidates:
        """The session's own items and all their neighbours, scored by the rule."""
        lists = session.lists
        index, place = self._once([session.own, *[one.index for one in lists]])
        strength = np.concatenate([one.strength for one in lists])
        row = np.repeat(np.arange(len(lists)), [len(one.index) for one in lists])
        strength *= session.weight[row]
        score: F64 = np.bincount(place[len(session.own) :], strength, len(index)).astype(np.float64)
        total = float(score.sum())
        if total > 0:
            score /= total
        return Candidates(index, score, total, place, row)

    def _through(self, candidates: Candidates, s: int) -> I64:
        """Places of the best voted candidates through which to look further, if need be."""
        rules = self._settings
        if len(candidates.index) >= rules.widen_below or not candidates.total:
            return np.zeros(0, np.int64)
        votes = candidates.score.copy()
        votes[candidates.place[:s]] = 0
        best = np.argsort(-votes, kind="stable")[: rules.widen_by]
        return best[votes[best] > 0]

    def widen(
        self, candidates: Candidates, through: I64, lists: Sequence[Neighbours]
    ) -> Candidates:
        """Put behind what only the lists of the candidates at `through` lead to."""
        index, place = self._once([*[one.index for one in lists], candidates.index])
        entries = len(place) - len(candidates.index)
        parts = [
            share * vote
            for share, vote in zip(self.shares(lists), candidates.score[through], strict=True)
        ]
        votes: F64 = np.bincount(place[:entries], np.concatenate(parts), len(index)).astype(
            np.float64
        )
        votes /= votes.sum() + 1e-9
        # `_once` lists items in the order of where they stand last, so known ones come last.
        new = len(index) - len(candidates.index)
        return Candidates(
            index,
            np.concatenate([BEHIND * votes[:new], candidates.score]),
            candidates.total,
            candidates.place + new,
            candidates.row,
            new,
            votes,
            (through + new, lists),
        )

    def shares(self, lists: Sequence[Neighbours]) -> list[F64]:
        """Each list's counts as shares of its total."""
        weights = [one.forward + self._settings.backward * one.backward for one in lists]
        return [weight / (weight.sum() + FLOOR) for weight in weights]

    def choose(self, session: Session, candidates: Candidates, excluded: I64 | None) -> Query:
        """The best candidates in falling order of the whole rule; features are still to come."""
        score = candidates.score.copy()
        score[candidates.place[: len(session.own)]] += session.prior
        index = candidates.index
        where = np.arange(len(index))
        if excluded is not None and len(excluded):
            where = where[~np.isin(index, excluded)]
        value = score[where]
        if len(where) > CANDIDATES:
            bound = np.partition(value, len(value) - CANDIDATES)[len(value) - CANDIDATES]
            best = value >= bound
            where, value = where[best], value[best]
        order = np.lexsort((index[where], -value))[:CANDIDATES]
        where = where[order]
        return unweighed(where, index[where], value[order])

    def _once(self, parts: list[I64]) -> tuple[I64, I64]:
        """Every int of the parts once, and where each of their entries stands among these.

        They come in the order of their last entries.
        """
        known = np.concatenate(parts)
        if len(known) > len(self._places):
            self._places = np.arange(2 * len(known))
        largest = int(known.max(initial=0))
        if largest >= len(self._mark):
            self._mark = np.zeros(max(2 * len(self._mark), largest + 1), np.int64)
        places, mark = self._places[: len(known)], self._mark
        mark[known] = places
        last = mark[known]
        once = last == places
        return known[once], (np.cumsum(once) - 1)[last]


def ranked(query: Query, model: Model | None, n: int) -> Ranked:
    """The n best of the chosen candidates: by the model where there is one, else by the rule."""
    if model is None or not len(query.index):
        return Ranked(query.index[:n], query.rule[:n])
    chance = model.chances(query)
    order = np.lexsort((query.index, -chance))[:n]
    return Ranked(query.index[order], chance[order])


def _neighbours(
    index: I64,
) -> Generator[Lists | Counts, Sequence[Neighbours] | Popularity, Sequence[Neighbours]]:
    answer = yield Lists(index)
    if isinstance(answer, Popularity):
        raise TypeError("Lists is answered with Neighbours")
    return answer


def _popularity(
    index: I64,
) -> Generator[Lists | Counts, Sequence[Neighbours] | Popularity, Popularity]:
    answer = yield Counts(index)
    if not isinstance(answer, Popularity):
        raise TypeError("Counts is answered with Popularity")
    return answer
