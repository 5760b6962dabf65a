"""What the ranking is made of: a session, its items' neighbours, candidates and their features.

Small ints stand for items (`store.interner.Interner`), so that all of it fits arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from processors.session import WINDOW
from streams.columns import F64, I64, U64, Bool

__all__ = [
    "F32",
    "NOTHING",
    "Candidates",
    "Counts",
    "Lists",
    "Neighbours",
    "Popularity",
    "Queries",
    "Query",
    "Ranked",
    "Session",
    "SessionItems",
    "Sessions",
    "Through",
    "Voted",
    "session_items",
]

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What is known of one item's neighbours, as the ranking uses it."""

    index: I64
    """(k,) small ints of the neighbours, each once."""
    strength: F64
    """(k,) (forward + β·backward) to the power `rank.count_power`."""
    counts: F32
    """(3, k) decayed counts of coming after the item, of coming before it, and the strength: one
    array, because the features want all three of many items at once."""
    after: float
    """Sum of the counts of coming after the item."""
    before: float
    """Sum of the counts of coming before it."""

    @classmethod
    def of(cls, index: I64, forward: F32, backward: F32, strength: F64) -> Neighbours:
        """From k counts each."""
        counts = np.stack([forward, backward, strength.astype(np.float32)])
        return cls(index, strength, counts, float(forward.sum()), float(backward.sum()))

    @property
    def forward(self) -> F32:
        """(k,) decayed counts of coming after the item."""
        row: F32 = self.counts[0]
        return row

    @property
    def backward(self) -> F32:
        """(k,) decayed counts of coming before it."""
        row: F32 = self.counts[1]
        return row


NOTHING = Neighbours.of(
    np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0)
)
"""Of an item that nobody has seen beside another."""


@dataclass(frozen=True, slots=True)
class SessionItems:
    """The latest distinct items of a session, latest first, s of them."""

    item: U64
    distance: I64
    """Steps from the session's end, from 1."""
    times: I64
    """Occurrences among the session's latest WINDOW events."""
    length: int
    """Events of the session."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session and what is known of its items, one by one."""

    items: SessionItems
    own: I64
    """(s,) their small ints."""
    lists: Sequence[Neighbours]
    sessions: F64
    """(s,) sessions with each."""
    rarity: F64
    """(s,) idf of each, 0 of one that is in no session yet."""
    weight: F64
    """(s,) d^(steps) · idf^p: what a vote of each is worth."""
    prior: F64
    """(s,) P of being repeated next."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """B sessions that are ranked together; their S items stand one session after the other, and so
    do the E entries of their lists."""

    items: Sequence[SessionItems]
    start: I64
    """(B + 1,) where each session's items begin."""
    length: I64
    """(B,) events of each."""
    own: I64
    """(S,) small ints."""
    distance: I64
    """(S,) steps from the session's end."""
    lists: Sequence[Neighbours]
    """S of them."""
    entries: I64
    """(S + 1,) where each list's entries begin."""
    sessions: F64
    """(S,), as the next three: see `Session`."""
    rarity: F64
    weight: F64
    prior: F64

    def of(self, slot: int) -> Session:
        """One of them."""
        mine = slice(int(self.start[slot]), int(self.start[slot + 1]))
        return Session(
            self.items[slot],
            self.own[mine],
            self.lists[mine],
            self.sessions[mine],
            self.rarity[mine],
            self.weight[mine],
            self.prior[mine],
        )


@dataclass(frozen=True, slots=True)
class Through:
    """Lists of candidates that were looked through for a session with few of them."""

    where: I64
    """(k,) places among the session's own candidates."""
    lists: Sequence[Neighbours]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Items to choose from after one session, u of them, each once: the s items of the session,
    then their neighbours, then those that only two steps lead to.
    """

    index: I64
    score: F64
    """By the rule, without the repeat prior."""
    total: float
    """What the votes summed to before they were scaled."""
    place: I64
    """(entries,) where the entries of the session's lists, in order, stand."""
    indirect: int
    """How many only two steps lead to."""
    two_steps: F64 | None
    """(u,) shares of the two-step votes; None where nobody looked."""
    through: Through | None


