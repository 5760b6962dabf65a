"""Sessions of users at once, straight from their vectors: their latest distinct items.

An answer needs no more of a history than that; `vectors.py` says how one lies in Redis, and reads
all of it for whoever needs more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from config.compiled import compiled
from config.errors import StoreError
from processors.session import WINDOW
from store.vectors import HAS_KEY, HEAD_BYTES, KIND_BITS, NEW_TAG, NOT_A_SESSION, READ_BYTES, U8
from streams.columns import I64, U64, Bool

__all__ = ["Latest", "latest_items"]


class Latest(NamedTuple):
    """The latest sessions of B users, S items in all, one session after the other."""

    start: I64
    """(B + 1,) where each session's items begin."""
    item: U64
    """(S,) latest first."""
    distance: I64
    """(S,) steps from the session's end, from 1."""
    times: I64
    """(S,) occurrences among the session's latest WINDOW events."""
    length: I64
    """(B,) events of each."""
    dislikes: Bool
    """(B,) whose history has a dislike: what is said of that session does not heed it."""


def latest_items(vectors: Sequence[bytes | None], disliked: int, most: int) -> Latest:
    """What `serving.candidates.session_items` says of each user's latest session: the events with
    the latest one's tag.

    `vectors` are as in Redis, None or empty where nothing is known. `disliked` is the type of
    events that say so, -1 for none; `most` is how many items are wanted. Raises StoreError for a
    value that is no session vector.
    """
    there = [vector or b"" for vector in vectors]
    size = np.array(list(map(len, there)), np.int64)
    found = _latest(np.frombuffer(b"".join(there), np.uint8), size, disliked, most)
    if found[0][-1] < 0:
        raise StoreError(NOT_A_SESSION)
    return Latest(*found)


@compiled(
    f"Tuple((i8[::1], u8[::1], i8[::1], i8[::1], i8[::1], b1[::1]))({READ_BYTES}, i8[::1], i8, i8)"
)
def _latest(data: U8, size: I64, disliked: int, most: int) -> tuple[I64, U64, I64, I64, I64, Bool]:
    """What `Latest` has; the last number of `start` is -1 where a vector does not end where it has
    to.
    """
    b = len(size)
    start = np.zeros(b + 1, np.int64)
    found = np.empty(b * most, np.uint64)
    distance, times = np.empty(b * most, np.int64), np.empty(b * most, np.int64)
    length, dislikes = np.zeros(b, np.int64), np.zeros(b, np.bool_)
    start[b] = -1
    k, at, end = 0, 0, 0
    for one in range(b):
        start[one] = k
        if not size[one]:
            continue
        at, end = end, end + size[one]
        if size[one] < HEAD_BYTES:
            return start, found, distance, times, length, dislikes
        events = np.int64(data[at + HEAD_BYTES - 1])
        at += HEAD_BYTES
        tag, last = np.int64(0), np.int64(0)
        for event in range(events):
            if at + 10 > end:
                return start, found, distance, times, length, dislikes
            flags = np.int64(data[at])
            item = np.uint64(0)
            for n in range(8, 0, -1):
                item = (item << np.uint64(8)) | np.uint64(data[at + n])
            at += 9
            pause = at
            while at < end and data[at] > 127:
                at += 1
            if at - pause >= 10:
                return start, found, distance, times, length, dislikes
            at += 1 + (5 if flags & HAS_KEY else 0)
            if flags & NEW_TAG:
                at += 3
                if at <= end:
                    tag = np.int64(data[at - 3]) | np.int64(data[at - 2]) << 8
                    tag |= np.int64(data[at - 1]) << 16
            if at > end:
                return start, found, distance, times, length, dislikes
            if event == 0:
                last = tag
            kind = flags & KIND_BITS
            if kind == disliked:
                dislikes[one] = True
            if tag != last:
                continue
            length[one] += 1
            if length[one] > WINDOW:
                continue
            place = start[one]
            while place < k and found[place] != item:
                place += 1
            if place < k:
                times[place] += 1
            elif k - start[one] < most:
                found[k], distance[k], times[k] = item, length[one], 1
                k += 1
        if at != end:
            return start, found, distance, times, length, dislikes
    start[b] = k
    return start, found[:k], distance[:k], times[:k], length, dislikes
