"""Explanations against the parts of the rule, on random shops (one integer seed each)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serving.explain import Explanation, explain, of_trending
from serving.model import PARAMETERS, Model
from serving.rank import Asked, Ranker, ranked
from tests.ranking_oracle import (
    Ids,
    Told,
    World,
    asked_of,
    random_parameters,
    random_session,
    random_world,
    told_of,
)

seeds = st.integers(0, 2**32)


def check(why: Explanation, told: Told, name: str, ids: Ids) -> None:
    """Who contributed what is what the oracle says."""
    assert [ids.of_hash[item] for item in why.item.tolist()] == [item for item, _, _ in told.own]
    parts = [told.votes[name].get(item, 0.0) for item, _, _ in told.own]
    assert why.co_occurrence.tolist() == pytest.approx(
        parts, rel=1e-4, abs=1e-14 if name in told.indirect else 1e-11
    )
    repeats = [told.prior[item] if item == name else 0.0 for item, _, _ in told.own]
    assert why.repeat.tolist() == repeats
    if any(parts) or any(repeats):
        assert why.trending == 0


def explained(world: World, ids: Ids, asked: Asked, n: int) -> list[tuple[str, float, Explanation]]:
    """Names, scores and explanations of the n best as they are served."""
    found = ranked(asked.query, asked.model, n)
    why = explain(Ranker(world.rules), asked, found.index, found.score)
    return list(zip(ids.names(found.index), found.score.tolist(), why, strict=True))


def sums_to(why: Explanation) -> float:
    """The score that an explanation tells."""
    return float(why.factor * (why.co_occurrence + why.repeat).sum() + why.trending)


@settings(max_examples=150, deadline=None, print_blob=True)
@given(seed=seeds)
def test_an_explanation_is_what_the_session_contributes(seed: int) -> None:
    random = Random(seed)
    world = random_world(
        random,
        random.choice([2, 5, 12, 60, 180]),
        session_items=random.choice([1, 3, 15, 30]),
        backward=random.choice([0.25, 1.0]),
        widen_below=random.choice([0, 50, 100]),
        widen_by=random.choice([1, 10, 50]),
    )
    ids = Ids(random, world.items)
    session = random_session(random, world)
    excluded = random.sample(world.items, len(world.items) // 4) if random.random() < 0.3 else None
    told = told_of(world, session)
    assume(not told.doubtful)
    model = Model.of(random_parameters(random, PARAMETERS)) if random.random() < 0.5 else None
    asked = asked_of(
        Ranker(world.rules), world, ids, session, excluded, weighed=model is not None, model=model
    )
    rows = explained(world, ids, asked, random.choice([1, 20, 100]))
    for name, score, why in rows:
        check(why, told, name, ids)
        rule = told.score(name)
        if rule:  # the model's chance of what the rule gives nothing has no parts to tell
            assert sums_to(why) == pytest.approx(score, rel=1e-9, abs=1e-15)
            assert why.factor == pytest.approx(score / rule, rel=1e-4)
        if model is None and rule:
            assert why.factor == 1


def shown(told: Told, rows: Sequence[tuple[str, float, Explanation]]) -> set[str]:
    """Which kinds of candidates were explained."""
    own = {item for item, _, _ in told.own}
    return {
        "indirect" if name in told.indirect else "own" if name in own else "direct"
        for name, _, _ in rows
    }


@pytest.mark.parametrize("learned", [False, True])
def test_all_kinds_of_candidates_are_explained(learned: bool) -> None:
    random = Random(11)
    world = random_world(random, 60, backward=0.5, widen_below=100, widen_by=3)
    ids = Ids(random, world.items)
    model = Model.of(random_parameters(random, PARAMETERS)) if learned else None
    some = sorted(world.forward, key=lambda item: len(world.forward[item]))
    session = [
        item for item in some if 2 < len(world.forward[item]) and item in world.sessions_with
    ]
    told = told_of(world, session[:3])
    asked = asked_of(Ranker(world.rules), world, ids, session[:3], weighed=learned, model=model)
    rows = explained(world, ids, asked, 100)
    assert shown(told, rows) == {"own", "direct", "indirect"}
    for name, score, why in rows:
        check(why, told, name, ids)
        assert sums_to(why) == pytest.approx(score, rel=1e-9, abs=1e-15)


def test_what_is_only_trending_says_so() -> None:
    whys = of_trending(np.array([3.5, 1.0, 0.0]))
    assert [sums_to(why) for why in whys] == [3.5, 1.0, 0.0]
    assert [why.trending for why in whys] == [3.5, 1.0, 0.0]
    assert all(len(why.item) == len(why.co_occurrence) == len(why.repeat) == 0 for why in whys)
    assert of_trending(np.zeros(0)) == []
