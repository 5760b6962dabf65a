"""What is answered when the store does not answer in time: the ladder, from its second rung down.

    1  the full answer, from what the store says within `redis.timeout_seconds`
    2  the same ranking over what this process has read and still holds, however old: neighbour
       lists, statistics, the learned ranking, titles. For a session that a request brings along,
       and for similar items, where a list of any of the items is held
    3  the last good list of what is trending, read every two seconds while the store answers
    4  503, of a process that has not read anything yet

Answers of rungs 2 and 3 say `"degraded": true` and are counted by cause in
`headwater_degraded_total`: `store_unreachable`, `store_timeout` and `store_error` are the store's,
`store_empty` means that it has lost everything and nothing of the log was counted again yet, and
`late` are requests that waited here for too long, behind others that were slow. What is held is
bounded as it is while the store answers (`store/reader.py`, `shown.py`); sessions of users are not
among it, so what is known of a user is never shown longer than the store knows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from processors.popularity import WINDOWS
from serving import metrics
from serving.outage import StoreDown
from serving.recommend import Filled, Recommender, Relation, Scored
from serving.wanted import Choice
from streams.columns import U64

__all__ = ["MOST", "Display", "Fallback", "Pieces", "displays"]

MOST = 100
"""Items in one answer, at most."""

_ANYONE = "anyone"
Pieces = dict[int, bytes]
"""JSON of items up to the score, by their hashes."""


@dataclass(slots=True)
class Display:
    """What was found, and what its items look like."""

    found: Scored
    pieces: list[bytes | None]
    """Of each item; None where nobody knows its name."""
    named: Pieces
    """Those of the items that explain it, among others."""

    def behind(self, skip: int) -> Display:
        """What stands behind the first `skip` items."""
        if not skip:
            return self
        found = self.found
        filled = found.filled
        if filled is not None:
            rest = max(0, len(found.item) - skip)
            outside = min(filled.outside, rest)
            filled = Filled(min(filled.trending, rest - outside), outside)
        shown = replace(
            found,
            item=found.item[skip:],
            score=found.score[skip:],
            why=None if found.why is None else found.why[skip:],
            explored=found.explored if skip < len(found.item) else None,
            filled=filled,
        )
        return Display(shown, self.pieces[skip:], self.named)


async def displays(recommender: Recommender, found: Sequence[Scored]) -> list[Display]:
    """What answers look like, in order."""
    items = [one.item.tolist() for one in found]
    named = [why.item.tolist() for one in found for why in one.why or ()]
    pieces = await recommender.shown.pieces(items + named)
    names = _by_item(named, pieces[len(items) :]) if named else {}
    return [Display(one, some, names) for one, some in zip(found, pieces, strict=False)]


class _FromMemory(Recommender):
    """Ranks, and shows, what was read for another and is still held, without asking the store."""

    def __init__(self, of: Recommender) -> None:
        super().__init__(of.reader, of.settings)
        self._reader = self._held = of.reader.held()
        self.shown = of.shown.from_memory()
        self.judge = of.judge.from_memory(self.shown)

    def holds(self, items: U64) -> bool:
        """Whether anything can be ranked after items (hashes)."""
        return self._held.holds(items)


class Fallback:
    """Answers from what a recommender's reader holds, and from what was trending."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender, self._tenant = recommender, recommender.settings.tenant
        self._memory = _FromMemory(recommender)
        self._last_good: dict[str, tuple[Scored, Pieces]] = {}

    async def remember(self) -> None:
        """Read what everybody is shown on the third rung. Raises redis.RedisError."""
        await self.keep(await self._recommender.best(Choice(MOST)))

    async def keep(self, found: Scored, window: str = _ANYONE) -> None:
        """Keep a list, if it is good: of a window, or for all who ask for no window."""
        await self._keep(found, window, self._recommender)

    async def _keep(self, found: Scored, window: str, shown_by: Recommender) -> None:
        items = found.item.tolist()
        if pieces := _by_item([items], await shown_by.shown.pieces([items])):
            self._last_good[window] = found, pieces

    async def knows_better(self) -> bool:
        """Whether something was read before, and the store now says that nothing was ever counted.
        Raises redis.RedisError.
        """
        return bool(self._last_good) and not (await self._recommender.reader.knowledge()).events

    async def recommend_all(self, choices: Sequence[Choice], down: StoreDown) -> list[Display]:
        """In place of full answers to requests, in order. Raises `down` from the last rung."""
        await self._recall()
        holds = [one.session is not None and self._memory.holds(one.session) for one in choices]
        held = [one for one, there in zip(choices, holds, strict=True) if there]
        ranked = iter(await self._ranked(held, down) if held else [])
        return [
            (next(ranked) if there else None) or await self._trending(one, down)
            for one, there in zip(choices, holds, strict=True)
        ]

    async def similar(self, item: int, n: int, relation: Relation, down: StoreDown) -> Display:
        """In place of items similar to one (a hash). Raises `down` from the last rung."""
        await self._recall()
        own = np.array([item], np.uint64)
        # What is bought together is read for each answer: none of that is held.
        if relation == "viewed" and self._memory.holds(own):
            found = await self._memory.similar(item, MOST, relation)
            (shown,) = await displays(self._memory, [found])
            if (named := _named(shown, n)) is not None:
                metrics.DEGRADED.labels(self._tenant, down.cause, "lists").inc()
                return named
        return await self._trending(Choice(n, exclude=own), down)

    async def trending(self, n: int, window: str, down: StoreDown) -> Display:
        """In place of what is trending in a window. Raises `down` from the last rung."""
        await self._recall()
        return await self._trending(Choice(n), down, window)

    async def _recall(self) -> None:
        """A store that goes away soon after its first event: what other answers have read of it
        may be all that is known.
        """
        if not self._last_good:
            await self._keep(await self._memory.best(Choice(MOST)), _ANYONE, self._memory)

    async def _trending(self, choice: Choice, down: StoreDown, window: str = _ANYONE) -> Display:
        """The last good list, as far as it may be shown. Raises `down` where there is none."""
        order = (window, _ANYONE, *WINDOWS)
        good = next((self._last_good[k] for k in order if k in self._last_good), None)
        if good is None:
            raise down
        metrics.DEGRADED.labels(self._tenant, down.cause, "trending").inc()
        found, pieces = good
        some = await self._fitting(found, choice)
        return Display(some, [pieces.get(item) for item in some.item.tolist()], pieces)

    async def _fitting(self, found: Scored, choice: Choice) -> Scored:
        """What a choice may be shown of a list: first what fits its filter, as far as that is
        known, then what does not.
        """
        judge, keep = self._memory.judge, np.ones(len(found.item), np.bool_)
        if choice.exclude is not None:
            keep = ~np.isin(found.item, choice.exclude)
        weight = await judge.weigh(found.item, choice)
        score = found.score * weight
        fitting = np.flatnonzero(keep & (weight > 0))
        place = fitting[np.argsort(-score[fitting], kind="stable")][: choice.n]
        if choice.filter is None:
            return Scored(found.item[place], score[place])
        others = np.zeros(0, np.int64)
        if not choice.strict:
            shown = (await judge.weigh(found.item) > 0) & (weight == 0)
            others = np.flatnonzero(keep & shown)[: choice.n - len(place)]
        item = found.item[np.concatenate([place, others])]
        # They fall, as in every answer.
        bound = score[place].min(initial=np.inf)
        rest = np.minimum(found.score[others], bound)
        filled = Filled(len(place), len(others))
        return Scored(item, np.concatenate([score[place], rest]), filled=filled)

    async def _ranked(self, choices: Sequence[Choice], down: StoreDown) -> list[Display | None]:
        """Answers ranked from what is held; None where nothing of one has a name that is held."""
        # All that can be had: names of some may not be held.
        found = await self._memory.recommend_all([replace(one, n=MOST) for one in choices])
        shown = await displays(self._memory, found)
        named = [_named(one, choice.n) for one, choice in zip(shown, choices, strict=True)]
        metrics.DEGRADED.labels(self._tenant, down.cause, "lists").inc(
            sum(one is not None for one in named)
        )
        return named


def _named(shown: Display, n: int) -> Display | None:
    """The first n items whose names are known; None where there are none."""
    places = [place for place, piece in enumerate(shown.pieces) if piece][:n]
    if not places:
        return None
    found = shown.found
    why = None if found.why is None else tuple(found.why[place] for place in places)
    filled = found.filled
    if filled is not None:
        # The last ones do not fit; of those before, so many were ranked.
        ranked, fit = (
            len(found.item) - filled.trending - filled.outside,
            len(found.item) - filled.outside,
        )
        filled = Filled(
            sum(ranked <= place < fit for place in places), sum(p >= fit for p in places)
        )
    some = Scored(found.item[places], found.score[places], why, filled=filled)
    return Display(some, [shown.pieces[place] for place in places], shown.named)


def _by_item(items: Sequence[list[int]], pieces: Sequence[list[bytes | None]]) -> Pieces:
    """Those that have a piece."""
    both = zip(chain.from_iterable(items), chain.from_iterable(pieces), strict=True)
    return {item: piece for item, piece in both if piece}
