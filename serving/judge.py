"""What candidates are worth to a request: unavailable ones nothing, filtered ones nothing, boosted
ones more.

Items are small ints here. Which of them are not available is known for all of them, from the store;
what a filter says of an item is worked out when it is first asked for, and kept with the filter
until the item's catalogue entry changes: a filter that is asked with again, as a shop's are, costs
one look into an array for each candidate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.filters import Boost, Filter
from serving.shown import Shown
from serving.wanted import Choice
from store.found import Trending
from store.interner import Interner
from streams.columns import F64, I64, U64, Bool

__all__ = ["Judge"]

_MOST_FILTERS = 64
_FIRST_ROOM = 1024
_UNKNOWN, _FITS, _NOT = 0, 1, 2
_PLAIN = Choice(1)


class Judge:
    """Judges what a recommender has found. Raises redis.RedisError."""

    def __init__(self, shown: Shown, interner: Interner) -> None:
        self._shown = shown
        self.interner = interner
        self._open = np.ones(_FIRST_ROOM)
        self._away: set[int] = set()
        self._verdicts: OrderedDict[Filter, npt.NDArray[np.uint8]] = OrderedDict()
        self.changes = 0
        """How often anything has changed."""
        shown.follow_with(self._changed)

    async def restricts(self, choices: Sequence[Choice]) -> bool:
        """Whether some candidate may be worth more or less than another to any of them."""
        await self._shown.follow()
        return self.any_away or any(one.filter or one.boosts for one in choices)

    @property
    def any_away(self) -> bool:
        """Whether any item is not available."""
        return bool(self._away)

    async def weights(self, choices: Sequence[Choice], start: I64, index: I64) -> F64:
        """(U,) what the score of each candidate is multiplied by. Those of each choice begin at
        `start` (B + 1,).
        """
        weight = self.available(index)
        for slot, choice in enumerate(choices):
            if choice.filter or choice.boosts:
                mine = slice(int(start[slot]), int(start[slot + 1]))
                weight[mine] *= await self._wanted(choice.filter, choice.boosts, index[mine])
        return weight

    async def weigh(self, items: U64, choice: Choice = _PLAIN) -> F64:
        """(k,) the same of items (hashes) for one choice: by default, one that takes whatever is
        available.
        """
        index = self.interner.index(items)
        return await self.weights([choice], np.array([0, len(index)]), index)

    async def of_window(self, window: Trending, choice: Choice = _PLAIN) -> Trending:
        """What of a trending window a choice may be shown, boosted, in falling order."""
        weight = await self.weigh(window.item, choice)
        if (weight == 1).all():
            return window
        worth = window.weight * weight
        keep = np.flatnonzero(weight > 0)
        order = keep[np.lexsort((window.item[keep], -worth[keep]))]
        return Trending(
            window.item[order], worth[order], [window.category[at] for at in order.tolist()]
        )

    def from_memory(self, shown: Shown) -> Judge:
        """One that judges by what is known here, and by `shown`, which reads nothing."""
        return _Remembered(self, shown)

    def available(self, index: I64) -> F64:
        """(k,) 1 of each that is available, 0 of others."""
        self._make_room(int(index.max(initial=0)))
        return self._open[index]

    def _make_room(self, largest: int) -> None:
        if largest >= len(self._open):
            # Whatever is met from now on is available: what is not was met when that was read.
            more = np.ones(max(largest + 1, 2 * len(self._open)) - len(self._open))
            self._open = np.concatenate([self._open, more])

    async def _wanted(self, wanted: Filter | None, boosts: Sequence[Boost], index: I64) -> F64:
        weight = np.ones(len(index))
        if wanted is not None:
            weight[~await self._fits(wanted, index)] = 0
        for boost in boosts:
            weight[await self._fits(boost.filter, index)] *= boost.factor
        return weight

    async def _fits(self, wanted: Filter, index: I64) -> Bool:
        verdict = self._verdict_of(wanted, int(index.max(initial=0)))
        unknown = np.unique(index[verdict[index] == _UNKNOWN])
        if len(unknown):
            ids = self.interner.ids(unknown).tolist()
            facts = await self._shown.facts(ids)
            # Another request may have made room meanwhile, or the filter may have had to go.
            verdict = self._verdict_of(wanted, int(index.max(initial=0)))
            verdict[unknown] = [_FITS if wanted.fits(facts[item]) else _NOT for item in ids]
        fits: Bool = verdict[index] == _FITS
        return fits

    def _verdict_of(self, wanted: Filter, largest: int) -> npt.NDArray[np.uint8]:
        """By small int, with room for the largest."""
        known = self._verdicts.get(wanted)
        if known is None or largest >= len(known):
            grown = np.zeros(max(largest + 1, len(self._open)), np.uint8)
            if known is not None:
                grown[: len(known)] = known
            known = self._verdicts[wanted] = grown
        self._verdicts.move_to_end(wanted)
        if len(self._verdicts) > _MOST_FILTERS:
            self._verdicts.popitem(last=False)
        return known

    def _changed(self, items: U64 | None, unavailable: U64) -> None:
        """Catalogue entries of items (hashes) are others now, or all may be; of these, some are not
        available.
        """
        self.changes += 1
        if items is None:
            self._verdicts.clear()
            self._open[:] = 1
            self._away = set()
        else:
            changed = self.interner.index(items)
            self._make_room(int(changed.max(initial=0)))
            self._open[changed] = 1
            self._away.difference_update(items.tolist())
            for verdict in self._verdicts.values():
                verdict[changed[changed < len(verdict)]] = _UNKNOWN
        closed = self.interner.index(unavailable)
        self._make_room(int(closed.max(initial=0)))
        self._open[closed] = 0
        self._away.update(unavailable.tolist())


class _Remembered(Judge):
    """Knows what another knows, and asks nobody: what is not known of an item fits no filter."""

    def __init__(self, of: Judge, shown: Shown) -> None:
        super().__init__(shown, of.interner)
        self._of = of

    async def restricts(self, choices: Sequence[Choice]) -> bool:
        return self._of.any_away or any(one.filter or one.boosts for one in choices)

    def available(self, index: I64) -> F64:
        return self._of.available(index)

    async def _fits(self, wanted: Filter, index: I64) -> Bool:
        ids = self.interner.ids(index).tolist()
        known = await self._shown.facts(ids)
        return np.array([item in known and wanted.fits(known[item]) for item in ids], np.bool_)
