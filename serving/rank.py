"""From a session and its items' neighbours to scores. Pure numpy; knows no Redis and no HTTP.

    score(c) = Σ_a d^(steps of a from the session's end) · idf(a)^p · w(a, c)^q,  scaled to sum 1
             + P(the next event repeats c)                          for the session's own items

over the latest distinct items a of the session, with idf(a) = 1 + ln(sessions / sessions with a),
w the decayed co-occurrence count, d, p, q settings of `rank`, and P from `processors/repeats.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.settings import RankSettings
from processors.repeats import cell_of
from processors.session import WINDOW
from streams.columns import F64, I64, U64

__all__ = ["Knowledge", "Neighbours", "Ranked", "Ranker", "SessionItems", "session_items"]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What is known of one item, as the ranking uses it."""

    index: npt.NDArray[np.int64]
    """(k,) small ints of the neighbours, each once."""
    strength: F64
    """(k,) decayed counts to the power `rank.count_power`."""
    sessions: int
    """Sessions with this item."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the stream has taught about sessions at large."""

    sessions: int
    prior: F64
    """(CELLS,) repeat prior."""


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
class Ranked:
    """Items in falling order of score."""

    index: npt.NDArray[np.int64]
    score: F64


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


class Ranker:
    """Scores one session after another over a dense array that it keeps."""

    def __init__(self, settings: RankSettings) -> None:
        self._settings = settings
        self._scores = np.zeros(1024)
        self._mark = np.zeros(1024, np.int64)
        self._places = np.arange(4096)

    def rank(
        self,
        session: SessionItems,
        own: npt.NDArray[np.int64],
        lists: Sequence[Neighbours | None],
        knowledge: Knowledge,
        n: int,
        excluded: npt.NDArray[np.int64] | None = None,
    ) -> Ranked:
        """The n best next items. `own` and `lists` belong to `session.item` one by one: the item's
        small int, and its neighbours or None where nothing is known of it.

        Ties go to the smaller int. Items in `excluded` are left out.
        """
        scored = [own]
        strengths: list[F64] = []
        decay, power = self._settings.distance_decay, self._settings.idf_power
        for distance, known in zip(session.distance.tolist(), lists, strict=True):
            if known is not None and known.sessions:
                rarity = 1 + math.log(max(knowledge.sessions, known.sessions) / known.sessions)
                scored.append(known.index)
                strengths.append(known.strength * (decay ** (distance - 1) * rarity**power))
        index = np.concatenate(scored)
        self._grow(int(index.max(initial=0)), len(index))
        scores, mark = self._scores, self._mark
        # bincount would run over every known item; adding list by list touches only these.
        for some, strength in zip(scored[1:], strengths, strict=True):
            scores[some] += strength
        place = self._places[: len(index)]
        mark[index] = place
        once = index[mark[index] == place]
        value = scores[once]
        scores[once] = 0
        total = value.sum()
        if total > 0:
            value /= total
        mark[once] = place[: len(once)]
        value[mark[own]] += knowledge.prior[
            cell_of(session.distance, session.times, np.int64(session.length))
        ]
        if excluded is not None and len(excluded):
            keep = ~np.isin(once, excluded)
            once, value = once[keep], value[keep]
        return _best(once, value, n)

    def _grow(self, largest: int, longest: int) -> None:
        if longest > len(self._places):
            self._places = np.arange(2 * longest)
        if largest >= len(self._scores):
            size = max(2 * len(self._scores), largest + 1)
            self._scores = np.zeros(size)
            self._mark = np.zeros(size, np.int64)


def _best(index: npt.NDArray[np.int64], value: F64, n: int) -> Ranked:
    if len(index) > n:
        bound = np.partition(value, len(value) - n)[len(value) - n]
        top = (value >= bound).nonzero()[0]
        index, value = index[top], value[top]
    order = np.lexsort((index, -value))[:n]
    return Ranked(index[order], value[order])
