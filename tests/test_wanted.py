"""After which session a request is answered, against the same said one event at a time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from processors.session import WINDOW, SessionTable
from serving.wanted import Choice, wanted_of
from store.vectors import pack_sessions

_DISLIKE = 5
_Event = tuple[int, int, int]
"""Item, tag, type."""

_event = st.tuples(st.integers(1, 6), st.integers(0, 2), st.sampled_from([0, 0, 0, 1, _DISLIKE]))
_histories = st.lists(st.lists(_event, max_size=45), min_size=1, max_size=5)


def vectors_of(histories: list[list[_Event]]) -> list[bytes | None]:
    """As they lie in Redis."""
    events = [event for history in histories for event in history]
    k = len(events)
    table = SessionTable(
        np.arange(len(histories), dtype=np.uint64),
        np.cumsum([0] + [len(history) for history in histories]).astype(np.int64),
        np.array([event[0] for event in events], np.uint64),
        np.zeros(k, np.int64),
        np.zeros(k, np.uint64),
        np.array([event[1] for event in events], np.uint32),
        np.array([event[2] for event in events], np.uint8),
    )
    sizes, joined = pack_sessions(table, 20_000)
    ends = np.cumsum(sizes).tolist()
    return [joined[a:b] or None for a, b in pairwise([0, *ends])]


def slowly(
    history: list[_Event], choice: Choice, most: int
) -> tuple[list[tuple[int, int, int]], int, set[int]]:
    """(item, distance, times) of the session, its length, and what must not be shown."""
    left_out = set() if choice.exclude is None else set(choice.exclude.tolist())
    unwanted = {item for item, _, kind in history if kind == _DISLIKE}
    session = [item for item, tag, _ in history if tag == history[-1][1]]
    if choice.session is not None:
        session = choice.session.tolist()
    if choice.exclude_seen:
        left_out |= {item for item, _, _ in history}
        left_out |= set(session) if choice.session is not None else set()
    left_out |= unwanted
    session = [item for item in session if item not in unwanted]
    latest = session[::-1][:WINDOW]
    distinct = [item for at, item in enumerate(latest) if item not in latest[:at]][:most]
    rows = [(item, latest.index(item) + 1, latest.count(item)) for item in distinct]
    return rows, len(session), left_out


@given(_histories, st.integers(1, 30), st.data())
def test_sessions_are_those_said_event_by_event(
    histories: list[list[_Event]], most: int, data: st.DataObject
) -> None:
    items = st.none() | st.lists(st.integers(1, 6), max_size=4).map(
        lambda i: np.array(i, np.uint64)
    )
    choices = [
        Choice(
            20,
            user,
            session=data.draw(items, "session"),
            exclude=data.draw(items, "exclude"),
            exclude_seen=data.draw(st.booleans(), "exclude_seen"),
        )
        for user in range(len(histories))
    ]
    choices.append(Choice(20))  # nobody, in the middle of those with a history
    mixed = [choices[-1], *choices[:-1], choices[-1]]
    found = wanted_of(mixed, vectors_of(histories), _DISLIKE, most)
    assert [one.choice for one in found] == mixed
    for one, history in zip(found, [[], *histories, []], strict=True):
        rows, length, left_out = slowly(history, one.choice, most)
        session = one.session
        told = zip(
            session.item.tolist(), session.distance.tolist(), session.times.tolist(), strict=True
        )
        assert list(told) == rows
        assert session.length == length
        assert (set() if one.left_out is None else set(one.left_out.tolist())) == left_out


@given(_histories, st.integers(1, 30))
def test_who_asks_for_nothing_special_gets_the_same(
    histories: list[list[_Event]], most: int
) -> None:
    choices = [Choice(20, user) for user in range(len(histories))]
    found = wanted_of(choices, vectors_of(histories), _DISLIKE, most)
    for one, history in zip(found, histories, strict=True):
        rows, length, left_out = slowly(history, one.choice, most)
        assert one.session.item.tolist() == [item for item, _, _ in rows]
        assert one.session.distance.tolist() == [distance for _, distance, _ in rows]
        assert one.session.times.tolist() == [times for _, _, times in rows]
        assert one.session.length == length
        assert (set() if one.left_out is None else set(one.left_out.tolist())) == left_out
