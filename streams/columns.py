"""A batch of events as numpy columns: what the decoder hands to the folds.

Ids are 64-bit xxh3 hashes, so that no id has to be handed out and every process agrees on them.
The chance that any two of 10 million items share one is 3 in a million (birthday bound n²/2⁶⁵).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

__all__ = [
    "EVENT_BITS",
    "F64",
    "I64",
    "NO_TOMBSTONES",
    "RESERVED_IDS",
    "TAG_BITS",
    "U64",
    "Bool",
    "EventColumns",
    "Tombstones",
    "concatenate",
    "event_key",
    "event_keys",
    "hash_id",
    "hash_names",
    "session_tag",
    "session_tags",
]

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

RESERVED_IDS = 16
"""Hashes below this are never an item's or a user's: the store uses them for counters."""
EVENT_BITS = 40
"""Bits kept of an event_id's hash: two of a user's 50 kept events share one once in 10⁹ users."""
TAG_BITS = 19
"""Bits that tell the sessions of one user apart."""


def hash_id(text: str) -> int:
    """64-bit id of an item or user; never below RESERVED_IDS."""
    value: int = xxh3_64_intdigest(text.encode())
    return value if value >= RESERVED_IDS else value + RESERVED_IDS


def hash_names(names: list[bytes]) -> U64:
    """`hash_id` of many, given as UTF-8."""
    ids = _hashes(names)
    ids[ids < RESERVED_IDS] += np.uint64(RESERVED_IDS)
    return ids


def event_key(text: str) -> int:
    """40-bit key of an event_id; 0 is kept for "none"."""
    return (xxh3_64_intdigest(text.encode()) >> (64 - EVENT_BITS)) or 1


def event_keys(texts: list[str | None]) -> U64:
    """`event_key` of many; 0 for those that are None or empty."""
    return _short_hashes(texts, EVENT_BITS)


def session_tag(text: str) -> int:
    """19-bit tag of a session_id; 0 is kept for "none"."""
    return (xxh3_64_intdigest(text.encode()) >> (64 - TAG_BITS)) or 1


def session_tags(texts: list[str | None]) -> npt.NDArray[np.uint32]:
    """`session_tag` of many; 0 for those that are None or empty."""
    return _short_hashes(texts, TAG_BITS).astype(np.uint32)


def _hashes(names: Sequence[bytes]) -> U64:
    return np.fromiter(map(xxh3_64_intdigest, names), np.uint64, len(names))


def _short_hashes(texts: list[str | None], bits: int) -> U64:
    if not any(texts):
        return np.zeros(len(texts), np.uint64)
    some = [text or "" for text in texts]
    short = _hashes(list(map(str.encode, some))) >> np.uint64(64 - bits)
    there = np.fromiter(map(bool, some), np.bool_, len(some))
    return np.where(there, np.maximum(short, np.uint64(1)), np.uint64(0))


@dataclass(frozen=True, slots=True)
class EventColumns:
    """n events, those of one partition in log order."""

    offset: I64
    """Kafka offsets, rising in each partition."""
    user: U64
    """Hashed user ids."""
    item: U64
    """Hashed item ids."""
    time: I64
    """Milliseconds since 1970."""
    kind: npt.NDArray[np.uint8]
    """Position of the event's type in the setting `events.weights`."""
    event: U64
    """40-bit event keys, 0 where the event has no id."""
    tag: npt.NDArray[np.uint32]
    """19-bit session tags, 0 where the event has no session id."""

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, where: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> EventColumns:
        """The events at a mask or at positions."""
        return EventColumns(*(getattr(self, f.name)[where] for f in fields(self)))

    def span(self, begin: int, end: int) -> EventColumns:
        """Events `begin` … `end - 1`, not copied."""
        return EventColumns(*(getattr(self, f.name)[begin:end] for f in fields(self)))


def concatenate(batches: list[EventColumns]) -> EventColumns:
    """The batches' events behind one another."""
    return EventColumns(
        *(np.concatenate([getattr(b, f.name) for b in batches]) for f in fields(EventColumns))
    )


@dataclass(frozen=True, slots=True)
class Tombstones:
    """t users to be forgotten, in log order; each stands somewhere among n events."""

    offset: I64
    """Kafka offsets, rising in each partition."""
    user: U64
    """Hashed user ids."""
    row: I64
    """(t,) 0 … n, how many of the n events come before it."""

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, where: Bool, events: Bool) -> Tombstones:
        """Those at a mask, among those of the n events that are at another."""
        before = np.concatenate([[0], np.cumsum(events)])
        return Tombstones(self.offset[where], self.user[where], before[self.row[where]])


NO_TOMBSTONES = Tombstones(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.int64))
