"""Compiled loops over lines: histories and new events of all users in one row, by user, then as
they came. The rules are those of `session.py`, which puts the parts together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from config.compiled import compiled
from streams.columns import I64, TAG_BITS, U64, Bool

__all__ = ["line_up", "look_back", "newest", "tag_of_time"]

U32 = npt.NDArray[np.uint32]
U8 = npt.NDArray[np.uint8]

_MIX = 0x9E3779B97F4A7C15
_TAG_SHIFT = 64 - TAG_BITS


@compiled("u4(i8)")
def tag_of_time(time: int) -> np.uint32:
    """Tag of a session that has no id, from the time at which it begins (Fibonacci hashing)."""
    tag = (np.uint64(time) * np.uint64(_MIX)) >> np.uint64(_TAG_SHIFT)
    return np.uint32(max(tag, np.uint64(1)))


@compiled(
    "Tuple((i8[::1], u8[::1], i8[::1], u8[::1], u4[::1], u1[::1], i8[::1], b1[::1]))"
    "(i8[::1], u8[::1], i8[::1], u8[::1], u4[::1], u1[::1],"
    " i8[::1], u8[::1], i8[::1], u8[::1], u4[::1], u1[::1], i8, i8)"
)
def line_up(
    known_start: I64,
    known_item: U64,
    known_time: I64,
    known_event: U64,
    known_tag: U32,
    known_kind: U8,
    owner: I64,
    new_item: U64,
    new_time: I64,
    new_event: U64,
    new_tag: U32,
    new_kind: U8,
    pause_ms: int,
    history: int,
) -> tuple[I64, U64, I64, U64, U32, U8, I64, Bool]:
    """Put new events (n,) of the users `owner` (rows of the table of m users) behind what is known.

    Returns start (m + 1,) · item · time · event · tag · kind · row, the position in the batch and
    -1 for what was known, of the line; and (m,) users of whom a new event is earlier than the one
    before it or repeats an event_id of the last `history` ones: their part of the line is empty.
    """
    users, n = len(known_start) - 1, len(owner)
    # Rows of the batch by user, as they came.
    begin = np.zeros(users + 1, np.int64)
    for i in range(n):
        begin[owner[i] + 1] += 1
    for user in range(users):
        begin[user + 1] += begin[user]
    fill = begin[:-1].copy()
    rows = np.empty(n, np.int64)
    for i in range(n):
        rows[fill[owner[i]]] = i
        fill[owner[i]] += 1

    size = len(known_item) + n
    item, time = np.empty(size, np.uint64), np.empty(size, np.int64)
    event, tag = np.empty(size, np.uint64), np.empty(size, np.uint32)
    kind, row = np.empty(size, np.uint8), np.empty(size, np.int64)
    start = np.zeros(users + 1, np.int64)
    hard = np.zeros(users, np.bool_)
    at = 0
    for user in range(users):
        first = at
        for k in range(known_start[user], known_start[user + 1]):
            item[at], time[at], event[at] = known_item[k], known_time[k], known_event[k]
            tag[at], kind[at], row[at] = known_tag[k], known_kind[k], -1
            at += 1
        for k in range(begin[user], begin[user + 1]):
            i = rows[k]
            if at > first and new_time[i] < time[at - 1]:
                hard[user] = True
            if new_event[i] != 0:
                for other in range(max(first, at - history), at):
                    if event[other] == new_event[i]:
                        hard[user] = True
            if hard[user]:
                at = first
                break
            item[at], time[at], event[at] = new_item[i], new_time[i], new_event[i]
            kind[at], row[at] = new_kind[i], i
            if new_tag[i] != 0:
                tag[at] = new_tag[i]
            elif at > first and new_time[i] - time[at - 1] < pause_ms:
                tag[at] = tag[at - 1]
            else:
                tag[at] = tag_of_time(new_time[i])
            at += 1
        start[user + 1] = at
    return (
        start,
        item[:at].copy(),
        time[:at].copy(),
        event[:at].copy(),
        tag[:at].copy(),
        kind[:at].copy(),
        row[:at].copy(),
        hard,
    )


@compiled(
    "Tuple((i8[::1], u8[:, ::1], i8[::1], "
    "u8[::1], u8[::1], i8[::1], i8[::1], i8[::1], u1[::1], u1[::1], i8[::1]))"
    "(i8[::1], u8[::1], i8[::1], u4[::1], u1[::1], i8[::1], i8, i8)"
)
def look_back(
    start: I64, item: U64, time: I64, tag: U32, kind: U8, row: I64, history: int, window: int
) -> tuple[I64, U64, I64, U64, U64, I64, I64, I64, U8, U8, I64]:
    """The columns of `session.Prefixes` and `session.Pairs` for the new events of a line.

    An event sees at most the `history` events of its user before it, and is paired with the last
    `window` ones of its session.
    """
    size = len(item)
    length = np.zeros(size, np.int64)
    prefixes, pairs, width = 0, 0, 0
    for user in range(len(start) - 1):
        for at in range(start[user], start[user + 1]):
            if row[at] < 0:
                continue
            count = 0
            for other in range(max(start[user], at - history), at):
                count += tag[other] == tag[at]
            length[at] = count
            prefixes += count > 0
            pairs += min(count, window)
            width = max(width, min(count, window))

    prefix_row, prefix_length = np.empty(prefixes, np.int64), np.empty(prefixes, np.int64)
    prefix_items = np.zeros((prefixes, width), np.uint64)
    first, second = np.empty(pairs, np.uint64), np.empty(pairs, np.uint64)
    gap, position = np.empty(pairs, np.int64), np.empty(pairs, np.int64)
    moment, pair_row = np.empty(pairs, np.int64), np.empty(pairs, np.int64)
    first_kind, second_kind = np.empty(pairs, np.uint8), np.empty(pairs, np.uint8)
    prefix, pair = 0, 0
    for at in range(size):
        if length[at] == 0:
            continue
        other, steps = at, min(length[at], window)
        for step in range(1, steps + 1):
            other -= 1
            while tag[other] != tag[at]:
                other -= 1
            prefix_items[prefix, step - 1] = item[other]
            first[pair], second[pair] = item[other], item[at]
            gap[pair], position[pair] = step, length[at] + 1
            moment[pair], pair_row[pair] = time[at], row[at]
            first_kind[pair], second_kind[pair] = kind[other], kind[at]
            pair += 1
        prefix_row[prefix], prefix_length[prefix] = row[at], length[at]
        prefix += 1
    return (
        prefix_row,
        prefix_items,
        prefix_length,
        first,
        second,
        gap,
        position,
        moment,
        first_kind,
        second_kind,
        pair_row,
    )


@compiled("Tuple((i8[::1], i8[::1]))(i8[::1], i8)")
def newest(start: I64, most: int) -> tuple[I64, I64]:
    """Where the last `most` entries of each group of a line lie, and where groups begin then."""
    groups = len(start) - 1
    begin = np.zeros(groups + 1, np.int64)
    for group in range(groups):
        begin[group + 1] = begin[group] + min(most, start[group + 1] - start[group])
    keep = np.empty(begin[groups], np.int64)
    for group in range(groups):
        count = begin[group + 1] - begin[group]
        for k in range(count):
            keep[begin[group] + k] = start[group + 1] - count + k
    return keep, begin
