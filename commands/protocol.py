"""The published protocol: sessions to learn from, prefixes whose next item is asked for.

A data set is a folder with `train.jsonl.gz`, one session `{"s": [items in order]}` a line, oldest
first, and `test.jsonl.gz`, one question `{"s": [prefix], "y": next item}` a line.

The sessions carry no times. They are spread evenly over one e-fold of the decay (half life / ln 2)
that ends now, so that the oldest count 1/e of the newest; each is a session of a user of its own,
and its events share one moment. HR@20 and MRR@20 are counted as those who publish on these splits
do: items of the prefix may be recommended again, and a tie counts against the answer.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from config.errors import BadInput, SettingsError
from processors.cooccurrence import decay_rate
from processors.standing import SHOWN
from streams.columns import I64, U64, EventColumns, hash_id

__all__ = [
    "Question",
    "Score",
    "Split",
    "TrainingEvents",
    "hashed",
    "user_name",
]

Item = str | int
T = TypeVar("T")


class _Session(msgspec.Struct):
    s: list[Item]


class _Line(msgspec.Struct):
    s: list[Item]
    y: Item


@dataclass(frozen=True, slots=True)
class Question:
    """A session so far, and the item that came next."""

    session: list[str]
    """Item ids in order."""
    answer: str


class Score:
    """Hits and reciprocal ranks of the questions so far."""

    def __init__(self) -> None:
        self.queries = 0
        self._hits = 0
        self._reciprocal = 0.0

    def add(self, rank: int) -> None:
        """Count one question; `rank` is that of its answer, from 1, or 0 where it is not shown."""
        self.queries += 1
        if 0 < rank <= SHOWN:
            self._hits += 1
            self._reciprocal += 1 / rank

    @property
    def hit_rate(self) -> float:
        """HR@20 in percent."""
        return 100 * self._hits / max(self.queries, 1)

    @property
    def reciprocal_rank(self) -> float:
        """MRR@20 in percent."""
        return 100 * self._reciprocal / max(self.queries, 1)


@dataclass(frozen=True, slots=True)
class TrainingEvents:
    """Training sessions as events of the first type, with what hashes stand for."""

    columns: EventColumns
    names: dict[int, str]
    """Item ids by their hashes."""


class Split:
    """A data set of the published form. Raises SettingsError where the folder holds none, BadInput
    where a line is not of that form.
    """

    def __init__(self, folder: Path) -> None:
        for name in ("train.jsonl.gz", "test.jsonl.gz"):
            if not (folder / name).is_file():
                raise SettingsError(
                    f"{folder} has no {name}: give a folder with train.jsonl.gz and "
                    "test.jsonl.gz, or a CSV file of events"
                )
        self.sessions = [[str(i) for i in line.s] for line in _read(folder, "train", _Session)]
        self._test = folder
        if not any(self.sessions):
            raise BadInput(f"{folder / 'train.jsonl.gz'} holds no session")

    def questions(self, limit: int | None = None) -> list[Question]:
        """The first `limit` questions, all of them without."""
        found: list[Question] = []
        for line in _read(self._test, "test", _Line):
            if limit is not None and len(found) == limit:
                break
            found.append(Question([str(i) for i in line.s], str(line.y)))
        return found

    def times(self, half_life_days: float) -> I64:
        """Milliseconds since 1970 of each session; the last is now."""
        span = 1000 / decay_rate(half_life_days)
        count = len(self.sessions)
        ages = np.arange(count - 1, -1, -1) / count * span
        return (time.time() * 1000 - ages).astype(np.int64)

    def events(self, half_life_days: float) -> TrainingEvents:
        """All training sessions as columns; offsets count from 0."""
        lengths = np.array([len(session) for session in self.sessions])
        hashes: dict[str, int] = {}
        for session in self.sessions:
            for item in session:
                if item not in hashes:
                    hashes[item] = hash_id(item)
        items = np.fromiter(
            (hashes[item] for session in self.sessions for item in session), np.uint64
        )
        users = np.array([hash_id(user_name(i)) for i in range(len(lengths))], np.uint64)
        n = len(items)
        columns = EventColumns(
            np.arange(n),
            np.repeat(users, lengths),
            items,
            np.repeat(self.times(half_life_days), lengths),
            np.zeros(n, np.uint8),
            np.zeros(n, np.uint64),
            np.zeros(n, np.uint32),
        )
        return TrainingEvents(columns, {value: name for name, value in hashes.items()})

    def batches(self, events: EventColumns, size: int) -> Iterator[EventColumns]:
        """The events in batches of about `size` that cut no session in two."""
        ends = np.cumsum([len(session) for session in self.sessions])
        begin = 0
        while begin < len(events):
            last = min(int(np.searchsorted(ends, begin + size)), len(ends) - 1)
            end = int(ends[last])
            yield events.take(np.arange(begin, end))
            begin = end


def user_name(session: int) -> str:
    """The user of a training session."""
    return f"session-{session}"


def hashed(items: Sequence[str]) -> U64:
    """Ids as the counts know them."""
    return np.array([hash_id(item) for item in items], np.uint64)


def _read(folder: Path, part: str, form: type[T]) -> Iterator[T]:
    path = folder / f"{part}.jsonl.gz"
    decoder = msgspec.json.Decoder(form)
    number = 0
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                number += 1
                if line.strip():
                    yield decoder.decode(line)
    except (OSError, EOFError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}, at line {number}: {error}") from None
