"""What users of experiments were shown, and what they did then: committed exactly once.

Answers and events come from two topics, with offsets of their own, and either may be read first: a
click may be there before the record of the answer that led to it. So each experiment shard keeps a
short journal for each user, in which whatever comes is matched with what is there
(`lua/commit_outcomes.lua`), and counts per variant. A script takes a batch's records, the counts
and the shard's marks in one step, behind the same fence as every commit. Nothing is derived from
other shards, so none has to come first.

What happened is told by the records' own times, and when an entry of a journal may go by the
broker's, so that a replay of the log comes to the same counts.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from config.settings import Settings
from store.commit import Outcome, Target, fenced, marks_of
from store.keys import FIRST_GENERATION, Keys
from store.scripts import Call, Scripts
from streams.columns import I64

__all__ = [
    "CLICK",
    "PURCHASE",
    "AttributionWriter",
    "Committed",
    "Done",
    "Forgotten",
    "Happened",
    "Shown",
    "VariantCounts",
    "read_outcomes",
]

CLICK, PURCHASE = 1, 2
"""Kinds of events, as the script knows them."""
_SHOWN, _DONE, _FORGOTTEN = 0, 1, 2
_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000
_SLACK_MS = _HOUR_MS
_JOURNAL_DAYS = 3
"""So long past the window, workers may stand still and nothing is lost."""
_MOST = 200
"""Answers, and events, in the journal of one user."""


@dataclass(frozen=True, slots=True)
class Happened:
    """A record that matters to experiments."""

    part: int
    """Of the batch, from 0."""
    offset: int
    user: int
    """Hash."""
    time: int
    """Milliseconds since 1970."""

    def packed(self) -> bytes:
        """As the script takes it."""
        raise NotImplementedError

    def _head(self, kind: int) -> bytes:
        return struct.pack("<BH8sd", kind, self.part + 1, _bytes(self.user), self.time)


@dataclass(frozen=True, slots=True)
class Shown(Happened):
    """An answer of a variant."""

    answer: int
    """Hash of the recommendation_id."""
    experiment: str
    variant: str
    items: bytes
    """Hashes of its items, 8 bytes each; empty where they do not matter."""

    def packed(self) -> bytes:
        experiment, variant = self.experiment.encode(), self.variant.encode()
        return b"".join(
            (
                self._head(_SHOWN),
                _bytes(self.answer),
                bytes([len(experiment)]),
                experiment,
                bytes([len(variant)]),
                variant,
                len(self.items).to_bytes(2, "little"),
                self.items,
            )
        )


@dataclass(frozen=True, slots=True)
class Done(Happened):
    """A click or a purchase."""

    identity: int
    """The same of a record that is a duplicate of another."""
    kind: int
    item: int
    answer: int | None
    """Hash of the recommendation_id that it carries."""

    def packed(self) -> bytes:
        led = b"\0" if self.answer is None else b"\x08" + _bytes(self.answer)
        identity, item = _bytes(self.identity), _bytes(self.item)
        return self._head(_DONE) + identity + bytes([self.kind]) + item + led


@dataclass(frozen=True, slots=True)
class Forgotten(Happened):
    """A user who is to be forgotten; `time` is the broker's."""

    def packed(self) -> bytes:
        return self._head(_FORGOTTEN)


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a commit."""

    outcome: Outcome
    cut: int
    """Entries that were dropped because a user's journal was full."""


@dataclass(slots=True)
class VariantCounts:
    """What one variant led to."""

    users: int = 0
    """Who were shown an answer of it, before one of another variant."""
    answers: int = 0
    clicks: int = 0
    purchases: int = 0
    clickers: int = 0
    """Users who clicked."""
    buyers: int = 0


class AttributionWriter:
    """What workers read and write. Raises redis.RedisError as redis-py does."""

    def __init__(
        self, redis: Redis, settings: Settings, generation: int = FIRST_GENERATION
    ) -> None:
        self._redis = redis
        self._keys = Keys(settings.store, generation)
        self._scripts = Scripts(redis)
        kafka = settings.kafka
        self._events, self._shown = kafka.events_topic, kafka.recommendations_topic
        window = int(settings.experiments.window_hours * _HOUR_MS)
        self._rules = (
            *(window, _SLACK_MS, window + _JOURNAL_DAYS * _DAY_MS),
            *(max(settings.store.user_days * _DAY_MS, window), _MOST),
        )

    async def read_marks(self, topic: str, partition: int) -> I64:
        """The last offset of a partition that each shard contains, (shards,); -1 for none of it."""
        pipeline = self._redis.pipeline(transaction=False)
        for prefix in self._keys.experiments:
            pipeline.get(self._keys.mark(prefix, topic, partition))
        return marks_of(await pipeline.execute())

    async def begin(self, topic: str, partition: int, contained: int) -> None:
        """Have shards that have not begun take a partition up behind an offset."""
        for prefix in self._keys.experiments:
            await self._redis.set(self._keys.mark(prefix, topic, partition), contained, nx=True)

    async def commit(
        self,
        targets: Sequence[Target],
        marks: Sequence[I64],
        times: Sequence[int],
        records: Sequence[Happened],
    ) -> Committed:
        """Match and count records, those of a part in log order, each shard leaving out what it
        contains. `targets` are the batch's parts, all of one topic, `marks` (shards,) what is known
        of each, and `times` the broker's time of each one's last record.
        """
        keys, topic = self._keys, targets[0].topic
        shown = topic == self._shown
        other = self._events if shown else self._shown
        mine: list[list[bytes]] = [[] for _ in keys.experiments]
        for record in records:
            shard = record.user % keys.shards
            if record.offset > marks[record.part][shard]:
                mine[shard].append(record.packed())
        calls: list[Call] = []
        for s, prefix in enumerate(keys.experiments):
            names, offsets = fenced(prefix, targets, [int(one[s]) for one in marks])
            arguments = [
                *offsets,
                b"".join(mine[s]),
                " ".join(map(str, times)),
                other,
                *self._rules,
                "shown" if shown else "done",
            ]
            calls.append(("commit_outcomes", names, arguments))
        replies = await self._scripts.call(calls)
        return Committed(Outcome.of(replies), sum(one[4] for one in replies if len(one) > 4))


async def read_outcomes(redis: Redis, keys: Keys) -> dict[str, dict[str, VariantCounts]]:
    """What variants led to, by experiment and variant. Raises redis.RedisError."""
    pipeline = redis.pipeline(transaction=False)
    for prefix in keys.experiments:
        pipeline.hgetall(keys.outcomes(prefix))
    found: dict[str, dict[str, VariantCounts]] = {}
    for counts in await pipeline.execute():
        for field, count in counts.items():
            experiment, variant, what = field.decode().split("/")
            one = found.setdefault(experiment, {}).setdefault(variant, VariantCounts())
            setattr(one, what, getattr(one, what) + int(count))
    return found


def _bytes(number: int) -> bytes:
    return number.to_bytes(8, "little")
