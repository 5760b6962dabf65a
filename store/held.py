"""What a reader has read and still holds, however old: answers without the store.

Asked the same questions as the reader, it never waits and never fails: what is not held is unknown.
Its bounds are those of the reader, which forgets as much while the store answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from processors.repeats import CELLS
from serving.candidates import NOTHING, Neighbours, Popularity
from serving.rank import Knowledge
from store.exposures import NewItems
from store.found import Trending
from store.interner import Interner
from store.shared import Refreshed
from store.statistics import Statistics
from streams.columns import I64, U64

__all__ = ["Held", "HeldList"]

_NOBODY = np.zeros(0, np.uint64)


@dataclass(slots=True)
class HeldList:
    """A parsed neighbour list."""

    until: float
    """When it has to be read again, by `time.monotonic`."""
    digest: int
    """Of what it was parsed from."""
    list: Neighbours


class Held:
    """Looks at what a reader keeps; sessions of users are not among it."""

    def __init__(
        self,
        interner: Interner,
        lists: Mapping[int, HeldList],
        statistics: Statistics,
        known: Refreshed[Knowledge],
        trending: Mapping[str, Refreshed[Trending]],
        now: Callable[[], tuple[int, float]],
    ) -> None:
        """`now` gives the moment, in seconds since 1970, at which recent events are looked at, and
        the rate at which they decay.
        """
        self.interner = interner
        self._lists = lists
        self._statistics = statistics
        self._known = known
        self._trending = trending
        self._now = now

    def holds(self, items: U64) -> bool:
        """Whether a neighbour list of any of the items is held, and says something."""
        found = map(self._lists.get, items.tolist())
        return any(one is not None and len(one.list.index) for one in found)

    async def vectors(self, users: Sequence[int]) -> list[bytes | None]:
        """Of nobody anything is known."""
        return [None] * len(users)

    async def neighbours(self, items: U64) -> list[Neighbours]:
        """Neighbours of items, NOTHING where none are held."""
        found = map(self._lists.get, items.tolist())
        return [NOTHING if one is None else one.list for one in found]

    async def bought(self, item: int) -> Neighbours:
        """Nothing: what is bought together is read for each answer."""
        return NOTHING

    async def popularity(self, index: I64) -> Popularity:
        """How popular items, given by small ints, were."""
        self._statistics.look(index, time.monotonic())  # makes room for ints it has not seen
        return Popularity(*self._statistics.of(index, *self._now()))

    async def knowledge(self) -> Knowledge:
        """Totals, repeat prior and the learned ranking."""
        return self._known.last or Knowledge(0, 0, np.zeros(CELLS))

    async def trending(self, window: str) -> Trending:
        """Items of a window."""
        return self._trending[window].last or Trending(_NOBODY, np.zeros(0), [])

    async def new_items(self) -> NewItems:
        """None: nothing is tried meanwhile."""
        return NewItems(_NOBODY, np.zeros(0), 0)
