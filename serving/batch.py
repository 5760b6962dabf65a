"""Arrays of B sessions that are ranked together: what `candidates.py` says of one, for all of them,
one session after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serving.candidates import F32, Candidates, Neighbours, Query, Session, SessionItems, Through
from streams.columns import F64, I64, Bool

__all__ = ["Queries", "Sessions", "Voted"]


@dataclass(slots=True)
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


@dataclass(slots=True)
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


@dataclass(slots=True)
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
    boost: F64
    """(M,); empty where nothing was judged."""
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
            self.boost[mine],
            self.base[mine],
            self.x[:, mine],
            self.q[:, slot],
        )
