"""The names of the keys in Redis.

Every key lies in a shard, and a shard is a hash tag, so that a script may touch all keys of its
shard on Redis Cluster too:

    hw{c}                which generations there are, and which one is live (`generations.py`)
    hw{1.i3}n<8 bytes>   neighbour list of an item                     (item shard 3, generation 1)
    hw{1.i3}b<8 bytes>   the same of purchases alone: what is bought together
    hw{1.i3}x<8 bytes>   an item's statistics, then its id as text
    hw{1.i3}c<8 bytes>   the item's catalogue entry, JSON
    hw{1.i3}a            items of the catalogue that are not available
    hw{1.i3}q            words of the catalogue's titles and ids, in order: word, zero, item
    hw{1.i3}v            changes of the catalogue: how many, u64, and the items of the latest ones
    hw{1.i3}f            new items of the catalogue, by how often they were shown to be tried
    hw{1.i3}l            trending: the log of what was added lately
    hw{1.i3}r<g>:<k>     trending: weights of items in bucket k of granularity g
    hw{1.u5}s<8 bytes>   a user's session vector                       (user shard 5)
    hw{1.g}t, m          totals; the learned ranking
    hw{1.g}o, h          opportunities and hits of the repeat prior, of each cell i64, big-endian
    hw{1.i3}w:<topic>:<partition>   last offset of the log that this shard contains
    hw{1.i3}z            there while the shard is copied to a snapshot
    hw{1.i3}k:<topic>    which topic of that name the offsets are of      (`topics.py`)
    hw{1.u5}p:<topic>:<partition>   pass of the batch whose items were committed last
    hw{1.u5}y            on Redis Cluster: what the latest commits have replaced  (`take_back.py`)
    hw{1.e5}n            what variants of experiments led to: counts           (`attribution.py`)
    hw{1.e5}m<8 bytes>   a user's variants, and what the user has done so far (experiment shard 5)
    hw{1.e5}j<8 bytes>   what the user was shown and did lately, to be matched
    hw{1.e5}t:<topic>:<partition>   broker's time of the last record that this shard contains

The 8 bytes are the id's hash, little-endian.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from config.settings import StoreSettings
from streams.columns import I64, U64

__all__ = [
    "BOUGHT",
    "CATALOGUE",
    "EXPIRING",
    "FIRST_GENERATION",
    "SESSION",
    "STATISTICS",
    "VIEWED",
    "Keys",
    "head_rows",
    "id_bytes",
]

FIRST_GENERATION = 1
VIEWED, BOUGHT, STATISTICS = b"n", b"b", b"x"
"""Letters of an item's two lists, and of its statistics."""
CATALOGUE, SESSION = b"c", b"s"
"""Letters of an item's catalogue entry, and of a user's session vector."""
_VARIANTS, _JOURNAL = b"m", b"j"
EXPIRING = (b"r", _VARIANTS, _JOURNAL)
"""Letters of what Redis lets go by itself: buckets of trending, and users of experiments."""


def id_bytes(ids: U64) -> list[bytes]:
    """The hashes as they stand in keys."""
    data = ids.astype("<u8").tobytes()
    return [data[i : i + 8] for i in range(0, len(data), 8)]


def head_rows(heads: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], I64]:
    """What keys begin with in each shard, as compiled loops take it: (shards, longest) bytes, and
    the length (shards,) of each.
    """
    sizes = np.array([len(head) for head in heads], np.int64)
    rows = np.zeros((len(heads), int(sizes.max())), np.uint8)
    for row, head in zip(rows, heads, strict=True):
        row[: len(head)] = np.frombuffer(head, np.uint8)
    return rows, sizes


