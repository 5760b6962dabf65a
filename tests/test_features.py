"""Candidates, features and the model against `tests/ranking_oracle.py`, on random shops.

Each example is one integer seed.
"""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serving.features import CANDIDATE_FEATURES, SESSION_FEATURES
from serving.model import PARAMETERS, Model, untaught
from serving.rank import Asked, Ranker, ranked, ranked_all
from tests.ranking_oracle import (
    Ids,
    Network,
    Told,
    World,
    asked_of,
    batch_of,
    chosen_of,
    features_of,
    random_parameters,
    random_session,
    random_world,
    session_features_of,
    told_of,
)

seeds = st.integers(0, 2**32)


def any_world(random: Random, *, ties: bool = False) -> World:
    """Shops of all sizes, under all kinds of settings."""
    return random_world(
        random,
        random.choice([2, 5, 12, 60, 180]),
        ties=ties,
        session_items=random.choice([1, 2, 15, 30]),
        backward=random.choice([0.25, 0.5, 1.0]),
        distance_decay=random.choice([0.3, 0.6, 1.0]),
        count_power=random.choice([0.5, 1.0]),
        idf_power=random.choice([0.0, 1.0, 3.0]),
        # With ties, whom to look through would be anybody's choice.
        widen_below=0 if ties else random.choice([0, 20, 50, 100]),
        widen_by=random.choice([1, 3, 10, 50]),
    )


def check_choice(
    told: Told,
    asked: Asked,
    ids: Ids,
    excluded: list[str] | None,
    worth: dict[str, float] | None = None,
) -> list[str]:
    """The candidates are the oracle's, in its order, with its scores. Returns their names."""
    query = asked.query
    chosen = ids.names(query.index)
    wanted = chosen_of(told, excluded or [], ids.index, worth)
    assert len(chosen) == len(set(chosen)) == len(wanted)
    scores = [told.score(c) for c in wanted]
    assert query.rule.tolist() == pytest.approx(scores, rel=1e-4, abs=1e-14)
    direct = [place for place, c in enumerate(wanted) if c not in told.indirect]
    assert query.rule[direct].tolist() == pytest.approx([scores[p] for p in direct], abs=1e-11)
    # Scores that differ by rounding alone may stand either way round; equal ones go by their ints.
    assert [told.score(c) for c in chosen] == pytest.approx(scores, rel=1e-9, abs=1e-15)
    rows = list(zip(query.rule.tolist(), query.index.tolist(), strict=True))
    assert rows == sorted(rows, key=lambda row: (-row[0], row[1]))
    assert asked.candidates.index[query.where].tolist() == query.index.tolist()
    return chosen


@settings(max_examples=150, deadline=None, print_blob=True)
@given(seed=seeds)
def test_the_candidates_are_those_of_the_formula(seed: int) -> None:
    random = Random(seed)
    world = any_world(random, ties=random.random() < 0.4)
    ids = Ids(random, world.items)
    ranker = Ranker(world.rules)
    for _ in range(3):  # one ranker after another session: nothing may be left behind
        session = random_session(random, world)
        excluded = None
        if random.random() < 0.5:
            excluded = random.sample(world.items, random.randint(0, len(world.items)))
        told = told_of(world, session)
        assume(not told.doubtful)
        asked = asked_of(ranker, world, ids, session, excluded, weighed=False)
        check_choice(told, asked, ids, excluded)
        assert set(ids.names(asked.candidates.index)) == set(told.votes)
        assert asked.candidates.indirect == len(told.indirect)
        assert (asked.candidates.two_steps is None) == (told.two_steps is None)
        assert asked.model is None
        assert asked.query.x.size == asked.query.q.size == 0


def any_worth(random: Random, world: World) -> dict[str, float]:
    """Some items may not be shown, and some count for more or less."""
    boosts = random.choice([[1.0], [1.0, 0.25, 3.0]])
    hidden = random.choice([0.0, 0.1, 0.6, 1.0])
    return {
        item: 0.0 if random.random() < hidden else random.choice(boosts) for item in world.items
    }


