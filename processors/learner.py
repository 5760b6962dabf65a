"""Live evaluation and learning: a sample of each batch is predicted, then learned from.

    1  take the learned ranking as Redis has it
    2  draw events of the batch that have a prefix; none of the batch is in the counts yet
    3  read what answers to them would be made of, all at once
    4  predict and learn, STEP events at a time
    5  hand over the lesson, which is committed with the batch's totals: both or neither

Two lanes, or two workers, may teach at the same time: a lesson that another one overtook is
dropped, and what was in it is never learned, which a sample can bear. A lane that finds its own
worker teaching leaves its batch out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from config.settings import LearnSettings, Settings
from processors.fold import Folded
from processors.learning import STEP, Prediction, Taught, learn, teach
from processors.metrics import count_lesson
from processors.session import Prefixes
from serving.candidates import Query, SessionItems, session_items
from serving.recommend import TOGETHER, Recommender
from store.commit import Lesson
from store.interner import Interner
from store.reader import StoreReader
from store.taught import continue_from, unpack_taught
from streams.columns import I64

__all__ = ["Allowance", "Learner", "Teacher", "sample", "sampled", "session_before", "share_of"]

_BURST_SECONDS = 1.0
_SAVED_UP = 32
"""Events that a worker waits to be allowed: a lesson costs some milliseconds whatever is in it."""


def share_of(settings: LearnSettings, events: int) -> float:
    """Share of a batch to learn from, when so many events were counted before it."""
    if not settings.share:
        return 0.0
    return min(1.0, max(settings.share, settings.first_events / max(events, 1)))


def sample(n: int, share: float, most: int, random: np.random.Generator) -> I64:
    """Which of n events to learn from: n·share on average, at least STEP at a time where there are
    as many (each lesson has its price), and `most` at most. Rising.
    """
    wanted = n * share
    least = min(n, STEP)
    if wanted < least:
        wanted = least if random.random() < wanted / max(least, 1) else 0
    whole = int(wanted)
    count = min(whole + (random.random() < wanted - whole), most)
    return np.sort(random.choice(n, count, replace=False)).astype(np.int64)


def session_before(prefixes: Prefixes, row: int, most: int) -> SessionItems:
    """What stood before the event of one prefix; `most` distinct items are looked at."""
    items = prefixes.items[row]
    return session_items(items[items != 0][::-1], int(prefixes.length[row]), most)


def sampled(
    folded: Folded, rows: I64, most: int, interner: Interner
) -> Iterator[tuple[list[SessionItems], list[int]]]:
    """What stood before some of a batch's events that have a prefix, and the items (small ints)
    that came: as many at a time as are ranked together.

    `most` distinct items of a session are looked at.
    """
    prefixes = folded.prefixes
    for begin in range(0, len(rows), TOGETHER):
        some = rows[begin : begin + TOGETHER]
        sessions = [session_before(prefixes, row, most) for row in some.tolist()]
        yield sessions, interner.index(folded.events.item[prefixes.row[some]]).tolist()


class Teacher:
    """Predicts events one after the other, and learns from them STEP at a time."""

    def __init__(self, taught: Taught) -> None:
        self.taught = taught
        self.learned = 0
        """Events learned from."""
        self._waiting: list[tuple[Query, int]] = []

    def predict(self, query: Query, item: int) -> Prediction:
        """Predict an event whose item (a small int) came next, and keep it to learn from."""
        prediction, teaches = teach(self.taught, query, item)
        if teaches:
            place = int(np.flatnonzero(query.index == item)[0])
            self._waiting.append((query, place))
            if len(self._waiting) == STEP:
                self.finish()
        return prediction

    def finish(self) -> None:
        """Learn from what was kept."""
        if self._waiting:
            learn(self.taught, self._waiting)
            self.learned += len(self._waiting)
            self._waiting.clear()


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a lesson came to, to be counted once it is committed."""

    lesson: Lesson
    predictions: list[Prediction]
    learned: int
    leads: bool


class Allowance:
    """How many events may be learned from: as many a second as `per_second` says, on average, and
    all where that is None.

    They are saved up until a lesson is worth its price.
    """

    def __init__(
        self, per_second: Callable[[], float] | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._clock = clock
        self._last = clock() - _BURST_SECONDS
        self._saved = 0.0

    def now(self, n: int) -> int:
        """Of n events, so many at most."""
        if self._per_second is None:
            return n
        now, per_second = self._clock(), self._per_second()
        most = per_second * _BURST_SECONDS
        self._saved = min(most, self._saved + (now - self._last) * per_second)
        self._last = now
        return min(n, int(self._saved)) if self._saved >= min(_SAVED_UP, most) else 0

    def spend(self, events: int) -> None:
        """So many are learned from."""
        self._saved -= events


class Learner:
    """Draws lessons from batches, of so many events a second as `per_second` says at most, where
    it is given.
    """

    def __init__(
        self,
        recommender: Recommender,
        reader: StoreReader,
        settings: Settings,
        per_second: Callable[[], float] | None,
    ) -> None:
        self._recommender = recommender
        self._reader = reader
        self._settings, self._tenant = settings.learn, settings.tenant
        self._session_items = settings.rank.session_items
        self._allowance = Allowance(per_second)
        self._taken: _Taken | None = None
        self._busy = False

    async def lesson(self, folded: Folded) -> Lesson | None:
        """The lesson of a batch that is not in the counts yet; None where it gives none.

        Whoever gets one calls `done` with it. Raises redis.RedisError.
        """
        n = len(folded.prefixes.row)
        if self._busy or not n or not self._settings.share:
            return None
        self._busy = True
        try:
            lesson = await self._draw(folded, n)
        except BaseException:
            self._busy = False
            raise
        self._busy = lesson is not None
        return lesson

    def done(self, committed: bool) -> None:
        """The batch of the last lesson was committed, or was not."""
        taken, self._taken, self._busy = self._taken, None, False
        if committed and taken is not None:
            learned = taken.learned if taken.lesson.taken else None
            count_lesson(self._tenant, taken.predictions, learned, taken.leads)

    async def _draw(self, folded: Folded, n: int) -> Lesson | None:
        knowledge = await self._reader.knowledge()
        share = share_of(self._settings, knowledge.events)
        # The same batch, folded again after a crash, gives the same sample.
        random = np.random.default_rng(int(folded.events.offset[0]))
        rows = sample(n, share, self._allowance.now(n), random)
        if not len(rows):
            return None
        self._allowance.spend(len(rows))
        value = await self._reader.taught()
        teacher = Teacher(unpack_taught(value))
        predictions: list[Prediction] = []
        for sessions, items in sampled(folded, rows, self._session_items, self._reader.interner):
            batch = await self._recommender.ask_all(sessions, [None] * len(sessions), weighed=True)
            predictions += [
                teacher.predict(batch.query(slot), item) for slot, item in enumerate(items)
            ]
        teacher.finish()
        lesson = continue_from(value, teacher.taught)
        self._taken = _Taken(lesson, predictions, teacher.learned, teacher.taught.leads)
        return lesson
