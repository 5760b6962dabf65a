"""Small ints for hashes, as a dict would hand them out."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from store.interner import Interner

ids = st.integers(0, 40) | st.integers(0, 2**64 - 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(ids, max_size=60), max_size=6))
def test_ints_are_those_of_a_dict(calls: list[list[int]]) -> None:
    interner = Interner()
    known: dict[int, int] = {}
    for some in calls:
        wanted = [known.setdefault(one, len(known)) for one in some]
        found = interner.index(np.array(some, np.uint64))
        assert found.dtype == np.int64
        assert found.tolist() == wanted
        assert interner.ids(found).tolist() == some


def test_many_grow_the_table() -> None:
    interner = Interner()
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**64 - 1, 50_000, np.uint64)
    for begin in range(0, len(hashes), 7_000):
        some = hashes[begin : begin + 7_000]
        assert interner.index(some).tolist() == list(range(begin, begin + len(some)))
    assert interner.index(hashes[::-1]).tolist() == list(range(len(hashes)))[::-1]
    assert interner.ids(np.arange(len(hashes))).tolist() == hashes.tolist()
