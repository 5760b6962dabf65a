"""Progressive validation: each event of a file is predicted from what came before, then learned.

Events are taken in the order of their times, those of one moment in the order of the file. A chunk
is folded at once, which depends on its users' histories alone; then its events are walked one by
one: those with a prefix are predicted from the counts as they are, and each event's own increments
are added right after. So a prediction has seen every event before its own, and none other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from commands.csv_events import EventFile, problem_of
from commands.protocol import SHOWN, Score, rank_of
from config.errors import BadInput
from config.settings import Settings
from processors.fold import Folded, FoldRules, fold_batch
from processors.memory import EventParts, MemoryCounts, MemorySessions
from processors.repeats import latest_items
from serving.rank import Ranker, SessionItems
from streams.columns import EventColumns, hash_id, session_tag
from streams.event import Rejection, time_of

__all__ = ["Progressive", "read_columns"]

_TAUGHT = 0.3
"""Share of the rows that only teach."""
_CHUNK = 5000
_DEPTH = 2 * SHOWN


@dataclass(frozen=True, slots=True)
class _Question:
    session: SessionItems
    own: list[int]


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
        self.score = Score()
        self._events = events
        self._limit = limit
        self._taught = int(_TAUGHT * len(events))
        self._rules = FoldRules(settings)
        self._counts = MemoryCounts(settings)
        self._sessions = MemorySessions()
        self._ranker = Ranker(settings.rank)

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
        counts = self._counts
        parts = EventParts(folded, counts.interner)
        weights = counts.begin(parts)
        asked = self._questions(folded, max(0, self._taught - begin))
        seconds = 0.0
        for row in range(len(events)):
            if (question := asked.get(row)) is not None:
                start = clock()
                self.score.add(self._rank(question, parts.item[row]))
                seconds += clock() - start
                if self.score.queries == self._limit:
                    return seconds, True
            counts.learn(parts, weights, row)
        return seconds, False

    def _questions(self, folded: Folded, first: int) -> dict[int, _Question]:
        """What stood before each event from row `first` on that is not its session's first."""
        prefixes = folded.prefixes
        latest, times = latest_items(prefixes.items, self._rules.session_items)
        where, step = np.nonzero(latest)
        bounds = np.searchsorted(where, np.arange(len(prefixes.row) + 1)).tolist()
        item = prefixes.items[where, step]
        once, place = np.unique(item, return_inverse=True)
        own: list[int] = self._counts.interner.index(once)[place].tolist()
        distance, seen = step.astype(np.int64) + 1, times[where, step]
        rows, lengths = prefixes.row.tolist(), prefixes.length.tolist()
        return {
            row: _Question(
                SessionItems(item[a:b], distance[a:b], seen[a:b], length),
                own[a:b],
            )
            for row, length, a, b in zip(rows, lengths, bounds[:-1], bounds[1:], strict=True)
            if row >= first
        }

    def _rank(self, question: _Question, answer: int) -> int:
        own = np.array(question.own, np.int64)
        lists = self._counts.neighbours(question.own)
        ranked = self._ranker.rank(question.session, own, lists, self._counts.knowledge(), _DEPTH)
        return rank_of(ranked.index == answer, ranked.score)
