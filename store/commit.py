"""What a commit is made of: where its parts stand, what shards contain, and what became of it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from redis.asyncio import Redis

from store.keys import Keys
from streams.columns import I64

__all__ = [
    "CatalogueEntry",
    "Compacted",
    "Lesson",
    "Marks",
    "Outcome",
    "Target",
    "fenced",
    "mark_keys",
    "marks_of",
    "read_item_marks",
    "read_lowest_marks",
    "whole_marks",
]

_REFUSED = 0
"""As `lua/fence.lua` says it."""


@dataclass(slots=True)
class Marks:
    """The last offset of one partition that each shard contains; -1 for none of it.

    There are few shards: lists of them are quicker looked through than arrays.
    """

    items: I64
    """(shards,)."""
    users: I64
    """(shards,)."""
    totals: int

    @property
    def lowest(self) -> int:
        """The offset up to which every shard is true."""
        return int(min(*self.users.tolist(), self.lowest_counts))

    @property
    def lowest_counts(self) -> int:
        """The offset up to which items and totals are true, which no user shard may be ahead of."""
        return int(min(*self.items.tolist(), self.totals))

    @property
    def users_ahead(self) -> bool:
        """Whether what users did is in their sessions and not in all counts."""
        return bool(max(self.users.tolist()) > self.lowest_counts)


def mark_keys(prefix: bytes, targets: Sequence[Target]) -> list[bytes]:
    """Where a shard keeps the marks of a batch's parts."""
    return [Keys.mark(prefix, one.topic, one.partition) for one in targets]


def fenced(
    prefix: bytes, targets: Sequence[Target], contained: Iterable[int]
) -> tuple[list[bytes], list[bytes | str | int]]:
    """The keys and arguments that `lua/fence.lua` looks at, for a shard that contains each part's
    partition up to the offsets given.
    """
    return (
        [*mark_keys(prefix, targets), prefix],
        [" ".join(map(str, contained)), " ".join(str(one.last) for one in targets)],
    )


def marks_of(values: Sequence[bytes | None]) -> I64:
    """Marks as they stand under `Keys.mark`; -1 for none."""
    return np.array([int(value) if value else -1 for value in values], np.int64)


def whole_marks(keys: Keys, topic: str, partitions: Sequence[int]) -> list[bytes]:
    """Where all shards keep the marks of partitions: those of one behind those of another."""
    prefixes = [*keys.items, *keys.users, keys.stats]
    return [keys.mark(prefix, topic, one) for one in partitions for prefix in prefixes]


async def read_lowest_marks(
    redis: Redis, keys: Keys, places: Sequence[tuple[str, int]], events_topic: str
) -> list[int]:
    """The last offset of each partition (topic, number) that all shards contain which know of its
    topic; -1 for none of it. Raises redis.RedisError.
    """
    prefixes = [keys.prefixes if topic == events_topic else keys.items for topic, _ in places]
    names = [
        keys.mark(prefix, *place)
        for place, some in zip(places, prefixes, strict=True)
        for prefix in some
    ]
    found: list[bytes | None] = await redis.mget(names) if names else []  # type: ignore[assignment]
    marks = iter(marks_of(found).tolist())
    return [min(next(marks) for _ in some) for some in prefixes]


async def read_item_marks(redis: Redis, keys: Keys, topic: str, partition: int) -> I64:
    """The last offset of a partition that each item shard contains, (shards,); -1 for none of it.

    Raises redis.RedisError.
    """
    pipeline = redis.pipeline(transaction=False)
    for prefix in keys.items:
        pipeline.get(keys.mark(prefix, topic, partition))
    return marks_of(await pipeline.execute())


@dataclass(frozen=True, slots=True)
class Target:
    """Where a batch's part of one partition stands; new ones for each attempt to commit it."""

    topic: str
    partition: int
    last: int
    """Offset of the part's last record."""
    batch_pass: bytes = field(default_factory=lambda: secrets.token_bytes(8))
    """What step 1 leaves and step 2 must find, in a batch's first part."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step of a commit."""

    refused: bool
    """Some shard did not contain what the batch continues: read the marks again."""
    contained: I64
    """(parts, shards) last offset that each shard contains now, in the order of the calls."""
    long_lists: list[bytes]
    """Keys of lists, and of trending logs, that `StoreWriter.compact` should look at."""
    grown_lists: list[bytes]
    """Keys of lists that it should look at when there is time."""

    @classmethod
    def of(cls, replies: Sequence[Sequence[Any]]) -> Outcome:
        """From the replies of fenced scripts."""
        return cls(
            any(reply[0] == _REFUSED for reply in replies),
            np.array([reply[1] for reply in replies], np.int64).T,
            [key for reply in replies if len(reply) > 2 for key in reply[2]],
            [key for reply in replies if len(reply) > 2 for key in reply[3]],
        )

    def move_items(self, marks: Sequence[Marks]) -> None:
        """Have the parts' marks say what step 1 left: that of the totals is the last."""
        for one, at in zip(marks, self.contained, strict=True):
            one.items, one.totals = at[:-1], int(at[-1])

    def move_users(self, marks: Sequence[Marks]) -> None:
        """Have the parts' marks say what step 2 left."""
        for one, at in zip(marks, self.contained, strict=True):
            one.users = at


@dataclass(frozen=True, slots=True)
class Compacted:
    """What became of lists that were to be compacted."""

    replaced: int
    """How many: not those that another worker was quicker with."""
    grown: list[bytes]
    """Keys of those that are past their bound again, with what was appended meanwhile."""


@dataclass(slots=True)
class Lesson:
    """A change of the learned ranking, committed together with what it was learned from."""

    continues: bytes
    """First 8 bytes of the value that it continues, empty for none."""
    model: bytes
    """The value after it, whose first 8 bytes are new."""
    taken: bool = False
    """Whether it was committed; false also where another worker's lesson came first."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One item of the catalogue; `value` None deletes it."""

    item: int
    """Hashed item id."""
    value: bytes | None
    available: bool = True
