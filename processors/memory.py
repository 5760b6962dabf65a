"""Counts in this process's memory, with what the store does to them: for `headwater evaluate`.

They take the same increments that a commit writes to Redis, batch by batch (`apply`) or event by
event (`count`), and answer the ranking's questions as a `StoreReader` does. An item's neighbours
grow in place, and are cut to the best ones where compaction in the store would do so.

A weight w of time t is kept as w·e^(rate·(t - landmark)), so that weights of all times add up as
they are. Before the exponent grows too large, the landmark moves on and all weights are rescaled.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from config.settings import Settings
from processors.cooccurrence import decay_rate
from processors.fold import Folded, ItemDeltas, TotalDeltas
from processors.learning import Taught
from processors.popularity import RECENT
from processors.repeats import CELLS, repeat_prior
from processors.session import SessionTable
from serving.candidates import NOTHING, Neighbours, Popularity, SessionItems
from serving.model import Model
from serving.rank import Asked, Batch, Knowledge, Ranker, walk
from store.interner import Interner
from store.vectors import pack_sessions, unpack_sessions
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
        lengths, data = pack_sessions(table, 0)
        end = 0
        for user, length in zip(table.user.tolist(), lengths.tolist(), strict=True):
            self._vectors[user] = data[end : end + length]
            end += length


class _Item:
    """What is counted for one item; the arrays belong together place by place."""

    __slots__ = ("backward", "forward", "index", "place")

    def __init__(self) -> None:
        self.place: dict[int, int] = {}
        """Neighbour → its place in the arrays."""
        self.index = array("q")
        self.forward = array("d")
        """As of the landmark, like the next."""
        self.backward = array("d")


class EventParts:
    """A folded batch cut into its events, with ids interned: what `MemoryCounts.count` adds."""

    def __init__(self, folded: Folded, interner: Interner) -> None:
        n = len(folded.events)
        self.item: list[int] = interner.index(folded.events.item).tolist()
        self.counted: list[bool] = folded.counted.tolist()
        self.first: list[bool] = folded.first.tolist()
        self.opens: list[bool] = folded.opens.tolist()
        self.seconds: list[float] = (folded.events.time / 1000.0).tolist()
        pairs, repeats = folded.pairs, folded.repeats
        order = np.argsort(pairs.row, kind="stable")
        self.source: list[int] = _interned(interner, pairs.source[order]).tolist()
        self.neighbour: list[int] = _interned(interner, pairs.neighbour[order]).tolist()
        self.back: list[bool] = pairs.back[order].tolist()
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
        self.taught = Taught()
        """The learned ranking; served where it leads."""
        self._rate = decay_rate(settings.fold.half_life_days)
        self._power, self._worth = settings.rank.count_power, settings.rank.backward
        self._most = settings.store.neighbours
        self._bound = int(settings.store.compact_factor * settings.store.neighbours)
        self._ranker = Ranker(settings.rank)
        self._landmark: float | None = None
        self._latest = 0.0
        self._items: dict[int, _Item] = {}
        self._sessions_with = np.zeros(1024)
        self._recent = np.zeros(1024)
        self._recent_at = np.zeros(1024)
        self._sessions = 0
        self._events = 0
        self._opportunities = np.zeros(CELLS)
        self._hits = np.zeros(CELLS)

    def apply(self, items: ItemDeltas, totals: TotalDeltas) -> None:
        """Add a whole batch."""
        increments = items.increments
        order = np.argsort(increments.source, kind="stable")
        source = _interned(self.interner, increments.source[order])
        neighbour: list[int] = _interned(self.interner, increments.neighbour[order]).tolist()
        factor = self._factors(increments.time[order].astype(np.float64))
        forward: list[float] = (increments.forward[order] * factor).tolist()
        backward: list[float] = (increments.backward[order] * factor).tolist()
        begin = np.flatnonzero(np.concatenate([[True], source[1:] != source[:-1]]))[: len(source)]
        bounds: list[int] = np.append(begin, len(source)).tolist()
        for one, a, b in zip(source[begin].tolist(), bounds[:-1], bounds[1:], strict=True):
            self._add(one, zip(neighbour[a:b], forward[a:b], backward[a:b], strict=True))
            self._cut(one)
        index = self.interner.index(items.item)
        self._grow(index)
        self._sessions_with[index] += items.sessions
        self._add_recent(index, items.recent, items.recent_at.astype(np.float64))
        self._sessions += totals.sessions
        self._events += totals.events
        self._latest = max(self._latest, totals.latest)
        self._opportunities += totals.opportunities
        self._hits += totals.hits

    def begin(self, parts: EventParts) -> list[float]:
        """Weights of a batch's pairs as of the landmark, to be handed to `count`."""
        self._grow(np.array(parts.item, np.int64))
        scaled: list[float] = (parts.weight * self._factors(parts.time)).tolist()
        return scaled

    def count(self, parts: EventParts, weights: list[float], row: int) -> None:
        """Add one event of a batch. `weights` come from `begin` for the same batch, which must be
        the latest one begun.
        """
        a, b = parts.pair_start[row], parts.pair_start[row + 1]
        for at in range(a, b):
            both = (0.0, weights[at]) if parts.back[at] else (weights[at], 0.0)
            self._add(parts.source[at], ((parts.neighbour[at], *both),))
        # Only then: what is kept must not depend on the order within an event.
        for source in parts.source[a:b]:
            self._cut(source)
        if parts.counted[row]:
            item, seconds = parts.item[row], parts.seconds[row]
            self._sessions_with[item] += parts.first[row]
            one = np.array([item])
            self._add_recent(one, np.ones(1), np.array([seconds]))
            self._sessions += parts.opens[row]
            self._events += 1
            self._latest = max(self._latest, seconds)
        a, b = parts.cell_start[row], parts.cell_start[row + 1]
        # Cells of one event differ: no two of its session's items have the same distance.
        self._opportunities[parts.cell[a:b]] += 1
        self._hits[parts.cell[a:b]] += parts.hit[a:b]

    def ask(self, items: SessionItems, *, weighed: bool | None = None) -> Asked:
        """The candidates after a session, with features where `weighed`: by default, where the
        learned ranking leads.
        """
        return self.ask_all([items], weighed=weighed).of(0)

    def ask_all(self, items: Sequence[SessionItems], *, weighed: bool | None = None) -> Batch:
        """The same after many sessions at once."""
        steps = self._ranker.ask(
            items,
            self.interner.index(np.concatenate([one.item for one in items])),
            self.knowledge(),
            [None] * len(items),
            weighed=self.taught.leads if weighed is None else weighed,
        )
        return walk(steps, lambda index: self.neighbours(index.tolist()), self.popularity)

    def neighbours(self, items: Iterable[int]) -> list[Neighbours]:
        """Neighbours of items given by small ints, decayed to now; NOTHING where none are known."""
        factor = math.exp(-self._rate * (self._latest - (self._landmark or 0)))
        found: list[Neighbours] = []
        for one in items:
            item = self._items.get(one)
            if item is None:
                found.append(NOTHING)
                continue
            # Copies: an array cannot grow while numpy looks at it.
            forward = np.array(item.forward) * factor
            backward = np.array(item.backward) * factor
            found.append(
                Neighbours.of(
                    np.array(item.index, np.int64),
                    forward.astype(np.float32),
                    backward.astype(np.float32),
                    (forward + self._worth * backward) ** self._power,
                )
            )
        return found

    def popularity(self, index: I64) -> Popularity:
        """How popular items, given by small ints, are now."""
        self._grow(index)
        age = np.maximum(self._latest - self._recent_at[index], 0)
        recent = self._recent[index] * np.exp(-RECENT * self._rate * age)
        return Popularity(self._sessions_with[index], recent)

    def knowledge(self) -> Knowledge:
        """Sessions in all, the repeat prior, and the learned ranking where it leads."""
        return Knowledge(
            self._sessions,
            self._events,
            repeat_prior(self._opportunities, self._hits),
            Model.of(self.taught.parameters) if self.taught.leads else None,
        )

    def weights(self, item: int) -> dict[int, tuple[float, float]]:
        """Forward and backward counts of an item's neighbours, all by their hashes, as of now."""
        (mine,) = self.neighbours(self.interner.index(np.array([item], np.uint64)).tolist())
        hashes = self.interner.ids(mine.index).tolist()
        both = zip(mine.forward.tolist(), mine.backward.tolist(), strict=True)
        return dict(zip(hashes, both, strict=True))

    def _add(self, index: int, parts: Iterable[tuple[int, float, float]]) -> None:
        item = self._items.get(index)
        if item is None:
            item = self._items[index] = _Item()
        place = item.place
        for neighbour, forward, backward in parts:
            at = place.get(neighbour)
            if at is None:
                place[neighbour] = len(place)
                item.index.append(neighbour)
                item.forward.append(forward)
                item.backward.append(backward)
            else:
                item.forward[at] += forward
                item.backward[at] += backward

    def _cut(self, index: int) -> None:
        item = self._items[index]
        if len(item.place) <= self._bound:
            return
        weight = np.array(item.forward) + self._worth * np.array(item.backward)
        best = np.sort(np.argpartition(-weight, self._most)[: self._most]).tolist()
        item.index = array("q", [item.index[at] for at in best])
        item.forward = array("d", [item.forward[at] for at in best])
        item.backward = array("d", [item.backward[at] for at in best])
        item.place = {neighbour: at for at, neighbour in enumerate(item.index)}

    def _add_recent(self, index: I64, recent: F64, at: F64) -> None:
        """Add decayed numbers of events of items, each once, at the later of both times."""
        known_at = self._recent_at[index]
        latest = np.maximum(known_at, at)
        rate = RECENT * self._rate
        self._recent[index] = self._recent[index] * np.exp(rate * (known_at - latest)) + (
            recent * np.exp(rate * (at - latest))
        )
        self._recent_at[index] = latest

    def _grow(self, index: I64) -> None:
        size = int(index.max(initial=0)) + 1
        if size > len(self._recent):
            more = np.zeros(max(size, 2 * len(self._recent)) - len(self._recent))
            self._sessions_with = np.concatenate([self._sessions_with, more])
            self._recent = np.concatenate([self._recent, more])
            self._recent_at = np.concatenate([self._recent_at, more])

    def _factors(self, time: F64) -> F64:
        """What takes weights of these times to the landmark, which moves when they grow large."""
        if not len(time):
            return time
        latest = float(time.max())
        if self._landmark is None:
            self._landmark = latest
        if self._rate * (latest - self._landmark) > _LARGEST_EXPONENT:
            self._rescale(math.exp(-self._rate * (latest - self._landmark)))
            self._landmark = latest
        factors: F64 = np.exp(self._rate * (time - self._landmark))
        return factors

    def _rescale(self, factor: float) -> None:
        for item in self._items.values():
            for at in range(len(item.index)):
                item.forward[at] *= factor
                item.backward[at] *= factor


def _interned(interner: Interner, ids: U64) -> I64:
    """Small ints of ids of which many are the same."""
    once, place = np.unique(ids, return_inverse=True)
    found: npt.NDArray[np.int64] = interner.index(once)[place]
    return found
