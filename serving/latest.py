"""Sessions of many users at once: their latest distinct items. A compiled loop over histories."""

from __future__ import annotations

import numpy as np

from config.compiled import compiled
from processors.session import WINDOW
from streams.columns import I64, U64, Bool

__all__ = ["latest_items"]


@compiled(
    "Tuple((i8[::1], u8[::1], i8[::1], i8[::1], i8[::1], b1[::1]))"
    "(i8[::1], u8[::1], u4[::1], u1[::1], i8, i8)"
)
def latest_items(
    start: I64, item: U64, tag: np.ndarray, kind: np.ndarray, disliked: int, most: int
) -> tuple[I64, U64, I64, I64, I64, Bool]:
    """What `serving.candidates.session_items` says of each history's latest session.

    Histories are those of a `SessionTable`: `start` (B + 1,), `item`, `tag` and `kind` (k,) of the
    events in time order. The latest session are the events with the last one's tag. `disliked` is
    the type of events that say so, -1 for none; `most` is how many items are wanted.

    Returns where each session's items begin (B + 1,), these, latest first, their distances and
    times (S,), the sessions' lengths (B,), and whose history has a dislike (B,): what is said of
    that session does not heed it.
    """
    b, k = len(start) - 1, 0
    first = np.zeros(b + 1, np.int64)
    found = np.empty(len(item), np.uint64)
    distance = np.empty(len(item), np.int64)
    times = np.empty(len(item), np.int64)
    length = np.zeros(b, np.int64)
    dislikes = np.zeros(b, np.bool_)
    for one in range(b):
        first[one] = k
        begin, end = start[one], start[one + 1]
        for event in range(end - 1, begin - 1, -1):
            if kind[event] == disliked:
                dislikes[one] = True
            if tag[event] != tag[end - 1]:
                continue
            length[one] += 1
            if length[one] > WINDOW:
                continue
            at = first[one]
            while at < k and found[at] != item[event]:
                at += 1
            if at < k:
                times[at] += 1
            elif k - first[one] < most:
                found[k] = item[event]
                distance[k] = length[one]
                times[k] = 1
                k += 1
    first[b] = k
    return first, found[:k].copy(), distance[:k].copy(), times[:k].copy(), length, dislikes
