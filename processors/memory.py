"""Counts in this process's memory, with what the store does to them: for `headwater evaluate`.

They take the same increments that a commit writes to Redis, batch by batch (`apply`) or event by
event (`learn`), and answer with the same `Neighbours` and `Knowledge`. Nothing is ever rebuilt: an
item's neighbours grow in place.

A weight w of time t is kept as w·e^(rate·(t - landmark)), so that weights of all times add up as
they are. Before the exponent grows too large, the landmark moves on and all weights are rescaled.
Ranking only compares weights with each other, so it needs no decay to the present.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from config.settings import Settings
from processors.cooccurrence import decay_rate
from processors.fold import Folded, ItemDeltas, TotalDeltas
from processors.repeats import CELLS, repeat_prior
from processors.session import SessionTable
from serving.rank import Knowledge, Neighbours
from store.layout import pack_sessions, unpack_sessions
from store.reader import Interner
from streams.columns import F64, I64, U64

__all__ = ["EventParts", "MemoryCounts", "MemorySessions"]

_LARGEST_EXPONENT = 500.0


class MemorySessions:
    """Histories of users, packed as in the store."""

    def __init__(self) -> None:
        self._vectors: dict[int, bytes] = {}

    def read(self, users: U64) -> SessionTable:
        """The table of these users (rising)."""
        return unpack_sessions(users, [self._vectors.get(user) for user in users.tolist()])

    def write(self, table: SessionTable) -> None:
        """Replace the histories of a table's users."""
        lengths, data = pack_sessions(table)
        end = 0
        for user, length in zip(table.user.tolist(), lengths.tolist(), strict=True):
            self._vectors[user] = data[end : end + length]
            end += length


class _Item:
    """What is counted for one item; the arrays belong together place by place."""

    __slots__ = ("index", "place", "sessions", "strength", "weight")

    def __init__(self) -> None:
        self.sessions = 0
        self.place: dict[int, int] = {}
        """Neighbour → its place in the arrays."""
        self.index = array("q")
        self.weight = array("d")
        """As of the landmark."""
        self.strength = array("d")
        """Weights to the power `rank.count_power`."""


class EventParts:
    """A folded batch cut into its events, with ids interned: what `MemoryCounts.learn` adds."""

    def __init__(self, folded: Folded, interner: Interner) -> None:
        n = len(folded.events)
        self.item: list[int] = interner.index(folded.events.item).tolist()
        self.first: list[bool] = folded.first.tolist()
        self.opens: list[bool] = folded.opens.tolist()
        pairs, repeats = folded.pairs, folded.repeats
        order = np.argsort(pairs.row, kind="stable")
        self.source: list[int] = _interned(interner, pairs.source[order]).tolist()
        self.neighbour: list[int] = _interned(interner, pairs.neighbour[order]).tolist()
        self.weight = pairs.weight[order]
        self.time = pairs.time[order]
        self.pair_start: list[int] = np.searchsorted(pairs.row[order], np.arange(n + 1)).tolist()
        order = np.argsort(repeats.row, kind="stable")
        self.cell = repeats.cell[order]
        self.hit = repeats.hit[order]
        self.cell_start: list[int] = np.searchsorted(repeats.row[order], np.arange(n + 1)).tolist()