class Keys:
    """Names keys for one namespace and generation."""

    def __init__(self, settings: StoreSettings, generation: int = FIRST_GENERATION) -> None:
        self.shards = settings.shards
        head = f"{settings.namespace}{{{generation}."
        self.items = [f"{head}i{s}}}".encode() for s in range(self.shards)]
        """Prefixes of the item shards."""
        self.users = [f"{head}u{s}}}".encode() for s in range(self.shards)]
        """Prefixes of the user shards."""
        self.experiments = [f"{head}e{s}}}".encode() for s in range(self.shards)]
        """Prefixes of the experiment shards, which have users, too, and marks of their own."""
        self.stats = f"{head}g}}".encode()
        """Prefix of the one shard of totals."""
        self.own_pattern = f"{head}*".encode()
        """Matches every key of the generation."""
        self.pattern = f"{settings.namespace}{{*".encode()
        """Matches every key of the namespace, of whichever generation."""

    @property
    def taught(self) -> bytes:
        """Key of the learned ranking."""
        return self.stats + b"m"

    @property
    def prefixes(self) -> list[bytes]:
        """Of all shards that an event is counted in: user shards first, which never run ahead of
        the others.
        """
        return [*self.users, *self.items, self.stats]

    def heads(self, letter: bytes) -> list[bytes]:
        """What keys of items begin with in each shard: a list's, or those of statistics."""
        return [prefix + letter for prefix in self.items]

    def session_heads(self) -> list[bytes]:
        """What keys of session vectors begin with in each shard."""
        return [prefix + SESSION for prefix in self.users]

    def shard_of(self, ids: U64) -> I64:
        """Shard numbers of items, or of users."""
        return (ids % np.uint64(self.shards)).astype(np.int64)

    @staticmethod
    def mark(prefix: bytes, topic: str, partition: int) -> bytes:
        """Where a shard keeps the last offset of a partition that it contains."""
        return prefix + f"w:{topic}:{partition}".encode()

    @staticmethod
    def topic(prefix: bytes, topic: str) -> bytes:
        """Where a shard keeps the identity of the topic that its marks are of."""
        return prefix + f"k:{topic}".encode()

    @staticmethod
    def batch_pass(prefix: bytes, topic: str, partition: int) -> bytes:
        """Where a user shard keeps the pass of the batch whose items were committed last."""
        return prefix + f"p:{topic}:{partition}".encode()

    @staticmethod
    def replaced(prefix: bytes) -> bytes:
        """Where a user shard keeps what its latest commits have replaced: a stream."""
        return prefix + b"y"

    def neighbours(self, items: U64) -> list[bytes]:
        """Keys of neighbour lists."""
        return self._keys(self.items, VIEWED, items)

    def bought(self, items: U64) -> list[bytes]:
        """Keys of lists of what is bought together."""
        return self._keys(self.items, BOUGHT, items)

    def statistics(self, items: U64) -> list[bytes]:
        """Keys of items' statistics and names."""
        return self._keys(self.items, STATISTICS, items)

    def catalogue(self, items: U64) -> list[bytes]:
        """Keys of catalogue entries."""
        return self._keys(self.items, CATALOGUE, items)

    @property
    def changes(self) -> list[bytes]:
        """Keys of what tells how the catalogue has changed, of each item shard."""
        return [prefix + b"v" for prefix in self.items]

    def sessions(self, users: U64) -> list[bytes]:
        """Keys of session vectors."""
        return self._keys(self.users, SESSION, users)

    def of_experiments(self, users: U64) -> list[bytes]:
        """Keys of all that experiments know of users."""
        return [
            key
            for letter in (_VARIANTS, _JOURNAL)
            for key in self._keys(self.experiments, letter, users)
        ]

    @staticmethod
    def outcomes(prefix: bytes) -> bytes:
        """Key of one shard's counts of variants: a hash."""
        return prefix + b"n"

    @staticmethod
    def new_items(prefix: bytes) -> bytes:
        """Key of one shard's new items: a sorted set of hashes by exposures."""
        return prefix + b"f"

    @staticmethod
    def unavailable(prefix: bytes) -> bytes:
        """Key of one shard's items that are not available: a hash whose fields are hashes."""
        return prefix + b"a"

    @staticmethod
    def words(prefix: bytes) -> bytes:
        """Key of one shard's words of the catalogue: a sorted set by which items are found."""
        return prefix + b"q"

    @staticmethod
    def trend_log(prefix: bytes) -> bytes:
        """Key of one shard's log of trending."""
        return prefix + b"l"

    @staticmethod
    def trend(prefix: bytes, granularity: int, bucket: int) -> bytes:
        """Key of one shard's weights in a trending bucket."""
        return prefix + f"r{granularity}:{bucket}".encode()

    def _keys(self, prefixes: list[bytes], letter: bytes, ids: U64) -> list[bytes]:
        heads = [prefix + letter for prefix in prefixes]
        return [
            heads[shard] + name
            for shard, name in zip(self.shard_of(ids).tolist(), id_bytes(ids), strict=True)
        ]
