"""Progressive validation: each event of a file is predicted from what came before, then learned.

Events are taken in the order of their times, those of one moment in the order of the file. A chunk
is folded at once, which depends on its users' histories alone; then its events are walked one by
one: those with a prefix are predicted from the counts as they are, and each event's own increments
are added right after. So a prediction has seen every event before its own, and none other. A sample
of the events teaches the learned ranking on the way, drawn as a worker draws it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from commands.csv_events import EventFile, problem_of
from commands.curve import Curve
from config.errors import BadInput
from config.settings import Settings
from processors.fold import FoldRules, fold_batch
from processors.learner import Teacher, session_before, share_of
from processors.memory import EventParts, MemoryCounts, MemorySessions
from processors.standing import rank_of
from serving.model import Model
from serving.rank import Asked
from streams.columns import EventColumns, hash_id, session_tag
from streams.event import Rejection, time_of

__all__ = ["Progressive", "read_columns"]

_TAUGHT = 3, 10
"""Share of the rows that only teach."""
_CHUNK = 5000
_PARTS = 20
"""Of the curve over the stream."""


def read_columns(file: EventFile) -> tuple[EventColumns, list[str]]:
    """All events of a file in the order of their times, and what is wrong with its other rows.

    Raises as EventFile does, and BadInput where the file holds no event.
    """
    kinds = {name: at for at, name in enumerate(file.settings.weights)}
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    tags: dict[str | None, int] = {None: 0}
    rows: list[tuple[int, int, int, int, int]] = []
    problems: list[str] = []
    for row in file.rows():
        event = row.event
        if isinstance(event, Rejection):
            problems.append(problem_of(row.line, event))
            continue
        user, item, session = event.user_id, event.item_id, event.session_id
        if user not in users:
            users[user] = hash_id(user)
        if item not in items:
            items[item] = hash_id(item)
        if session not in tags:
            tags[session] = session_tag(session or "")
        rows.append((users[user], items[item], time_of(event), kinds[event.type], tags[session]))
    if not rows:
        raise BadInput(f"{file.path} holds no event" + (f"; {problems[0]}" if problems else ""))
    user_ids, item_ids, times, types, sessions = zip(*rows, strict=True)
    time = np.array(times, np.int64)
    columns = EventColumns(
        np.zeros(len(rows), np.int64),
        np.array(user_ids, np.uint64),
        np.array(item_ids, np.uint64),
        time,
        np.array(types, np.uint8),
        np.zeros(len(rows), np.uint64),
        np.array(sessions, np.uint32),
    ).take(np.argsort(time, kind="stable"))
    return columns, problems


class Progressive:
    """One run over a file's events."""

    def __init__(self, settings: Settings, events: EventColumns, limit: int | None = None) -> None:
        """`limit` ends the run after so many predictions."""
        self.curve = Curve(len(events), _PARTS)
        self._settings = settings
        self._events = events
        self._limit = limit
        self._first = -(-len(events) * _TAUGHT[0] // _TAUGHT[1])
        self._rules = FoldRules(settings)
        self._counts = MemoryCounts(settings)
        self._teacher = Teacher(self._counts.taught)
        self._random = np.random.default_rng(0)
        self._sessions = MemorySessions()
        self._popular = np.zeros(1024, np.int64)

    def chunks(self) -> int:
        """How many times `step` can be called."""
        return -(-len(self._events) // _CHUNK)

    def step(self, chunk: int, clock: Callable[[], float]) -> tuple[float, bool]:
        """Predict and learn one chunk after the other, from 0. Returns the seconds by `clock` that
        the predictions took, and whether the limit is reached.
        """
        begin = chunk * _CHUNK
        events = self._events.take(np.arange(begin, min(begin + _CHUNK, len(self._events))))
        before = self._sessions.read(np.unique(events.user))
        folded = fold_batch(before, events, self._rules)
        self._sessions.write(folded.sessions)
        counts, prefixes = self._counts, folded.prefixes
        parts = EventParts(folded, counts.interner)
        weights = counts.begin(parts)
        stands = dict(zip(prefixes.row.tolist(), range(len(prefixes.row)), strict=True))
        seconds = 0.0
        for row in range(len(events)):
            if (place := stands.get(row)) is not None:
                measured = begin + row >= self._first
                share = share_of(self._settings.learn, begin + row)
                sampled = self._random.random() < share
                if measured or sampled:
                    start = clock()
                    session = session_before(prefixes, place, self._rules.session_items)
                    asked = counts.ask(session, weighed=True)
                    if measured:
                        self._measure(begin + row, asked, parts.item[row])
                        seconds += clock() - start
                    if sampled:
                        self._teacher.predict(asked.query, parts.item[row])
                if self.curve.whole["served"].queries == self._limit:
                    return seconds, True
            counts.count(parts, weights, row)
            self._count_popular(parts.item[row])
        return seconds, False

    def _measure(self, event: int, asked: Asked, item: int) -> None:
        query, session = asked.query, asked.session
        answer = query.index == item
        rule = rank_of(answer, query.rule)
        learned = rank_of(answer, Model.of(self._counts.taught.parameters).chances(query))
        last = session.lists[0]
        self.curve.add(
            event,
            {
                "served": learned if self._counts.taught.leads else rule,
                "learned": learned,
                "rule": rule,
                "last_item": rank_of(last.index == item, last.forward.astype(np.float64)),
                "popularity": self._popularity_rank(item),
            },
        )

    def _popularity_rank(self, item: int) -> int:
        mine = self._popular[item] if item < len(self._popular) else 0
        return int((self._popular >= mine).sum()) if mine else 0

    def _count_popular(self, item: int) -> None:
        if item >= len(self._popular):
            more = np.zeros(max(item + 1, 2 * len(self._popular)) - len(self._popular), np.int64)
            self._popular = np.concatenate([self._popular, more])
        self._popular[item] += 1