@settings(max_examples=150, deadline=None, print_blob=True)
@given(seed=seeds)
def test_what_is_judged_is_chosen_by_its_worth(seed: int) -> None:
    random = Random(seed)
    world = any_world(random)
    ids = Ids(random, world.items)
    sessions = [random_session(random, world) for _ in range(3)]
    worths = [any_worth(random, world) for _ in sessions]
    out = [random.sample(world.items, len(world.items) // 5) for _ in sessions]
    model = Model.of(random_parameters(random, PARAMETERS)) if seed % 2 else None
    batch = batch_of(
        Ranker(world.rules),
        world,
        ids,
        sessions,
        out,
        weighed=model is not None,
        model=model,
        worths=worths,
    )
    for slot, (session, worth, excluded) in enumerate(zip(sessions, worths, out, strict=True)):
        told = told_of(world, session, worth)
        assume(not told.doubtful)
        asked = batch.of(slot)
        # Boosted scores that differ by rounding alone may fall either way at the cut.
        assume(len(told.votes) <= 100)
        chosen = check_choice(told, asked, ids, excluded, worth)
        assert asked.query.boost.tolist() == [worth[item] for item in chosen]
        if not chosen:
            continue
        # Boosts multiply what the rule, or the learned ranking, gives.
        found = ranked(asked.query, model, 5)
        score = asked.query.rule if model is None else model.chances(asked.query)
        boosted = [value * worth[item] for value, item in zip(score, chosen, strict=True)]
        order = sorted(range(len(chosen)), key=lambda at: (-boosted[at], ids.index[chosen[at]]))
        assert ids.names(found.index) == [chosen[at] for at in order[:5]]
        assert found.score.tolist() == pytest.approx([boosted[at] for at in order[:5]], rel=1e-12)


def test_more_boosted_candidates_than_are_weighed() -> None:
    random = Random(6)
    world = random_world(random, 180)
    ids = Ids(random, world.items)
    session = sorted(world.forward, key=lambda item: -len(world.forward[item]))[:3]
    told = told_of(world, session)
    plain = chosen_of(told, [], ids.index)
    passed_over = next(c for c in told.votes if c not in plain and told.score(c) > 0)
    worth = {passed_over: 1e9, plain[0]: 0.0, plain[1]: 1e-9}
    asked = asked_of(Ranker(world.rules), world, ids, session, weighed=False, worth=worth)
    chosen = ids.names(asked.query.index)
    assert passed_over in chosen
    assert plain[0] not in chosen
    assert chosen == chosen_of(told_of(world, session, worth), [], ids.index, worth)
    assert ids.names(ranked(asked.query, None, 1).index) == [passed_over]


def chain(widen_below: int) -> World:
    """a leads to b, b to a, b and c, c to d."""
    base = random_world(Random(0), 0, widen_below=widen_below)
    return dataclasses.replace(
        base,
        items=list("abcd"),
        forward={"a": {"b": 4.0}, "b": {"a": 1.0, "b": 2.0, "c": 3.0}, "c": {"d": 9.0}},
        backward={"a": {"b": 0.0}, "b": {"a": 0.0, "b": 0.0, "c": 2.0}, "c": {"d": 0.0}},
        sessions_with={"a": 2},
        sessions=2,
        prior=dict.fromkeys(base.prior, 0.25),
    )


def test_two_steps_by_hand() -> None:
    world = chain(widen_below=3)
    ids = Ids(Random(1), world.items)
    asked = asked_of(Ranker(world.rules), world, ids, ["a"])
    # Through b alone, as a is in the session; b's list says 1 : 2 : 4 for a, b and c. The session's
    # own items count among the candidates: there are two of them, fewer than three.
    assert ids.names(asked.query.index) == ["b", "a", "c"]
    assert asked.query.rule.tolist() == pytest.approx([1.0, 0.25, 1e-6 * 4 / 7], rel=1e-6)
    assert asked.candidates.two_steps is not None
    shares = dict(
        zip(ids.names(asked.candidates.index), asked.candidates.two_steps.tolist(), strict=True)
    )
    assert shares == pytest.approx({"a": 1 / 7, "b": 2 / 7, "c": 4 / 7}, rel=1e-6)
    enough = chain(widen_below=2)
    asked = asked_of(Ranker(enough.rules), enough, ids, ["a"])
    assert ids.names(asked.query.index) == ["b", "a"]
    assert asked.candidates.two_steps is None


@settings(max_examples=150, deadline=None, print_blob=True)
@given(seed=seeds)
def test_the_features_are_those_that_their_names_say(seed: int) -> None:
    random = Random(seed)
    world = any_world(random)
    ids = Ids(random, world.items)
    session = random_session(random, world)
    excluded = random.sample(world.items, len(world.items) // 4) if random.random() < 0.3 else None
    told = told_of(world, session)
    assume(not told.doubtful)
    asked = asked_of(Ranker(world.rules), world, ids, session, excluded)
    chosen = check_choice(told, asked, ids, excluded)
    query = asked.query
    if not chosen:
        assert query.x.size == 0
        return
    assert query.x.shape == (len(CANDIDATE_FEATURES), len(chosen))
    assert query.q.shape == (len(SESSION_FEATURES),)
    wanted = features_of(world, told, chosen)
    for row, name in enumerate(CANDIDATE_FEATURES):
        assert query.x[row].tolist() == pytest.approx([one[name] for one in wanted], abs=1e-4), name
    shared = session_features_of(world, told, chosen)
    assert dict(zip(SESSION_FEATURES, query.q.tolist(), strict=True)) == pytest.approx(
        shared, abs=1e-4
    )
    assert query.base.tolist() == pytest.approx(
        [math.log(told.score(c) + 1e-5) for c in chosen], abs=1e-4
    )


def test_more_candidates_than_are_weighed() -> None:
    random = Random(5)
    world = random_world(random, 180)
    ids = Ids(random, world.items)
    session = sorted(world.forward, key=lambda item: -len(world.forward[item]))[:3]
    told = told_of(world, session)
    assert len(told.votes) > 100
    asked = asked_of(Ranker(world.rules), world, ids, session)
    assert asked.query.x.shape[1] == 100
    assert ids.names(asked.query.index) == chosen_of(told, [], ids.index)


@settings(max_examples=60, deadline=None, print_blob=True)
@given(seed=seeds)
def test_sessions_are_ranked_together_as_each_by_itself(seed: int) -> None:
    random = Random(seed)
    world = any_world(random)
    ids = Ids(random, world.items)
    sessions = [random_session(random, world) for _ in range(random.choice([2, 5, 20]))]
    out = [
        random.sample(world.items, len(world.items) // 4) if random.random() < 0.3 else None
        for _ in sessions
    ]
    model = Model.of(random_parameters(random, PARAMETERS)) if seed % 2 else None
    ids.keep_order()
    together = batch_of(
        Ranker(world.rules), world, ids, sessions, out, weighed=model is not None, model=model
    )
    counts, index, score = ranked_all(together, 7)
    for slot, (session, excluded) in enumerate(zip(sessions, out, strict=True)):
        alone = asked_of(
            Ranker(world.rules),
            world,
            ids,
            session,
            excluded,
            weighed=model is not None,
            model=model,
        )
        one = together.of(slot)
        assert one.candidates.index.tolist() == alone.candidates.index.tolist()
        assert one.candidates.indirect == alone.candidates.indirect
        assert one.candidates.place.tolist() == alone.candidates.place.tolist()
        for name in ("where", "index"):
            told = getattr(one.query, name), getattr(alone.query, name)
            assert told[0].tolist() == told[1].tolist(), name
        for name in ("rule", "base", "x", "q"):
            told = getattr(one.query, name), getattr(alone.query, name)
            assert told[0] == pytest.approx(told[1], rel=1e-5, abs=1e-5), name
        best = ranked(alone.query, model, 7)
        count = min(7, len(alone.query.index))
        assert len(best.index) == count == counts[slot]
        assert score[slot, :count].tolist() == pytest.approx(best.score.tolist(), rel=1e-4)
        chances = dict(zip(index[slot, :count].tolist(), score[slot, :count].tolist(), strict=True))
        known = dict(zip(best.index.tolist(), best.score.tolist(), strict=True))
        # Scores that differ by rounding alone may stand either way round.
        assert all(
            chance == pytest.approx(known.get(one, best.score[-1]), rel=1e-4)
            for one, chance in chances.items()
        )


@settings(max_examples=60, deadline=None, print_blob=True)
@given(seed=seeds)
def test_an_untaught_model_ranks_as_the_rule(seed: int) -> None:
    random = Random(seed)
    world = any_world(random)
    ids = Ids(random, world.items)
    model = Model.of(untaught())
    asked = asked_of(Ranker(world.rules), world, ids, random_session(random, world), model=model)
    assert asked.model is model
    learned = ranked(asked.query, model, 1000)
    rule = dict(zip(asked.query.index.tolist(), asked.query.rule.tolist(), strict=True))
    told = [rule[index] for index in learned.index.tolist()]
    # The chance is that of (rule + 10⁻⁵), kept as float32: nearer scores than that are a tie.
    assert all(a + 1e-5 >= (b + 1e-5) * (1 - 1e-5) for a, b in pairwise(told))
    whole = sum(score + 1e-5 for score in told)
    assert learned.score.tolist() == pytest.approx([(s + 1e-5) / whole for s in told], rel=1e-4)


@settings(max_examples=40, deadline=None, print_blob=True)
@given(seed=seeds)
def test_the_chances_are_those_of_the_network(seed: int) -> None:
    random = Random(seed)
    world = any_world(random)
    ids = Ids(random, world.items)
    parameters = random_parameters(random, PARAMETERS)
    model = Model.of(parameters)
    asked = asked_of(Ranker(world.rules), world, ids, random_session(random, world), model=model)
    query = asked.query
    network = Network.of(parameters.tolist())
    wanted = network.chances(query.rule.tolist(), query.x.T.tolist(), query.q.tolist())
    chances = model.chances(query)
    assert chances.tolist() == pytest.approx(wanted, rel=2e-3, abs=1e-9)
    assert chances.sum() == pytest.approx(1, abs=1e-12)
    n = random.choice([1, 3, 100])
    found = ranked(query, model, n)
    order = sorted(range(len(chances)), key=lambda at: (-chances[at], query.index[at]))[:n]
    assert found.index.tolist() == query.index[order].tolist()
    assert found.score.tolist() == chances[order].tolist()
    by_rule = ranked(query, None, n)
    assert by_rule.index.tolist() == query.index[:n].tolist()
    assert by_rule.score.tolist() == query.rule[:n].tolist()


@settings(max_examples=60, deadline=None, print_blob=True)
@given(seed=seeds)
def test_names_and_the_order_of_lists_say_nothing(seed: int) -> None:
    random = Random(seed)
    world = any_world(random)
    session = random_session(random, world)
    assume(not told_of(world, session).doubtful)
    model = Model.of(random_parameters(random, PARAMETERS))
    answers = []
    for _ in range(2):
        ids = Ids(random, world.items)
        asked = asked_of(Ranker(world.rules), world, ids, session, model=model)
        query = asked.query
        # Of too many that score 0, the ints choose who is weighed at all.
        assume(len(asked.candidates.index) <= 100 or query.rule[-1] > 0)
        # What scores 0 by the rule stands in the order of the ints, and has no rank of its own.
        names = [n for n, rule in zip(ids.names(query.index), query.rule, strict=True) if rule]
        answers.append((names, query.x[:, : len(names)], query.q, len(query.index)))
    (names, x, q, m), (names_again, x_again, q_again, m_again) = answers
    assert (names, m) == (names_again, m_again)
    np.testing.assert_allclose(x, x_again, atol=1e-4)
    np.testing.assert_allclose(q, q_again, atol=1e-4)


def scaled(counts: dict[str, dict[str, float]], factor: float) -> dict[str, dict[str, float]]:
    """All counts times `factor`."""
    return {
        item: {one: factor * count for one, count in near.items()} for item, near in counts.items()
    }


@settings(max_examples=60, deadline=None, print_blob=True)
@given(seed=seeds, factor=st.sampled_from([0.125, 8.0]))
def test_the_scale_of_the_counts_says_nothing_to_the_rule(seed: int, factor: float) -> None:
    random = Random(seed)
    world = any_world(random, ties=True)
    session = random_session(random, world)
    ids = Ids(random, world.items)
    larger = dataclasses.replace(
        world, forward=scaled(world.forward, factor), backward=scaled(world.backward, factor)
    )
    scores = []
    for one in (world, larger):
        query = asked_of(Ranker(one.rules), one, ids, session, weighed=False).query
        scores.append(dict(zip(query.index.tolist(), query.rule.tolist(), strict=True)))
    if len(scores[0]) < 100:  # else ties may fall either way at the cut
        assert scores[0] == pytest.approx(scores[1], abs=1e-12)
