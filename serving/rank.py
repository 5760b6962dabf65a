"""From sessions and their items' neighbours to candidates and scores: the rule. Pure.

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

Sessions are ranked together, one after the other in the same arrays, by compiled loops
(`voting.py`, `choosing.py`): what a call of numpy costs, however little it has to do, would be most
of the price.

`ask` is the order of the steps. It reads nothing itself: it yields what it needs to know next, so
that a server, which waits for Redis, and an evaluation in memory walk the same way.
Next: `features.py` and `model.py`, which weigh the candidates by what the stream has taught.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from config.settings import RankSettings
from processors.repeats import prior_of
from serving.batch import Queries, Sessions, Voted
from serving.candidates import (
    F32,
    Candidates,
    Counts,
    Judged,
    Lists,
    Neighbours,
    Popularity,
    Query,
    Ranked,
    Session,
    SessionItems,
    Worth,
    joined,
)
from serving.choosing import choose, softmax_best
from serving.features import FLOOR, weigh
from serving.model import Model
from serving.voting import table_for, through, values, vote, widen
from streams.columns import F64, I64

__all__ = [
    "BEHIND",
    "CANDIDATES",
    "Asked",
    "Batch",
    "Knowledge",
    "Ranker",
    "Steps",
    "ranked",
    "ranked_all",
    "walk",
]

CANDIDATES = 100
"""Best ones by the rule that go on to be weighed and shown, at most."""
BEHIND = 1e-6
"""Scale of what only two steps lead to: behind every direct candidate."""
_NONE = np.zeros(0, np.int64)
_ALIKE = np.zeros(0)
"""Weights where every candidate may be shown and none counts for more."""


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
    """What the steps of one answer came to."""

    session: Session
    candidates: Candidates
    query: Query
    model: Model | None
    """What is to weigh the query; None: the rule is served as it is."""


@dataclass(slots=True)
class Batch:
    """What the steps of B answers came to."""

    sessions: Sessions
    voted: Voted
    queries: Queries
    model: Model | None

    def of(self, slot: int) -> Asked:
        """One of them."""
        session, candidates = self.sessions.of(slot), self.voted.of(slot, self.sessions)
        return Asked(session, candidates, self.query(slot), self.model)

    def query(self, slot: int) -> Query:
        """That of one of them."""
        return self.queries.of(slot, int(self.voted.start[slot]))


Wanted = Lists | Counts | Judged
Told = Sequence[Neighbours] | Popularity | Worth
Steps = Generator[Wanted, Told, Batch]
"""Yields Lists, to be sent Neighbours, Counts, to be sent Popularity, and Judged, to be sent Worth.
"""


class Ranker:
    """Ranks sessions, with a table that it keeps."""

    def __init__(self, settings: RankSettings) -> None:
        self._settings = settings
        self._table = table_for(1)

    def ask(
        self,
        items: Sequence[SessionItems],
        own: I64,
        knowledge: Knowledge,
        excluded: Sequence[I64 | None],
        *,
        weighed: bool,
        judged: bool = False,
    ) -> Steps:
        """The steps of B answers, for sessions that have at least one item each.

        `own` are the small ints of all their items in order, and `excluded` of each session the
        items to be left out. Features are there only where `weighed`. Where `judged`, not every
        candidate may be shown, or some count for more.
        """
        lists = yield from _neighbours(own)
        known = (yield from _popularity(own)).sessions
        sessions = self._sessions(items, own, lists, known, knowledge)
        rules = self._settings
        index, strength = _joined(lists)
        table = self._table_for(len(own) + len(index))
        start, index, score, total, place = vote(
            sessions.start, own, sessions.weight, sessions.entries, index, strength, table
        )
        weight = (yield from _worth(start, index)) if judged else _ALIKE
        first, where = through(
            sessions.start, start, score, total, weight, rules.widen_below, rules.widen_by
        )
        b = len(items)
        voted = Voted(
            start,
            index,
            score,
            total,
            place,
            np.zeros(b, np.int64),
            np.zeros(0),
            np.zeros(b, np.bool_),
            first,
            where,
            (),
        )
        if len(where):
            voted = self._widen(voted, (yield from _neighbours(index[where])))
            if judged:
                weight = yield from _worth(voted.start, voted.index)
        queries = self._choose(sessions, voted, weight, excluded)
        if weighed:
            popularity = yield from _popularity(queries.index)
            queries = weigh(queries, sessions, voted, popularity, knowledge.sessions)
        return Batch(sessions, voted, queries, knowledge.model if weighed else None)

    def shares(self, lists: Sequence[Neighbours]) -> list[F32]:
        """Each list's counts as shares of its total."""
        weights = [one.forward + self._settings.backward * one.backward for one in lists]
        return [weight / (weight.sum() + FLOOR) for weight in weights]

    def _sessions(
        self,
        items: Sequence[SessionItems],
        own: I64,
        lists: Sequence[Neighbours],
        known: F64,
        knowledge: Knowledge,
    ) -> Sessions:
        rules = self._settings
        sizes = [len(one.item) for one in items]
        start = _starts(sizes)
        length = np.array([one.length for one in items], np.int64)
        distance = joined([one.distance for one in items])
        times = joined([one.times for one in items])
        prior = prior_of(knowledge.prior, distance, times, start, length)
        rarity, weight = values(
            distance, known, float(knowledge.sessions), rules.distance_decay, rules.idf_power
        )
        entries = _starts([len(one.index) for one in lists])
        return Sessions(
            items, start, length, own, distance, lists, entries, known, rarity, weight, prior
        )

    def _widen(self, voted: Voted, lists: Sequence[Neighbours]) -> Voted:
        """Put behind what only the lists of the candidates at `voted.where` lead to."""
        entries = _starts([len(one.index) for one in lists])
        index, _ = _joined(lists)
        start, index, score, two_steps, indirect = widen(
            voted.start,
            voted.index,
            voted.score,
            voted.first,
            voted.where,
            entries,
            index,
            np.concatenate(self.shares(lists), dtype=np.float64),
            BEHIND,
            self._table_for(len(voted.index) + len(index)),
        )
        moved = np.repeat(start[:-1] - voted.start[:-1], np.diff(voted.first))
        return replace(
            voted,
            start=start,
            index=index,
            score=score,
            indirect=indirect,
            two_steps=two_steps,
            looked=np.diff(voted.first) > 0,
            where=voted.where + moved,
            lists=lists,
        )

    def _choose(
        self, sessions: Sessions, voted: Voted, weight: F64, excluded: Sequence[I64 | None]
    ) -> Queries:
        """The best candidates in falling order of the whole rule; features are still to come."""
        out = [_NONE if some is None else some for some in excluded]
        start, where, index, rule = choose(
            sessions.start,
            voted.start,
            voted.index,
            voted.score,
            sessions.prior,
            weight,
            _starts([len(some) for some in out]),
            np.concatenate(out),
            CANDIDATES,
        )
        none = np.zeros((0, len(out)), np.float32)
        boost = weight[where] if len(weight) else weight
        return Queries(start, where, index, rule, boost, none[:, 0], none[:, :0], none)

    def _table_for(self, entries: int) -> I64:
        """A table in which each of some sessions finds room, that have so many entries in all. To
        look for the largest session would take longer than a larger table does: of that no more is
        used than a session needs.
        """
        if 2 * entries > len(self._table):
            self._table = table_for(entries)
        return self._table


