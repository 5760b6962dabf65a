"""What the ranking is made of: a session, its items' neighbours, candidates and their features.

Small ints stand for items (`store.interner.Interner`), so that all of it fits arrays. Nobody
changes what stands in these; they are not frozen, since to make a frozen one takes five times as
long, and a request makes a dozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from processors.session import WINDOW
from streams.columns import F64, I64, U64

__all__ = [
    "F32",
    "NOTHING",
    "Candidates",
    "Counts",
    "Judged",
    "Lists",
    "Neighbours",
    "Popularity",
    "Query",
    "Ranked",
    "Session",
    "SessionItems",
    "Through",
    "Worth",
    "joined",
    "session_items",
]

F32 = npt.NDArray[np.float32]
T = TypeVar("T", bound=np.generic)


@dataclass(slots=True)
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


@dataclass(slots=True)
class SessionItems:
    """The latest distinct items of a session, latest first, s of them."""

    item: U64
    distance: I64
    """Steps from the session's end, from 1."""
    times: I64
    """Occurrences among the session's latest WINDOW events."""
    length: int
    """Events of the session."""


@dataclass(slots=True)
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


@dataclass(slots=True)
class Through:
    """Lists of candidates that were looked through for a session with few of them."""

    where: I64
    """(k,) places among the session's own candidates."""
    lists: Sequence[Neighbours]


@dataclass(slots=True)
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


@dataclass(slots=True)
class Query:
    """The best candidates of one session by the rule, m of them, and the features of each."""

    where: I64
    """(m,) places among the Candidates."""
    index: I64
    """(m,) small ints, in falling order of `rule`."""
    rule: F64
    """(m,) scores by the rule."""
    boost: F64
    """(m,) what each one's score is multiplied by; empty where nothing was judged."""
    base: F32
    """(m,) ln of these, from which the model starts; empty where nothing was weighed."""
    x: F32
    """(FEATURES, m) of each candidate; empty where nothing was weighed."""
    q: F32
    """(SHARED,) of the session, the same for all candidates; empty where nothing was weighed."""


@dataclass(slots=True)
class Ranked:
    """Items in falling order of score; ties go to the smaller int."""

    index: I64
    score: F64


@dataclass(slots=True)
class Lists:
    """Wanted: the neighbours of these items."""

    index: I64


@dataclass(slots=True)
class Counts:
    """Wanted: how popular these items are."""

    index: I64


@dataclass(slots=True)
class Judged:
    """Wanted: what each of these candidates of B sessions is worth to whoever asks."""

    start: I64
    """(B + 1,) where each session's begin."""
    index: I64
    """(U,) small ints."""


@dataclass(slots=True)
class Worth:
    """How candidates are judged."""

    weight: F64
    """(U,) what the score of each is multiplied by; 0 for one that must not be shown."""


@dataclass(slots=True)
class Popularity:
    """How popular m items are."""

    sessions: F64
    """(m,) sessions with each."""
    recent: F64
    """(m,) events of each, decayed `processors.popularity.RECENT` times as fast as counts."""


def joined(parts: Sequence[npt.NDArray[T]]) -> npt.NDArray[T]:
    """Arrays (n,) behind one another; one alone, as most requests have it, is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def session_items(events: U64, length: int, most: int) -> SessionItems:
    """The `most` latest distinct items of a session, of whose `length` events the latest are given
    in time order.

    What `processors.repeats.count_repeats` looks at for a batch; a dict is quicker for one session.
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
