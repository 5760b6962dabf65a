"""Maximal marginal relevance: against dicts and loops, and on cases whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.diversity import diversify
from streams.columns import F64, I64


@dataclass(frozen=True)
class Row:
    index: I64
    strength: F64


def row(strength: dict[int, float]) -> Row:
    return Row(np.array(list(strength), np.int64), np.array(list(strength.values()), np.float64))


def order(
    score: list[float],
    own: list[int],
    lists: Sequence[dict[int, float] | None],
    n: int,
    diversity: float,
) -> list[int]:
    found = diversify(
        np.array(score, np.float64),
        np.array(own, np.int64),
        [None if one is None else row(one) for one in lists],
        n,
        diversity,
    )
    assert found.dtype == np.int64
    return [int(position) for position in found]


def cosine(one: dict[int, float], other: dict[int, float]) -> float:
    dot = sum(strength * other.get(item, 0.0) for item, strength in one.items())
    return dot / math.sqrt(sum(s * s for s in one.values()) * sum(s * s for s in other.values()))


def with_itself(item: int, strength: dict[int, float] | None) -> dict[int, float]:
    return {**(strength or {}), item: max((strength or {}).values(), default=0.0) or 1.0}


@st.composite
def candidates(
    draw: st.DrawFn,
) -> tuple[list[float], list[int], list[dict[int, float] | None]]:
    # Few items, so that lists meet, name candidates and name their own item.
    item = st.integers(0, 12) | st.integers(0, 2**40)
    own = draw(st.lists(item, unique=True, max_size=9))
    score = sorted(
        draw(st.lists(st.floats(0, 1e6), min_size=len(own), max_size=len(own))), reverse=True
    )
    strength = st.sampled_from([0.0, 0.5, 1.0, 2.0]) | st.floats(1e-6, 1e6)
    some = st.none() | st.dictionaries(item, strength, max_size=8)
    return score, own, draw(st.lists(some, min_size=len(own), max_size=len(own)))


class TestAgainstLoops:
    @settings(deadline=None)
    @given(candidates(), st.integers(0, 12), st.sampled_from([0.0, 1.0]) | st.floats(0, 1))
    def test_each_place_has_the_best_of_those_left(
        self,
        found: tuple[list[float], list[int], list[dict[int, float] | None]],
        n: int,
        diversity: float,
    ) -> None:
        score, own, lists = found
        vectors = [with_itself(*one) for one in zip(own, lists, strict=True)]
        shown = order(score, own, lists, n, diversity)
        assert len(shown) == min(n, len(own))
        assert len(set(shown)) == len(shown)
        top = max(score, default=0.0) or 1.0
        for place, chosen in enumerate(shown):
            value = {
                one: (1 - diversity) * score[one] / top
                - diversity
                * max((cosine(vectors[one], vectors[other]) for other in shown[:place]), default=0)
                for one in range(len(own))
                if one not in shown[:place]
            }
            # Sums in another order differ in their last digits, which may decide between equals.
            assert value[chosen] >= max(value.values()) - 1e-9
            if place == 0:
                assert chosen == 0

    @settings(deadline=None)
    @given(candidates(), st.integers(0, 12))
    def test_without_diversity_the_order_stays(
        self, found: tuple[list[float], list[int], list[dict[int, float] | None]], n: int
    ) -> None:
        score, own, lists = found
        assert order(score, own, lists, n, 0.0) == list(range(min(n, len(own))))


class TestKnownAnswers:
    # Items 1 and 2 are neighbours of the same things; item 3 has nothing to do with them.
    own = (1, 2, 3)
    alike = ({8: 2.0, 9: 1.0, 2: 2.0}, {8: 2.0, 9: 1.0, 1: 2.0}, {70: 1.0})

    def test_the_one_that_differs_goes_before_the_one_that_is_alike(self) -> None:
        # The cosine of 1 and 2 is (4 + 1 + 4 + 4)/(4 + 1 + 4 + 4) = 1, of either and 3 it is 0:
        # in second place 2 is worth (1 - d)·0.9 - d, and 3 (1 - d)·0.5.
        score = [1.0, 0.9, 0.5]
        assert order(score, [*self.own], self.alike, 3, 0.2) == [0, 1, 2]
        assert order(score, [*self.own], self.alike, 3, 0.28) == [0, 1, 2]  # 2/7 = 0.2857
        assert order(score, [*self.own], self.alike, 3, 0.29) == [0, 2, 1]
        assert order(score, [*self.own], self.alike, 2, 0.29) == [0, 2]

    def test_scores_count_by_their_share_of_the_best(self) -> None:
        for best in (1e-6, 1e6):
            score = [best, 0.9 * best, 0.5 * best]
            assert order(score, [*self.own], self.alike, 3, 0.28) == [0, 1, 2]
            assert order(score, [*self.own], self.alike, 3, 0.29) == [0, 2, 1]

    def test_only_the_most_similar_of_those_shown_counts(self) -> None:
        # 2 is a little more like 1 than 4 is, but 4 is as much like 3 as well.
        lists = ({50: 1.0}, {50: 1.0, 51: 1.0}, {60: 1.0}, {50: 1.0, 60: 1.0, 61: 1.0})
        first, second, _, last = (with_itself(own + 1, one) for own, one in enumerate(lists))
        assert cosine(first, last) < cosine(first, second) < 2 * cosine(first, last)
        assert order([1.0] * 4, [1, 2, 3, 4], lists, 4, 1.0) == [0, 2, 3, 1]

    def test_unknown_items_are_like_nothing_but_lists_that_name_them(self) -> None:
        # 2 has no list, but stands in that of 1; 3 has no list and stands nowhere.
        assert order([3.0, 2.0, 1.0], [1, 2, 3], [{2: 5.0}, None, {}], 3, 0.9) == [0, 2, 1]

    def test_ties_go_to_the_earlier(self) -> None:
        assert order([1.0] * 4, [1, 2, 3, 4], [None] * 4, 4, 0.5) == [0, 1, 2, 3]
        assert order([0.0] * 4, [1, 2, 3, 4], [{9: 1.0}] * 4, 4, 0.5) == [0, 1, 2, 3]

    def test_nothing_to_show(self) -> None:
        assert order([], [], [], 5, 0.5) == []
        assert order([1.0], [1], [None], 0, 0.5) == []
