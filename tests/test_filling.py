"""Filling up against the obvious way, with lists and loops (one integer seed each)."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.filling import fill_up
from store.found import Trending


def slow(
    found: list[tuple[int, float]],
    n: int,
    left_out: list[int],
    windows: list[list[tuple[int, float, str | None]]],
    liked: set[str],
) -> list[tuple[int, float]]:
    """One item at a time."""
    shown = list(found)
    for window in windows:
        least = min((score for _, score in shown), default=None)
        first = [row for row in window if row[2] in liked]
        rest = [row for row in window if row[2] not in liked]
        new: list[tuple[int, float]] = []
        for item, weight, _ in first + rest:
            if len(shown) + len(new) < n and item not in left_out:
                if item not in [one for one, _ in shown]:
                    new.append((item, weight))
        heaviest = max((weight for _, weight in new), default=0.0)
        last = float("inf")
        for item, weight in new:
            score = weight if least is None else weight * 0.999 * least / heaviest
            last = min(last, score)
            shown.append((item, last))
    return shown


@settings(max_examples=200, deadline=None, print_blob=True)
@given(seed=st.integers(0, 2**32))
def test_trending_fills_up_as_one_item_at_a_time_would(seed: int) -> None:
    random = Random(seed)
    ids = range(100, 130)
    found = [(item, random.random() + 0.01) for item in random.sample(ids, random.randrange(6))]
    left_out = random.sample(ids, random.randrange(6))
    windows = []
    for _ in range(3):
        rows = [
            (item, random.choice([1.0, 2.0, random.random() * 9 + 0.1]), random.choice("abc"))
            for item in random.sample(ids, random.randrange(12))
        ]
        windows.append(sorted(rows, key=lambda row: -row[1]))
    told = [
        Trending(
            np.array([row[0] for row in rows], np.uint64),
            np.array([row[1] for row in rows], np.float64),
            [row[2] for row in rows],
        )
        for rows in windows
    ]
    liked = set(random.sample("abc", random.randrange(3)))
    n = random.choice([0, 1, 5, 20])
    item, score = fill_up(
        np.array([one for one, _ in found], np.uint64),
        np.array([one for _, one in found], np.float64),
        n,
        np.array(left_out, np.uint64) if seed % 2 else None,
        told,
        liked,
    )
    wanted = slow(found, n, left_out if seed % 2 else [], windows, liked)  # type: ignore[arg-type]
    assert item.tolist() == [one for one, _ in wanted]
    assert score.tolist() == pytest.approx([one for _, one in wanted])
    assert len(item) == len(set(item.tolist()))


def test_categories_of_the_session_go_first() -> None:
    window = Trending(np.array([7, 8, 9], np.uint64), np.array([3.0, 2.0, 1.0]), [None, "a", "b"])
    nothing = np.zeros(0, np.uint64), np.zeros(0)
    item, score = fill_up(*nothing, 2, None, [window], {"b"})
    assert item.tolist() == [9, 7]
    assert score.tolist() == [1.0, 1.0]
