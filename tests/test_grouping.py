"""Grouping by hashing against sorting and dicts."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from processors.grouping import distinct, places, sum_by_key, unique_places

ids = arrays.arrays(
    np.uint64, st.integers(0, 60), elements=st.integers(0, 9) | st.integers(0, 2**64 - 1)
)


@given(ids)
@settings(max_examples=200, deadline=None)
def test_distinct_ids_come_as_they_first_do(some: np.ndarray) -> None:
    assert distinct(some).tolist() == list(dict.fromkeys(some.tolist()))
    once, code = unique_places(some)
    expected, inverse = np.unique(some, return_inverse=True)
    assert once.tolist() == expected.tolist()
    assert code.tolist() == inverse.tolist()


@given(ids, ids)
@settings(max_examples=200, deadline=None)
def test_places_are_where_an_id_stands(some: np.ndarray, asked: np.ndarray) -> None:
    known = distinct(some)
    where = {value: place for place, value in enumerate(known.tolist())}
    assert places(known, asked).tolist() == [where.get(value, -1) for value in asked.tolist()]


@given(st.lists(st.tuples(st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1), st.floats(0, 9))))
@settings(max_examples=200, deadline=None)
def test_sums_by_key(rows: list[tuple[int, float]]) -> None:
    wanted: dict[int, float] = {}
    for key, weight in rows:
        wanted[key] = wanted.get(key, 0.0) + weight
    keys, sums = sum_by_key(
        np.array([k for k, _ in rows], np.int64), np.array([w for _, w in rows])
    )
    assert dict(zip(keys.tolist(), sums.tolist(), strict=True)) == wanted
