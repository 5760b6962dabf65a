"""From sessions and their items' neighbours to candidates and scores: the rule. Pure numpy.

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

Sessions are ranked together, as rows of the same arrays: what a call of numpy costs, however little
it has to do, is most of what a session by itself would cost.

`ask` is the order of the steps. It reads nothing itself: it yields what it needs to know next, so
that a server, which waits for Redis, and an evaluation in memory walk the same way.
Next: `features.py` and `model.py`, which weigh the candidates by what the stream has taught.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from config.settings import RankSettings
from processors.repeats import cell_of
from serving.candidates import (
    Candidates,
    Counts,
    Lists,
    Neighbours,
    Popularity,
    Queries,
    Query,
    Ranked,
    Session,
    SessionItems,
    Sessions,
    Through,
    Voted,
)
from serving.features import FLOOR, unweighed, weigh
from serving.model import Model
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


@dataclass(frozen=True, slots=True)
class Batch:
    """What the steps of B answers came to."""

    sessions: Sessions
    voted: Voted
    queries: Queries
    model: Model | None

    def of(self, slot: int) -> Asked:
        """One of them."""
        return Asked(
            self.sessions.of(slot),
            self.voted.of(slot, self.sessions),
            self.queries.of(slot, int(self.voted.start[slot])),
            self.model,
        )


Steps = Generator[Lists | Counts, Sequence[Neighbours] | Popularity, Batch]
"""Yields Lists, to be sent Neighbours, and Counts, to be sent Popularity."""


class Ranker:
    """Ranks sessions over a dense array that it keeps."""

    def __init__(self, settings: RankSettings) -> None:
        self._settings = settings
        self._stride = 1024
        self._mark = np.zeros(self._stride, np.int32)
        self._places = np.arange(4096, dtype=np.int32)

    def ask(
        self,
        items: Sequence[SessionItems],
        own: I64,
        knowledge: Knowledge,
        excluded: Sequence[I64 | None],
        *,
        weighed: bool,
    ) -> Steps:
        """The steps of B answers, for sessions that have at least one item each.

        `own` are the small ints of all their items in order, and `excluded` of each session the
        items to be left out. Features are there only where `weighed`.
        """
        lists = yield from _neighbours(own)
        counts = (yield from _popularity(own)).sessions
        sessions = self._sessions(items, own, lists, counts, knowledge)
        voted = self._vote(sessions)
        through = self._through(voted, sessions)
        if through:
            places = np.concatenate([where + voted.start[slot] for slot, where in through.items()])
            further = yield from _neighbours(voted.index[places])
            voted = self._widen(voted, through, places, further)
        queries = self._choose(sessions, voted, excluded)
        if weighed:
            popularity = yield from _popularity(queries.index[queries.rule > -np.inf])
            queries = weigh(queries, sessions, voted, popularity, knowledge.sessions)
        return Batch(sessions, voted, queries, knowledge.model if weighed else None)

    def _sessions(
        self,
        items: Sequence[SessionItems],
        own: I64,
        lists: Sequence[Neighbours],
        sessions: F64,
        knowledge: Knowledge,
    ) -> Sessions:
        rules = self._settings
        sizes = [len(one.item) for one in items]
        distance = np.concatenate([one.distance for one in items])
        times = np.concatenate([one.times for one in items])
        slot = np.repeat(np.arange(len(items)), sizes)
        length = np.array([one.length for one in items], np.int64)[slot]
        known = np.maximum(sessions, 1)
        rarity = 1 + np.log(np.maximum(knowledge.sessions, known) / known)
        weight = rules.distance_decay ** (distance - 1.0) * rarity**rules.idf_power
        unseen = sessions == 0
        rarity[unseen] = weight[unseen] = 0
        prior = knowledge.prior[cell_of(distance, times, length)]
        start = np.zeros(len(items) + 1, np.int64)
        np.cumsum(sizes, out=start[1:])
        return Sessions(items, start, slot, own, distance, lists, sessions, rarity, weight, prior)

    def _vote(self, sessions: Sessions) -> Voted:
        """The sessions' own items and all their neighbours, scored by the rule."""
        lists, b = sessions.lists, len(sessions.items)
        sizes = np.array([len(one.index) for one in lists])
        row = np.repeat(np.arange(len(lists)), sizes)
        # Own items and lists of one session stand together, so that its candidates do.
        known = np.concatenate([sessions.own, *[one.index for one in lists]])
        slot = np.concatenate([sessions.slot, sessions.slot[row]])
        index, slots, place = self._once(known, slot, b)
        s = len(sessions.own)
        strength = np.concatenate([one.strength for one in lists])
        strength *= sessions.weight[row]
        score: F64 = np.bincount(place[s:], strength, len(index)).astype(np.float64)
        start = slots.searchsorted(np.arange(b + 1))
        total: F64 = np.add.reduceat(score, start[:-1])
        score /= np.where(total > 0, total, 1)[slots]
        return Voted(
            start,
            slots,
            index,
            score,
            total,
            place[:s],
            place[s:],
            row,
            np.zeros(b, np.int64),
            np.zeros(len(index)),
            {},
        )

    def _through(self, voted: Voted, sessions: Sessions) -> dict[int, I64]:
        """Where candidates are few: places, among a session's own, through which to look on."""
        rules = self._settings
        few = (np.diff(voted.start) < rules.widen_below) & (voted.total > 0)
        found: dict[int, I64] = {}
        for slot in few.nonzero()[0].tolist():
            begin, end = voted.start[slot], voted.start[slot + 1]
            votes = voted.score[begin:end].copy()
            votes[voted.own[sessions.start[slot] : sessions.start[slot + 1]] - begin] = 0
            best = np.argsort(-votes, kind="stable")[: rules.widen_by]
            best = best[votes[best] > 0]
            if len(best):
                found[slot] = best
        return found

    def _widen(
        self, voted: Voted, through: dict[int, I64], places: I64, lists: Sequence[Neighbours]
    ) -> Voted:
        """Put behind what only the lists of the candidates at `places` lead to."""
        b = len(voted.total)
        sizes = [len(one.index) for one in lists]
        slot = np.concatenate([np.repeat(voted.slot[places], sizes), voted.slot])
        known = np.concatenate([*[one.index for one in lists], voted.index])
        index, slots, place = self._once(known, slot, b)
        entries = sum(sizes)
        parts = [
            share * vote
            for share, vote in zip(self.shares(lists), voted.score[places], strict=True)
        ]
        votes: F64 = np.bincount(place[:entries], np.concatenate(parts), len(index)).astype(
            np.float64
        )
        start = slots.searchsorted(np.arange(b + 1))
        votes /= (np.add.reduceat(votes, start[:-1]) + 1e-9)[slots]
        # Items come in the order of their last entries, so known ones come last.
        moved = place[entries:]
        score = BEHIND * votes
        score[moved] = voted.score
        new = np.diff(start) - np.diff(voted.start)
        found: dict[int, Through] = {}
        at = 0
        for one, where in through.items():
            mine = lists[at : at + len(where)]
            found[one] = Through(where + new[one], mine)
            at += len(where)
        return replace(
            voted,
            start=start,
            slot=slots,
            index=index,
            score=score,
            own=moved[voted.own],
            place=moved[voted.place],
            indirect=new,
            two_steps=votes,
            through=found,
        )

    def shares(self, lists: Sequence[Neighbours]) -> list[F64]:
        """Each list's counts as shares of its total."""
        weights = [one.forward + self._settings.backward * one.backward for one in lists]
        return [weight / (weight.sum() + FLOOR) for weight in weights]

    def _choose(self, sessions: Sessions, voted: Voted, excluded: Sequence[I64 | None]) -> Queries:
        """The best candidates in falling order of the whole rule; features are still to come."""
        value = voted.score.copy()
        value[voted.own] += sessions.prior
        for slot, some in enumerate(excluded):
            if some is not None and len(some):
                mine = slice(voted.start[slot], voted.start[slot + 1])
                value[mine][np.isin(voted.index[mine], some)] = -np.inf
        b, width = len(sessions.items), int(np.diff(voted.start).max())
        if width > CANDIDATES:
            rule = np.full((b, width), -np.inf)
            rule[voted.slot, np.arange(len(value)) - voted.start[voted.slot]] = value
            rule.partition(width - CANDIDATES, axis=1)
            # Ties with the last of the best stay for now, and are told apart by their order.
            value[value < rule[voted.slot, width - CANDIDATES]] = -np.inf
        where = (value > -np.inf).nonzero()[0]
        owner = voted.slot[where]
        count = np.bincount(owner, minlength=b)
        width = max(1, int(count.max()))
        at = owner, np.arange(len(where)) - (np.cumsum(count) - count)[owner]
        rule = np.full((b, width), -np.inf)
        places, index = np.zeros((2, b, width), np.int64)
        rule[at], places[at], index[at] = value[where], where, voted.index[where]
        order = np.lexsort((index, -rule))[:, :CANDIDATES]
        return unweighed(
            np.minimum(count, CANDIDATES),
            np.take_along_axis(places, order, 1),
            np.take_along_axis(index, order, 1),
            np.take_along_axis(rule, order, 1),
        )

    def _once(self, known: I64, slot: I64, b: int) -> tuple[I64, I64, I64]:
        """Every int of each of `b` slots once, whose it is, and where each entry stands among them.

        They come slot by slot, and in each in the order of their last entries.
        """
        n = len(known)
        if n > len(self._places):
            self._places = np.arange(2 * n, dtype=np.int32)
        largest = int(known.max(initial=0))
        while largest >= self._stride:
            self._stride *= 2
        if b * self._stride > len(self._mark):
            self._mark = np.zeros(b * self._stride, np.int32)
        if b > 1:
            order = np.argsort(slot, kind="stable")
            known, slot = known[order], slot[order]
        places, mark = self._places[:n], self._mark
        key = known + slot * self._stride
        mark[key] = places
        last = mark[key]
        once = last == places
        place = (np.cumsum(once) - 1)[last]
        if b > 1:
            back = np.empty(n, np.int64)
            back[order] = place
            place = back
        return known[once], slot[once], place


