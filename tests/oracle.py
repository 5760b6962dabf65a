"""What the folds and the ranking promise, written the slow and obvious way with dicts and lists.

Nothing here calls the code under test: of the project only constants, hash functions and the
settings are used. `Oracle` takes events in log order, one at a time; `rank` is the score by hand.
`random_log` draws the logs that tests run on, `columns_of` and `record_of` turn them into what the
code takes.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import orjson

from config.settings import Settings
from streams.columns import (
    TAG_BITS,
    EventColumns,
    Tombstones,
    event_key,
    hash_id,
    session_tag,
)
from streams.records import Record

__all__ = [
    "BASE",
    "Click",
    "Forget",
    "Oracle",
    "Part",
    "cell_of",
    "clicks_of",
    "columns_of",
    "latest_distinct",
    "random_log",
    "rank",
    "record_of",
    "tombstones_of",
    "with_tombstones",
]

WINDOW = 30
BASE = 1_700_000_000_000
"""Milliseconds around which random logs lie."""
_MINUTE = 60_000
_BUCKETS = (300, 3600, 86_400)


@dataclass(frozen=True)
class Click:
    """One event of the log."""

    offset: int
    user: str
    item: str
    kind: str
    time: int
    event_id: str = ""
    session_id: str = ""


@dataclass(frozen=True)
class Forget:
    """A tombstone of the log."""

    offset: int
    user: str


@dataclass(frozen=True)
class Part:
    """What one event added to a pair."""

    weight: float
    back: bool
    """Whether the neighbour came first."""
    time: float
    """Seconds since 1970."""


@dataclass
class _Kept:
    time: int
    item: str
    event_id: str
    session: int
    kind: str

    def row(self) -> tuple[int, int, int, int, str]:
        key = event_key(self.event_id) if self.event_id else 0
        return self.time, hash_id(self.item), key, self.session, self.kind


@dataclass
class Oracle:
    """State after the events that were added."""

    settings: Settings
    histories: dict[str, list[_Kept]] = field(default_factory=lambda: defaultdict(list))
    parts: dict[tuple[str, str], list[Part]] = field(default_factory=lambda: defaultdict(list))
    """(item, neighbour) to what was added."""
    bought: dict[tuple[str, str], list[Part]] = field(default_factory=lambda: defaultdict(list))
    """The same of purchases alone."""
    sessions_with: Counter[str] = field(default_factory=Counter)
    events_of: Counter[str] = field(default_factory=Counter)
    times_of: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Times in ms of an item's events."""
    sessions: int = 0
    events: int = 0
    latest: int = 0
    opportunities: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    """By distance, times seen (at most 3), ⌈log2 length⌉ (at most 5)."""
    hits: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    trend: Counter[tuple[int, int, str]] = field(default_factory=Counter)
    """By granularity, bucket and item."""

    def learn(self, log: Iterable[Click | Forget]) -> Oracle:
        """Add events in log order, and forget users."""
        for one in log:
            if isinstance(one, Forget):
                self.histories.pop(one.user, None)
            else:
                self._add(one)
        return self

    def all_counts(self, at: float) -> dict[tuple[str, int, int, str], float]:
        """Every pair's decayed counts at a time in seconds, by list, hashes and direction."""
        return {
            (kind, hash_id(a), hash_id(b), direction): count
            for kind, lists in (("viewed", self.parts), ("bought", self.bought))
            for (a, b), parts in list(lists.items())
            for direction, count in zip(
                ("forward", "backward"), self.counts(parts, at), strict=True
            )
        }

    def counts(self, parts: Sequence[Part], at: float) -> tuple[float, float]:
        """A pair's decayed (forward, backward) counts at a time in seconds."""
        days = self.settings.fold.half_life_days
        sums = [0.0, 0.0]
        for part in parts:
            sums[part.back] += part.weight * math.exp2((part.time - at) / (86_400 * days))
        return sums[0], sums[1]

    def weight(self, item: str, neighbour: str, at: float) -> float:
        """The pair's decayed weight, as the ranking takes it, at a time in seconds."""
        forward, backward = self.counts(self.parts[item, neighbour], at)
        return forward + self.settings.rank.backward * backward

    def recent(self, item: str, at: float) -> float:
        """An item's events, decayed 20 times as fast as counts, at a time in seconds."""
        days = self.settings.fold.half_life_days / 20
        return sum(math.exp2((time / 1000 - at) / (86_400 * days)) for time in self.times_of[item])

    def rows(self, user: str) -> list[tuple[int, int, int, int, str]]:
        """A user's history as (time, item hash, event key, session tag, type)."""
        return [kept.row() for kept in self.histories[user]]

    def prior(self, cell: tuple[int, int, int]) -> float:
        """P that an item in this cell is repeated next."""
        return (self.hits[cell] + 0.02) / (self.opportunities[cell] + 1)

    def _add(self, click: Click) -> None:
        history = self.histories[click.user]
        if click.event_id and any(kept.event_id == click.event_id for kept in history):
            return
        weight = self.settings.events.weights[click.kind]
        before = [kept for kept in history if kept.time <= click.time]
        after = [kept for kept in history if kept.time > click.time]
        new = _Kept(
            click.time,
            click.item,
            click.event_id,
            self._session(click, before, after),
            click.kind,
        )
        earlier = [kept for kept in before if kept.session == new.session]
        later = [kept for kept in after if kept.session == new.session]
        session = [*earlier, new, *later]
        mine = len(earlier)
        for place in range(max(0, mine - WINDOW), min(len(session), mine + WINDOW + 1)):
            if place != mine:
                self._pair(session, min(place, mine), max(place, mine))
        if earlier and not later and weight > 0:
            self._predicted([kept.item for kept in earlier], new.item)
        near = session[max(0, mine - WINDOW) : mine] + session[mine + 1 : mine + 1 + WINDOW]
        weights = self.settings.events.weights
        if weight > 0 and not any(k.item == new.item and weights[k.kind] > 0 for k in near):
            self.sessions_with[new.item] += 1
        self.sessions += not earlier and not later
        self.events += 1
        self.events_of[new.item] += 1
        self.times_of[new.item].append(new.time)
        self.latest = max(self.latest, new.time // 1000)
        if weight > 0:
            for granularity, seconds in enumerate(_BUCKETS):
                self.trend[granularity, new.time // (1000 * seconds), new.item] += weight  # type: ignore[assignment]
        self.histories[click.user] = [*before, new, *after][-self.settings.store.history :]

    def _session(self, click: Click, before: list[_Kept], after: list[_Kept]) -> int:
        pause = self.settings.events.session_pause_minutes * _MINUTE
        if click.session_id:
            return session_tag(click.session_id)
        if before and click.time - before[-1].time < pause:
            return before[-1].session
        if after and after[0].time - click.time < pause:
            return after[0].session
        return ((click.time * 0x9E3779B97F4A7C15) % 2**64 >> (64 - TAG_BITS)) or 1

    def _pair(self, session: list[_Kept], first: int, second: int) -> None:
        fold = self.settings.fold
        weights = self.settings.events.weights
        a, b = session[first], session[second]
        if weights[a.kind] == 0 or weights[b.kind] == 0:
            return
        h = 1 / (1 + fold.gap_slope * (second - first - 1)) * (second + 1) ** -fold.length_exponent
        purchases = self.settings.events.purchases
        together = a.kind in purchases and b.kind in purchases
        for lists in (self.parts, self.bought) if together else (self.parts,):
            lists[a.item, b.item].append(Part(h * weights[b.kind], False, b.time / 1000))
            lists[b.item, a.item].append(Part(h * weights[a.kind], True, b.time / 1000))

    def _predicted(self, earlier: list[str], outcome: str) -> None:
        for item, distance, times in latest_distinct(earlier, self.settings.rank.session_items):
            cell = cell_of(distance, times, len(earlier))
            self.opportunities[cell] += 1
            self.hits[cell] += item == outcome


def latest_distinct(events: Sequence[str], most: int) -> list[tuple[str, int, int]]:
    """(item, steps from the end, times seen) of the latest distinct items, latest first."""
    window = list(reversed(events[-WINDOW:]))
    found: list[tuple[str, int, int]] = []
    for step, item in enumerate(window, 1):
        if item not in window[: step - 1] and len(found) < most:
            found.append((item, step, window.count(item)))
    return found


def cell_of(distance: int, times: int, length: int) -> tuple[int, int, int]:
    """The cell of the repeat prior."""
    doublings = 0
    while 2**doublings < length:
        doublings += 1
    return distance, min(times, 3), min(doublings, 5)


def rank(
    settings: Settings,
    session: Sequence[str],
    weights: Mapping[str, Mapping[str, float]],
    sessions_with: Mapping[str, int],
    sessions: int,
    prior: Mapping[tuple[int, int, int], float],
) -> dict[str, float]:
    """The score of every candidate after a session, by the formula of `serving/rank.py`."""
    rules = settings.rank
    own = latest_distinct(session, rules.session_items)
    scores: dict[str, float] = {item: 0.0 for item, _, _ in own}
    for item, distance, _ in own:
        count = sessions_with.get(item, 0)
        if not count:
            continue
        idf = 1 + math.log(max(sessions, count) / count)
        for neighbour, weight in weights.get(item, {}).items():
            part = rules.distance_decay ** (distance - 1) * idf**rules.idf_power
            scores[neighbour] = scores.get(neighbour, 0.0) + part * weight**rules.count_power
    total = math.fsum(scores.values())
    if total > 0:
        scores = {item: score / total for item, score in scores.items()}
    for item, distance, times in own:
        scores[item] += prior[cell_of(distance, times, len(session))]
    return scores


def random_log(random: Random, settings: Settings, events: int, users: int = 3) -> list[Click]:
    """A log with everything that happens: order kept and broken, ties, pauses, duplicates."""
    kinds = list(settings.events.weights)
    items = [f"item {n}" for n in range(random.choice([2, 5, 8]))]
    named = random.choice([0.0, 0.3, 1.0])
    tidy = random.choice([0.5, 0.9, 0.9, 1.0])
    steps = [0, 1, 700, 20_000, 29 * _MINUTE, 30 * _MINUTE - 1, 30 * _MINUTE, 31 * _MINUTE]
    log: list[Click] = []
    clock: dict[str, int] = defaultdict(lambda: BASE)
    for offset in range(events):
        user = f"user {min(random.randrange(users), random.randrange(users))}"
        step = random.choice(steps[: random.choice([3, len(steps)])])
        if random.random() < tidy:
            clock[user] += step
            time = clock[user]
        else:
            time = clock[user] - random.choice([1, *steps]) * random.choice([1, 1, 5])
        log.append(
            Click(
                offset,
                user,
                random.choice(items),
                random.choice(kinds) if random.random() < 0.4 else kinds[0],
                time,
                f"event {random.randrange(2 * events)}" if random.random() < 0.5 else "",
                f"session {random.randrange(3)}" if random.random() < named else "",
            )
        )
        if random.random() > tidy:
            old = random.choice(log)
            log[-1] = Click(offset, old.user, old.item, old.kind, old.time, old.event_id)
    return log


def with_tombstones(random: Random, log: Sequence[Click]) -> list[Click | Forget]:
    """The log with users forgotten in between, some of them unknown; offsets are given anew."""
    users = [*sorted({click.user for click in log}), "nobody"]
    share = random.choice([0.02, 0.1, 0.4])
    mixed: list[Click | Forget] = []
    for place in range(len(log) + 1):
        while random.random() < share:
            mixed.append(Forget(len(mixed), random.choice(users)))
        if place < len(log):
            mixed.append(replace(log[place], offset=len(mixed)))
    return mixed


def clicks_of(log: Iterable[Click | Forget]) -> list[Click]:
    """The events of a log alone."""
    return [one for one in log if isinstance(one, Click)]


def tombstones_of(log: Sequence[Click | Forget]) -> Tombstones:
    """The tombstones of a log, as the decoder hands them over."""
    found = [
        (one.offset, hash_id(one.user), len(clicks_of(log[:place])))
        for place, one in enumerate(log)
        if isinstance(one, Forget)
    ]
    offset, user, row = zip(*found, strict=True) if found else ((), (), ())
    return Tombstones(
        np.array(offset, np.int64), np.array(user, np.uint64), np.array(row, np.int64)
    )


def columns_of(clicks: Sequence[Click], settings: Settings) -> EventColumns:
    """Events as the decoder hands them over."""
    kinds = list(settings.events.weights)
    return EventColumns(
        np.array([c.offset for c in clicks], np.int64),
        np.array([hash_id(c.user) for c in clicks], np.uint64),
        np.array([hash_id(c.item) for c in clicks], np.uint64),
        np.array([c.time for c in clicks], np.int64),
        np.array([kinds.index(c.kind) for c in clicks], np.uint8),
        np.array([event_key(c.event_id) if c.event_id else 0 for c in clicks], np.uint64),
        np.array([session_tag(c.session_id) if c.session_id else 0 for c in clicks], np.uint32),
    )


def record_of(click: Click | Forget) -> Record:
    """The event, or the tombstone, as it stands in Kafka."""
    if isinstance(click, Forget):
        return Record(click.offset, BASE, click.user.encode(), None)
    value = {
        "user_id": click.user,
        "item_id": click.item,
        "type": click.kind,
        "timestamp": click.time,
        "event_id": click.event_id,
        "session_id": click.session_id,
    }
    return Record(click.offset, click.time, click.user.encode(), orjson.dumps(value))
