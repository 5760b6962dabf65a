"""One recommendation: reads what it needs and calls the ranking. Knows no HTTP.

A known user is ranked by the session of the latest event, a posted session by itself. The learned
ranking weighs the candidates where it leads (`processors/standing.py`), the rule alone where not.
Whatever is missing to n items, or everything for an unknown user, comes from what is trending.
At the last place of a share of the answers, a new item takes the place of the one that stood there.

What is not available is never shown. What a filter leaves is filled up, too, in this order: what
stands beside the session's items, what two steps lead to, what is trending and fits the filter, and
at last, unless the request is strict, what is trending at all, which is then told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from config.settings import Settings
from processors.popularity import WINDOWS
from serving.candidates import Judged, Lists, Ranked, SessionItems, Worth, joined
from serving.diversity import diversify
from serving.explain import Explanation, explain, of_trending
from serving.filling import fill_up
from serving.judge import Judge
from serving.rank import CANDIDATES, Asked, Batch, Ranker, Told, ranked, ranked_all
from serving.shown import Shown
from serving.wanted import Choice, Wanted, wanted_of
from store.found import Trending
from store.held import Held
from store.reader import StoreReader
from store.shared import Batched
from streams.columns import F64, U64

__all__ = ["TOGETHER", "Filled", "Recommender", "Relation", "Scored"]

_LEAST_EXPLORED = 5
"""In a shorter answer, the last place is too much to give away."""

Relation = Literal["viewed", "bought"]
"""What makes items similar: seen in one session, or bought in one."""


@dataclass(frozen=True, slots=True)
class Filled:
    """How an answer to a filter was filled up."""

    trending: int
    """Items that are only trending, and fit the filter."""
    outside: int
    """The last items, which do not fit it."""


@dataclass(slots=True)
class Scored:
    """Items in the order in which to show them."""

    item: U64
    score: F64
    why: tuple[Explanation, ...] | None = None
    """Of each item, where asked for."""
    explored: float | None = None
    """Where the last item is a new one, there to be tried: what the ranking gave, as a chance to be
    next, for the one that gave way to it."""
    filled: Filled | None = None
    """Where there is a filter."""


@dataclass(slots=True)
class _Task:
    """What one request wants to have worked out."""

    choice: Choice
    session: SessionItems | None = None
    """In place of what the choice says; nothing is filled up then."""


@dataclass(slots=True)
class _Found:
    """What came of it."""

    scored: Scored
    ranked: int
    """How many of the items are ranked and not just trending."""
    left_out: U64 | None
    """What must not be shown."""
    choice: Choice


TOGETHER = 16
"""Sessions that are ranked together, at most. Twice as many cost no less each, and at 70 % of what
a server can answer p99 was 16 to 23 ms with them, 8 to 9 ms with these."""
_NOTHING = Scored(np.zeros(0, np.uint64), np.zeros(0))


class Recommender:
    """Answers from one reader with one ranker; safe for concurrent requests of one event loop.

    Requests of the same moment are worked out together: one read of each kind, one ranking.
    """

    def __init__(
        self,
        reader: StoreReader,
        settings: Settings,
        random: np.random.Generator | None = None,
    ) -> None:
        """`random` decides which answers have a new item, and which one."""
        self.shown = Shown(reader, settings)
        """What the items look like."""
        self.reader, self.settings = reader, settings
        self._reader: StoreReader | Held = reader
        self.judge = Judge(self.shown, reader.interner)
        """Knows what may be shown."""
        self._explored_share = settings.explore.share
        self._random = random or np.random.default_rng()
        self._ranker = Ranker(settings.rank)
        self._together = Batched(self._work, TOGETHER)
        self._most = settings.rank.session_items
        self._disliked = (
            list(settings.events.weights).index("dislike")
            if "dislike" in settings.events.weights
            else -1
        )
        self._filled: dict[tuple[int, str | None], tuple[list[Trending], int, Scored]] = {}

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """What is under way by itself, to be ended before the store's connection is closed."""
        return {*self._together.tasks, *self.shown.tasks, *self.reader.tasks}

    async def recommend_all(self, choices: Sequence[Choice]) -> list[Scored]:
        """The best items for users or sessions of one moment, in order, and now and then a new one
        at the last place. Raises redis.RedisError.
        """
        return await self._explored(await self._work([_Task(choice) for choice in choices]))

    async def best(self, choice: Choice) -> Scored:
        """As `recommend_all` for one, without new items that are there to be tried."""
        return (await self._together.get(_Task(choice))).scored

    async def rank(self, session: SessionItems, n: int) -> Scored:
        """The best items after a session, without filling up."""
        return (await self._together.get(_Task(Choice(n), session))).scored

    async def similar(self, item: int, n: int, relation: Relation = "viewed") -> Scored:
        """Items that stand near an item in sessions, or that are bought together with it; itself
        left out.
        """
        own = np.array([item], np.uint64)
        if relation == "viewed":
            once = SessionItems(own, np.ones(1, np.int64), np.ones(1, np.int64), 1)
            return (await self._together.get(_Task(Choice(n, exclude=own), once))).scored
        await self.shown.follow()
        near = await self._reader.bought(item)
        ids = self._reader.interner.ids(near.index)
        # In one basket, neither comes first.
        weight = (near.forward + near.backward).astype(np.float64)
        weight /= weight.sum() or 1.0
        others = np.flatnonzero((ids != own) & (self.judge.available(near.index) > 0))
        order = others[np.lexsort((ids[others], -weight[others]))][:n]
        return Scored(ids[order], weight[order])

    async def trending(self, window: str, n: int) -> Scored:
        """The heaviest items of a window. `window` is one of `popularity.WINDOWS`."""
        await self.shown.follow()
        found = await self.judge.of_window(await self._reader.trending(window))
        return Scored(found.item[:n], found.weight[:n])

    async def ask_all(
        self,
        sessions: Sequence[SessionItems],
        left_out: Sequence[U64 | None],
        *,
        choices: Sequence[Choice] = (),
        weighed: bool | None = None,
    ) -> Batch:
        """The candidates after sessions, each of at least one item, with features where `weighed`:
        by default, where the learned ranking leads. With choices, one of each session, candidates
        are those that may be shown. Raises redis.RedisError.
        """
        reader, interner = self._reader, self._reader.interner
        knowledge = await reader.knowledge()
        steps = self._ranker.ask(
            sessions,
            interner.index(joined([one.item for one in sessions])),
            knowledge,
            [None if out is None else interner.index(out) for out in left_out],
            weighed=knowledge.model is not None if weighed is None else weighed,
            judged=bool(choices) and await self.judge.restricts(choices),
        )
        answer: Told | None = None
        try:
            while True:
                wanted = next(steps) if answer is None else steps.send(answer)
                if isinstance(wanted, Lists):
                    answer = await reader.neighbours(interner.ids(wanted.index))
                elif isinstance(wanted, Judged):
                    answer = Worth(await self.judge.weights(choices, wanted.start, wanted.index))
                else:
                    answer = await reader.popularity(wanted.index)
        except StopIteration as done:
            batch: Batch = done.value
            return batch

    async def _work(self, tasks: list[_Task]) -> list[_Found]:
        """Read, rank and fill up what requests of one moment want."""
        wanted = await self._wanted(tasks)
        ranked_ones = iter(await self._rank_all([one for one in wanted if len(one.session.item)]))
        found: list[_Found] = []
        for task, one in zip(tasks, wanted, strict=True):
            scored = next(ranked_ones) if len(one.session.item) else _NOTHING
            count = len(scored.item)
            if task.session is None and count < one.choice.n:
                scored = await self._fill_up(scored, one)
            found.append(_Found(scored, count, one.left_out, one.choice))
        return found

    async def _wanted(self, tasks: list[_Task]) -> list[Wanted]:
        """Read the histories of those that do not bring a session."""
        choices = [task.choice for task in tasks if task.session is None]
        users = [choice.user for choice in choices if choice.user is not None]
        vectors = await self._reader.vectors(users)
        read = iter(wanted_of(choices, vectors, self._disliked, self._most))
        return [
            next(read)
            if task.session is None
            else Wanted(task.choice, task.session, task.choice.exclude)
            for task in tasks
        ]

    async def _rank_all(self, wanted: list[Wanted]) -> list[Scored]:
        if not wanted:
            return []
        batch = await self.ask_all(
            [one.session for one in wanted],
            [one.left_out for one in wanted],
            choices=[one.choice for one in wanted],
        )
        counts, index, score = ranked_all(batch, max(one.choice.n for one in wanted))
        ids = self._reader.interner.ids(index)
        found: list[Scored] = []
        for slot, (count, one) in enumerate(zip(counts.tolist(), wanted, strict=True)):
            choice = one.choice
            if choice.explain or choice.diversity or choice.boosts:
                found.append(await self._special(batch.of(slot), choice))
            else:
                k = min(count, choice.n)
                found.append(Scored(ids[slot, :k], score[slot, :k]))
        return found

    async def _special(self, asked: Asked, choice: Choice) -> Scored:
        """One that is to be diverse, boosted or explained."""
        if choice.diversity:
            found = await self._differ(ranked(asked.query, asked.model, CANDIDATES), choice)
        else:
            found = ranked(asked.query, asked.model, choice.n)
        why = None
        if choice.explain:
            why = tuple(explain(self._ranker, asked, found.index, found.score))
        return Scored(self._reader.interner.ids(found.index), found.score, why)

    async def _differ(self, found: Ranked, choice: Choice) -> Ranked:
        lists = await self._reader.neighbours(self._reader.interner.ids(found.index))
        shown = diversify(found.score, found.index, lists, choice.n, choice.diversity)
        return Ranked(found.index[shown], found.score[shown])

    async def _fill_up(self, found: Scored, wanted: Wanted) -> Scored:
        choice, session = wanted.choice, wanted.session
        names = sorted(WINDOWS, key=lambda name: name != choice.window)
        windows = [await self._reader.trending(name) for name in names]
        nothing_known = not len(found.item) and not len(session.item) and wanted.left_out is None
        if nothing_known and not (choice.explain or choice.filter or choice.boosts):
            return await self._only_trending(choice, windows)
        # What little is known of the session: items of its categories go first.
        liked = await self.shown.categories(session.item.tolist())
        fitting = [await self.judge.of_window(one, choice) for one in windows]
        left_out, n = wanted.left_out, choice.n
        item, score = fill_up(found.item, found.score, n, left_out, fitting, liked)
        filled = None
        if choice.filter is not None:
            fit = len(item)
            if fit < n and not choice.strict:
                open_to_all = [await self.judge.of_window(one) for one in windows]
                item, score = fill_up(item, score, n, left_out, open_to_all, liked)
            filled = Filled(fit - len(found.item), len(item) - fit)
        more = score[len(found.item) :]
        why = (*(found.why or ()), *of_trending(more)) if choice.explain else None
        return Scored(item, score, why, filled=filled)

    async def _only_trending(self, choice: Choice, windows: list[Trending]) -> Scored:
        """The same for everybody of whom nothing is known, until a window is read anew or the
        catalogue changes.
        """
        await self.shown.follow()
        known, changes = self._filled.get((choice.n, choice.window)), self.judge.changes
        same = known is not None and known[1] == changes
        if (
            known is None
            or not same
            or any(a is not b for a, b in zip(known[0], windows, strict=True))
        ):
            shown = [await self.judge.of_window(one) for one in windows]
            filled = fill_up(_NOTHING.item, _NOTHING.score, choice.n, None, shown, ())
            known = self._filled[choice.n, choice.window] = windows, changes, Scored(*filled)
        return known[2]

    async def _explored(self, answers: Sequence[_Found]) -> list[Scored]:
        """Now and then with a new item at the last place, if there is one that may be shown."""
        share, random = self._explored_share, self._random.random
        return [
            await self._explore(answer) if random() < share else answer.scored for answer in answers
        ]

    async def _explore(self, answer: _Found) -> Scored:
        found, left_out = answer.scored, answer.left_out
        if len(found.item) < _LEAST_EXPLORED:
            return found
        new = (await self._reader.new_items()).item
        new = new[await self.judge.weigh(new, answer.choice) > 0]
        taken = set(found.item.tolist())
        if left_out is not None:
            taken.update(left_out.tolist())
        new = new[[one not in taken for one in new.tolist()]]
        if not len(new):
            return found
        item, last = found.item.copy(), float(found.score[-1])
        item[-1] = self._random.choice(new)
        why = None if found.why is None else (*found.why[:-1], *of_trending(found.score[-1:]))
        # Weights of what is trending alone are no chances; their shares are the nearest thing.
        total = 1.0 if answer.ranked else float(found.score.sum()) or 1.0
        filled = found.filled
        if filled is not None and filled.outside:  # one of those gave way to one that fits
            filled = Filled(filled.trending, filled.outside - 1)
        return Scored(item, found.score, why, last / total, filled)