class MemoryCounts:
    """Everything that ranking needs, counted here."""

    def __init__(self, settings: Settings) -> None:
        self.interner = Interner()
        self._rate = decay_rate(settings.fold.half_life_days)
        self._power = settings.rank.count_power
        self._landmark: float | None = None
        self._items: dict[int, _Item] = {}
        self._sessions = 0
        self._opportunities = np.zeros(CELLS)
        self._hits = np.zeros(CELLS)

    def apply(self, items: ItemDeltas, totals: TotalDeltas) -> None:
        """Add a whole batch."""
        increments = items.increments
        order = np.argsort(increments.source, kind="stable")
        source = _interned(self.interner, increments.source[order])
        neighbour: list[int] = _interned(self.interner, increments.neighbour[order]).tolist()
        weight: list[float] = self._scaled(
            increments.weight[order].astype(np.float64), increments.time[order].astype(np.float64)
        ).tolist()
        begin = np.flatnonzero(np.concatenate([[True], source[1:] != source[:-1]]))[: len(source)]
        bounds: list[int] = np.append(begin, len(source)).tolist()
        for one, a, b in zip(source[begin].tolist(), bounds[:-1], bounds[1:], strict=True):
            self._add(self._item(one), zip(neighbour[a:b], weight[a:b], strict=True))
        index: list[int] = self.interner.index(items.item).tolist()
        for one, sessions in zip(index, items.sessions.tolist(), strict=True):
            self._item(one).sessions += sessions
        self._sessions += totals.sessions
        self._opportunities += totals.opportunities
        self._hits += totals.hits

    def begin(self, parts: EventParts) -> list[float]:
        """Weights of a batch's pairs as of the landmark, to be handed to `learn`."""
        scaled: list[float] = self._scaled(parts.weight, parts.time).tolist()
        return scaled

    def learn(self, parts: EventParts, weights: list[float], row: int) -> None:
        """Add one event of a batch. `weights` come from `begin` for the same batch, which must be
        the latest one begun.
        """
        for at in range(parts.pair_start[row], parts.pair_start[row + 1]):
            self._add(self._item(parts.source[at]), ((parts.neighbour[at], weights[at]),))
        self._item(parts.item[row]).sessions += parts.first[row]
        self._sessions += parts.opens[row]
        a, b = parts.cell_start[row], parts.cell_start[row + 1]
        # Cells of one event differ: no two of its session's items have the same distance.
        self._opportunities[parts.cell[a:b]] += 1
        self._hits[parts.cell[a:b]] += parts.hit[a:b]

    def neighbours(self, items: Iterable[int]) -> list[Neighbours | None]:
        """Neighbours of items given by small ints; None where nothing is known of one."""
        found: list[Neighbours | None] = []
        for one in items:
            item = self._items.get(one)
            found.append(
                None
                if item is None
                else Neighbours(
                    # Copies: an array cannot grow while numpy looks at it.
                    np.array(item.index, np.int64),
                    np.array(item.strength, np.float64),
                    item.sessions,
                )
            )
        return found

    def knowledge(self) -> Knowledge:
        """Sessions in all, and the repeat prior."""
        return Knowledge(self._sessions, repeat_prior(self._opportunities, self._hits))

    def weights(self, item: int, time: float) -> dict[int, float]:
        """Weights of an item's neighbours, all by their hashes, decayed to `time` (s)."""
        mine = self._items.get(int(self.interner.index(np.array([item], np.uint64))[0]))
        if mine is None or self._landmark is None:
            return {}
        factor = math.exp(-self._rate * (time - self._landmark))
        hashes = self.interner.ids(np.array(mine.index, np.int64)).tolist()
        return {hashed: weight * factor for hashed, weight in zip(hashes, mine.weight, strict=True)}

    def _item(self, index: int) -> _Item:
        item = self._items.get(index)
        if item is None:
            item = self._items[index] = _Item()
        return item

    def _add(self, item: _Item, parts: Iterable[tuple[int, float]]) -> None:
        place, weights, strengths, power = item.place, item.weight, item.strength, self._power
        for neighbour, weight in parts:
            at = place.get(neighbour)
            if at is None:
                place[neighbour] = len(place)
                item.index.append(neighbour)
                weights.append(weight)
                strengths.append(weight**power)
            else:
                weights[at] = weight = weights[at] + weight
                strengths[at] = weight**power

    def _scaled(self, weight: F64, time: F64) -> F64:
        """Weights as of the landmark, which moves when they would grow too large."""
        if not len(time):
            return weight
        latest = float(time.max())
        if self._landmark is None:
            self._landmark = latest
        if self._rate * (latest - self._landmark) > _LARGEST_EXPONENT:
            self._rescale(math.exp(-self._rate * (latest - self._landmark)))
            self._landmark = latest
        scaled: F64 = weight * np.exp(self._rate * (time - self._landmark))
        return scaled

    def _rescale(self, factor: float) -> None:
        for item in self._items.values():
            for at, weight in enumerate(item.weight):
                item.weight[at] = weight * factor
                item.strength[at] = item.weight[at] ** self._power


def _interned(interner: Interner, ids: U64) -> I64:
    """Small ints of ids of which many are the same."""
    once, place = np.unique(ids, return_inverse=True)
    found: npt.NDArray[np.int64] = interner.index(once)[place]
    return found