def _starts(sizes: Sequence[int]) -> I64:
    """(n + 1,) where each of n runs begins."""
    return np.array(list(accumulate(sizes, initial=0)), np.int64)


def _joined(lists: Sequence[Neighbours]) -> tuple[I64, F64]:
    """The small ints and strengths of all lists."""
    return joined([one.index for one in lists]), joined([one.strength for one in lists])


def ranked(query: Query, model: Model | None, n: int) -> Ranked:
    """The n best of the chosen candidates: by the model where there is one, else by the rule.
    Boosts multiply what either gives.
    """
    boosted = len(query.boost) and not (query.boost == 1).all()
    if not len(query.index) or (model is None and not boosted):
        return Ranked(query.index[:n], query.rule[:n])
    chance = query.rule if model is None else model.chances(query)
    if boosted:
        chance = chance * query.boost
    order = np.lexsort((query.index, -chance))[:n]
    return Ranked(query.index[order], chance[order])


def ranked_all(batch: Batch, n: int) -> tuple[I64, I64, F64]:
    """How many of the n best each session has (B,), these (B, n), and their scores, as `ranked`
    says of those without boosts; behind a session's last stands nothing of meaning.
    """
    queries, model = batch.queries, batch.model
    if model is not None:
        return softmax_best(queries.start, queries.index, model.z_of(queries), n)
    counts = np.minimum(np.diff(queries.start), n)
    at = np.minimum(queries.start[:-1, None] + np.arange(n), max(len(queries.index) - 1, 0))
    if not len(queries.index):
        return counts, np.zeros(at.shape, np.int64), np.zeros(at.shape)
    return counts, queries.index[at], queries.rule[at]


def walk(
    steps: Steps,
    neighbours: Callable[[I64], Sequence[Neighbours]],
    popularity: Callable[[I64], Popularity],
) -> Batch:
    """Walk the steps to their end, where what they want is at hand and nothing has to be waited
    for. Both callables take small ints.
    """
    answer: Told | None = None
    try:
        while True:
            wanted = next(steps) if answer is None else steps.send(answer)
            if isinstance(wanted, Judged):
                raise TypeError("steps that are judged have to be walked by who can judge")
            find = neighbours if isinstance(wanted, Lists) else popularity
            answer = find(wanted.index)
    except StopIteration as done:
        batch: Batch = done.value
        return batch


def _neighbours(index: I64) -> Generator[Wanted, Told, Sequence[Neighbours]]:
    answer = yield Lists(index)
    if isinstance(answer, Popularity | Worth):
        raise TypeError("Lists is answered with Neighbours")
    return answer


def _popularity(index: I64) -> Generator[Wanted, Told, Popularity]:
    answer = yield Counts(index)
    if not isinstance(answer, Popularity):
        raise TypeError("Counts is answered with Popularity")
    return answer


def _worth(start: I64, index: I64) -> Generator[Wanted, Told, F64]:
    answer = yield Judged(start, index)
    if not isinstance(answer, Worth):
        raise TypeError("Judged is answered with Worth")
    return answer.weight
