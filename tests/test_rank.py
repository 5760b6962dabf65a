"""The ranking against its formula, by hand and on random sessions (one integer seed each)."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Settings, load_settings
from processors.repeats import CELLS, repeat_prior
from serving.candidates import (
    NOTHING,
    Neighbours,
    Popularity,
    Ranked,
    SessionItems,
    session_items,
)
from serving.rank import Knowledge, Ranker, walk
from serving.rank import ranked as best
from streams.columns import F64, I64
from tests import oracle
from tests.test_fold import number

NO_PRIOR = np.zeros(CELLS)


class Names:
    """Small ints and hashes for item names."""

    def __init__(self, random: Random, names: list[str]) -> None:
        ints = random.sample(range(3000), len(names))
        self.index = dict(zip(names, ints, strict=True))
        self.name = {i: name for name, i in self.index.items()}
        self.hash = {name: 100 + place for place, name in enumerate(names)}

    def ints(self, names: list[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([self.index[name] for name in names], np.int64)


def asked(
    ranker: Ranker,
    items: SessionItems,
    own: I64,
    known: dict[int, tuple[Neighbours, int]],
    knowledge: Knowledge,
    n: int,
    excluded: I64 | None = None,
) -> Ranked:
    """Walk the steps of an answer; `known` are neighbours of small ints, and sessions with them."""
    steps = ranker.ask([items], own, knowledge, [excluded], weighed=False)

    def near(index: I64) -> list[Neighbours]:
        return [known.get(one, (NOTHING, 0))[0] for one in index.tolist()]

    def popularity(index: I64) -> Popularity:
        sessions = [known.get(one, (NOTHING, 0))[1] for one in index.tolist()]
        return Popularity(np.array(sessions, np.float64), np.zeros(len(index)))

    return best(walk(steps, near, popularity).of(0).query, None, n)


def neighbours(index: I64, weight: F64, power: float) -> Neighbours:
    """Neighbours with forward counts alone."""
    weight32 = weight.astype(np.float32)
    return Neighbours.of(index, weight32, np.zeros(len(index), np.float32), weight**power)


def ranked(
    ranker: Ranker,
    rules: Settings,
    names: Names,
    session: list[str],
    weights: dict[str, dict[str, float]],
    sessions_with: dict[str, int],
    sessions: int,
    prior: np.ndarray[tuple[int], np.dtype[np.float64]],
    n: int,
    excluded: list[str] | None = None,
) -> Ranked:
    """Call the ranking as the server does."""
    hashes = np.array([names.hash[item] for item in session], np.uint64)
    items = session_items(hashes, len(session), rules.rank.session_items)
    back = {value: name for name, value in names.hash.items()}
    own = [back[value] for value in items.item.tolist()]
    known = {
        names.index[item]: (
            neighbours(
                names.ints(list(weights.get(item, {}))),
                np.array(list(weights.get(item, {}).values()), np.float64),
                rules.rank.count_power,
            ),
            count,
        )
        for item, count in sessions_with.items()
    }
    out = names.ints(excluded) if excluded is not None else None
    knowledge = Knowledge(sessions, 0, prior)
    return asked(ranker, items, names.ints(own), known, knowledge, n, out)


def expected_order(names: Names, scores: dict[str, float], n: int) -> list[tuple[int, float]]:
    rows = [(names.index[item], score) for item, score in scores.items()]
    return sorted(rows, key=lambda row: (-row[1], row[0]))[:n]


@settings(max_examples=150, deadline=None, print_blob=True)
@given(seed=st.integers(0, 2**32))
def test_random_sessions_rank_as_the_formula_says(seed: int) -> None:
    random = Random(seed)
    rules = load_settings(
        rank={
            "session_items": random.choice([1, 3, 15, 30]),
            "distance_decay": random.choice([0.3, 0.6, 1.0]),
            "count_power": random.choice([0.5, 1.0]),
            "idf_power": random.choice([0.0, 1.0, 3.0]),
            "widen_below": 0,
        }
    )
    items = [f"i{n}" for n in range(random.choice([3, 12, 60]))]
    names = Names(random, items)
    ranker = Ranker(rules.rank)
    cells = np.array([random.random() for _ in range(CELLS)])
    prior = {
        (d, t, b): float(cells[number((d, t, b))])
        for d in range(1, 31)
        for t in range(1, 4)
        for b in range(6)
    }
    for _ in range(4):  # one ranker after another session: nothing may be left behind
        sessions_with = {item: random.randrange(1, 40) for item in items if random.random() < 0.8}
        weights = {
            item: {b: random.choice([0.25, 1.0, random.random() + 1e-6]) for b in near}
            for item in sessions_with
            for near in [random.sample(items, random.randrange(len(items)))]
        }
        sessions = random.randrange(60)
        session = [random.choice(items) for _ in range(random.choice([1, 2, 5, 29, 30, 31, 45]))]
        scores = oracle.rank(rules, session, weights, sessions_with, sessions, prior)
        excluded = random.sample(items, random.randrange(len(items))) if seed % 2 else None
        for item in excluded or ():
            scores.pop(item, None)
        n = random.choice([1, 3, 20, 100])
        found = ranked(
            ranker, rules, names, session, weights, sessions_with, sessions, cells, n, excluded
        )
        wanted = expected_order(names, scores, n)
        assert len(found.index) == len(wanted)
        assert found.score.tolist() == pytest.approx([s for _, s in wanted], abs=1e-9)
        # Scores that differ by rounding alone may stand either way round.
        exact = {names.index[item]: score for item, score in scores.items()}
        assert [exact[i] for i in found.index.tolist()] == pytest.approx(
            [s for _, s in wanted], abs=1e-9
        )
        assert len(set(found.index.tolist())) == len(found.index)
        told = list(zip(found.index.tolist(), found.score.tolist(), strict=True))
        assert told == sorted(told, key=lambda row: (-row[1], row[0]))


def small() -> tuple[Ranker, Names, Settings]:
    rules = load_settings(rank={"widen_below": 0})
    names = Names(Random(1), list("abcd"))
    names.index.update(a=0, b=1, c=2, d=3)
    return Ranker(rules.rank), names, rules


def test_a_small_matrix_by_hand() -> None:
    ranker, names, rules = small()
    prior = NO_PRIOR.copy()
    prior[number((1, 1, 1))], prior[number((2, 1, 1))] = 0.125, 0.25
    found = ranked(
        ranker,
        rules,
        names,
        ["a", "b"],
        {"b": {"c": 4.0, "a": 1.0}, "a": {"c": 9.0, "d": 16.0}},
        {"a": 10, "b": 5},
        10,
        prior,
        10,
    )
    idf_b = (1 + math.log(2)) ** 3
    c, a, d = 2 * idf_b + 0.6 * 3, idf_b, 0.6 * 4
    total = a + c + d
    wanted = {2: c / total, 0: a / total + 0.25, 3: d / total, 1: 0.125}
    assert dict(zip(found.index.tolist(), found.score.tolist(), strict=True)) == pytest.approx(
        wanted, abs=1e-12
    )
    assert found.index.tolist() == sorted(wanted, key=lambda i: -wanted[i])


def test_ties_go_to_the_smaller_int_wherever_the_cut_falls() -> None:
    ranker, names, rules = small()
    for n in range(1, 5):
        found = ranked(
            ranker,
            rules,
            names,
            ["d"],
            {"d": {"c": 1.0, "a": 1.0, "b": 1.0}},
            {"d": 1},
            1,
            NO_PRIOR,
            n,
        )
        assert found.index.tolist() == [0, 1, 2, 3][:n]
        assert found.score.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0][:n])


def test_items_nobody_knows_leave_the_prior_alone() -> None:
    ranker, names, rules = small()
    prior = NO_PRIOR.copy()
    prior[number((1, 1, 1))] = 0.5
    found = ranked(ranker, rules, names, ["a", "b"], {}, {}, 0, prior, 10)
    assert found.index.tolist() == [1, 0]
    assert found.score.tolist() == [0.5, 0.0]


def test_what_is_excluded_still_counts_for_the_scale() -> None:
    ranker, names, rules = small()
    weights = {"a": {"b": 1.0, "c": 1.0}}
    found = ranked(ranker, rules, names, ["a"], weights, {"a": 1}, 1, NO_PRIOR, 5, ["b", "a", "d"])
    assert found.index.tolist() == [2]
    assert found.score.tolist() == [0.5]
    everything = ranked(
        ranker, rules, names, ["a"], weights, {"a": 1}, 1, NO_PRIOR, 5, ["a", "b", "c"]
    )
    assert everything.index.tolist() == []
    nothing = ranked(ranker, rules, names, ["a"], weights, {"a": 1}, 1, NO_PRIOR, 5, [])
    assert nothing.index.tolist() == [1, 2, 0]


def test_an_item_beyond_the_array_makes_it_grow() -> None:
    ranker, _, _ = small()
    items = session_items(np.array([77], np.uint64), 1, 15)
    far = neighbours(np.array([5, 1_000_000]), np.array([1.0, 3.0]), 1)
    found = asked(ranker, items, np.array([9]), {9: (far, 1)}, Knowledge(1, 0, NO_PRIOR), 2)
    assert found.index.tolist() == [1_000_000, 5]
    assert found.score.tolist() == [0.75, 0.25]


@settings(max_examples=100, deadline=None)
@given(
    events=st.lists(st.integers(100, 112), max_size=60),
    most=st.integers(1, 30),
)
def test_a_session_is_its_latest_distinct_items(events: list[int], most: int) -> None:
    found = session_items(np.array(events, np.uint64), len(events), most)
    wanted = oracle.latest_distinct([str(e) for e in events], most)
    columns = (found.item.tolist(), found.distance.tolist(), found.times.tolist())
    assert [(str(i), d, t) for i, d, t in zip(*columns, strict=True)] == wanted
    assert found.length == len(events)


def test_the_prior_of_a_cell_nobody_met_is_small() -> None:
    opportunities, hits = np.zeros(CELLS), np.zeros(CELLS)
    opportunities[7], hits[7] = 9, 4
    prior = repeat_prior(opportunities, hits)
    assert prior[7] == pytest.approx(4.02 / 10)
    assert np.delete(prior, 7).tolist() == [0.02] * (CELLS - 1)
