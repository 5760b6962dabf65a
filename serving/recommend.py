"""One recommendation: reads what it needs and calls the ranking. Knows no HTTP.

A known user is ranked by the session of the latest event, a posted session by itself; whatever is
missing to n items, or everything for an unknown user, comes from what is trending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from config.settings import Settings
from processors.popularity import WINDOWS
from processors.session import SessionTable
from serving.rank import Ranker, SessionItems, session_items
from store.reader import StoreReader
from streams.columns import F64, U64

__all__ = ["Choice", "Recommender", "Scored"]


@dataclass(frozen=True, slots=True)
class Scored:
    """Items in the order in which to show them."""

    item: U64
    score: F64


@dataclass(frozen=True, slots=True)
class Choice:
    """What a request asks for, with ids hashed."""

    n: int
    user: int | None = None
    session: U64 | None = None
    """Items in time order; replaces the user's own session."""
    exclude: U64 | None = None
    exclude_seen: bool = False
    """Leave out items of the user's history and of the session."""


class Recommender:
    """Answers from one reader with one ranker; safe for concurrent requests of one event loop."""

    def __init__(self, reader: StoreReader, settings: Settings) -> None:
        self._reader = reader
        self._ranker = Ranker(settings.rank)
        self._most = settings.rank.session_items
        self._disliked = (
            list(settings.events.weights).index("dislike")
            if "dislike" in settings.events.weights
            else None
        )

    async def recommend(self, choice: Choice) -> Scored:
        """The best `n` items for a user or session. Raises redis.RedisError."""
        history = await self._reader.history(choice.user) if choice.user is not None else None
        events, length, left_out = self._session(choice, history)
        found = await self.rank(session_items(events, length, self._most), choice.n, left_out)
        return await self._fill_up(found, choice.n, left_out)

    async def rank(self, session: SessionItems, n: int, left_out: U64 | None = None) -> Scored:
        """The best items after a session, without filling up."""
        if not len(session.item):
            return Scored(np.zeros(0, np.uint64), np.zeros(0))
        reader = self._reader
        lists = await reader.neighbours(session.item)
        knowledge = await reader.knowledge()
        interner = reader.interner
        excluded = interner.index(left_out) if left_out is not None else None
        ranked = self._ranker.rank(
            session, interner.index(session.item), lists, knowledge, n, excluded
        )
        return Scored(interner.ids(ranked.index), ranked.score)

    async def similar(self, item: int, n: int) -> Scored:
        """Items that stand near an item in sessions, itself left out."""
        own = np.array([item], np.uint64)
        once = SessionItems(own, np.ones(1, np.int64), np.ones(1, np.int64), 1)
        return await self.rank(once, n, own)

    async def trending(self, window: str, n: int) -> Scored:
        """The heaviest items of a window. `window` is one of `popularity.WINDOWS`."""
        found = await self._reader.trending(window)
        return Scored(found.item[:n], found.weight[:n])

    def _session(self, choice: Choice, history: SessionTable | None) -> tuple[U64, int, U64 | None]:
        """The session's items in time order, its length, and what must not be shown."""
        parts = [] if choice.exclude is None else [choice.exclude]
        events = np.zeros(0, np.uint64)
        disliked = np.zeros(0, np.uint64)
        if history is not None and len(history.item):
            if self._disliked is not None:
                disliked = history.item[history.kind == self._disliked]
                parts.append(disliked)
            if choice.exclude_seen:
                parts.append(history.item)
            events = history.item[history.tag == history.tag[-1]]
        if choice.session is not None:
            events = choice.session
            if choice.exclude_seen:
                parts.append(events)
        if len(disliked):
            events = events[~np.isin(events, disliked)]
        return events, len(events), np.concatenate(parts) if parts else None

    async def _fill_up(self, found: Scored, n: int, left_out: U64 | None) -> Scored:
        windows: Sequence[str] = list(WINDOWS)
        for window in windows:
            if len(found.item) >= n:
                break
            more = await self._reader.trending(window)
            taken = found.item if left_out is None else np.concatenate([found.item, left_out])
            new = np.flatnonzero(~np.isin(more.item, taken))[: n - len(found.item)]
            # Trending weights are no scores: scaled below the last of what was ranked.
            floor = float(found.score[-1]) if len(found.score) else 1.0
            top = float(more.weight[new].max(initial=0))
            score = more.weight[new] * (0.999 * floor / top) if top else more.weight[new]
            found = Scored(
                np.concatenate([found.item, more.item[new]]),
                np.concatenate([found.score, score]),
            )
        return found