def ranked(query: Query, model: Model | None, n: int) -> Ranked:
    """The n best of the chosen candidates: by the model where there is one, else by the rule."""
    if model is None or not len(query.index):
        return Ranked(query.index[:n], query.rule[:n])
    chance = model.chances(query)
    order = np.lexsort((query.index, -chance))[:n]
    return Ranked(query.index[order], chance[order])


def ranked_all(batch: Batch, n: int) -> tuple[I64, F64]:
    """(B, ≤ n) the best of each session and their scores, as `ranked` says; behind a session's
    `count` stands nothing of meaning.
    """
    queries, model = batch.queries, batch.model
    if model is None:
        return queries.index[:, :n], queries.rule[:, :n]
    chance = model.chances_of(queries.base, queries.x, model.hidden_of(queries.x, queries.q))
    # What is behind the last has no chance, and must not tie with what has hardly one.
    order = np.lexsort((queries.index, -np.where(queries.rule > -np.inf, chance, -1)))[:, :n]
    return np.take_along_axis(queries.index, order, 1), np.take_along_axis(chance, order, 1)


def walk(
    steps: Steps,
    neighbours: Callable[[I64], Sequence[Neighbours]],
    popularity: Callable[[I64], Popularity],
) -> Batch:
    """Walk the steps to their end, where what they want is at hand and nothing has to be waited
    for. Both callables take small ints.
    """
    answer: Sequence[Neighbours] | Popularity | None = None
    try:
        while True:
            wanted = next(steps) if answer is None else steps.send(answer)
            find = neighbours if isinstance(wanted, Lists) else popularity
            answer = find(wanted.index)
    except StopIteration as done:
        batch: Batch = done.value
        return batch


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