@dataclass(frozen=True, slots=True)
class Voted:
    """Candidates of B sessions, U in all, one session after the other: see `Candidates`."""

    start: I64
    """(B + 1,) where each session's candidates begin."""
    index: I64
    """(U,)."""
    score: F64
    """(U,)."""
    total: F64
    """(B,)."""
    place: I64
    """(E,) which of its session's candidates each entry of the sessions' lists is."""
    indirect: I64
    """(B,)."""
    two_steps: F64
    """(U,) zeros where nobody looked."""
    looked: Bool
    """(B,) where somebody did."""
    first: I64
    """(B + 1,) where the candidates that were looked through begin."""
    where: I64
    """(k,) places of those among the U."""
    lists: Sequence[Neighbours]
    """k of them."""

    def of(self, slot: int, sessions: Sessions) -> Candidates:
        """One session's."""
        a, b = int(self.start[slot]), int(self.start[slot + 1])
        entries = sessions.entries[sessions.start[slot : slot + 2]]
        mine = slice(int(self.first[slot]), int(self.first[slot + 1]))
        return Candidates(
            self.index[a:b],
            self.score[a:b],
            float(self.total[slot]),
            self.place[entries[0] : entries[1]],
            int(self.indirect[slot]),
            self.two_steps[a:b] if self.looked[slot] else None,
            Through(self.where[mine] - a, self.lists[mine]) if self.looked[slot] else None,
        )


@dataclass(frozen=True, slots=True)
class Query:
    """The best candidates of one session by the rule, m of them, and the features of each."""

    where: I64
    """(m,) places among the Candidates."""
    index: I64
    """(m,) small ints, in falling order of `rule`."""
    rule: F64
    """(m,) scores by the rule."""
    base: F32
    """(m,) ln of these, from which the model starts; empty where nothing was weighed."""
    x: F32
    """(FEATURES, m) of each candidate; empty where nothing was weighed."""
    q: F32
    """(SHARED,) of the session, the same for all candidates; empty where nothing was weighed."""


@dataclass(frozen=True, slots=True)
class Queries:
    """Those of B sessions, M in all, one session after the other."""

    start: I64
    """(B + 1,) where each session's begin."""
    where: I64
    """(M,) places among the Voted."""
    index: I64
    """(M,)."""
    rule: F64
    """(M,)."""
    base: F32
    """(M,); empty where nothing was weighed."""
    x: F32
    """(FEATURES, M); empty where nothing was weighed."""
    q: F32
    """(SHARED, B); empty where nothing was weighed."""

    def of(self, slot: int, begin: int) -> Query:
        """One session's, whose candidates begin at `begin`."""
        mine = slice(int(self.start[slot]), int(self.start[slot + 1]))
        return Query(
            self.where[mine] - begin,
            self.index[mine],
            self.rule[mine],
            self.base[mine],
            self.x[:, mine],
            self.q[:, slot],
        )


@dataclass(frozen=True, slots=True)
class Ranked:
    """Items in falling order of score; ties go to the smaller int."""

    index: I64
    score: F64


@dataclass(frozen=True, slots=True)
class Lists:
    """Wanted: the neighbours of these items."""

    index: I64


@dataclass(frozen=True, slots=True)
class Counts:
    """Wanted: how popular these items are."""

    index: I64


@dataclass(frozen=True, slots=True)
class Popularity:
    """How popular m items are."""

    sessions: F64
    """(m,) sessions with each."""
    recent: F64
    """(m,) events of each, decayed `processors.popularity.RECENT` times as fast as counts."""


def session_items(events: U64, length: int, most: int) -> SessionItems:
    """The `most` latest distinct items of a session, of whose `length` events the latest are given
    in time order.

    What `processors.repeats.latest_items` does for a batch; a dict is quicker for one session.
    """
    times: dict[int, int] = {}
    distance: list[int] = []
    for step, item in enumerate(events[: -WINDOW - 1 : -1].tolist(), 1):
        if item in times:
            times[item] += 1
        else:
            times[item] = 1
            distance.append(step)
    return SessionItems(
        np.array(list(times)[:most], np.uint64),
        np.array(distance[:most], np.int64),
        np.array(list(times.values())[:most], np.int64),
        length,
    )
