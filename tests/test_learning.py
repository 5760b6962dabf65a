"""Learning: gradients and steps, who leads, samples, and how what is taught is kept.

Random examples are one integer seed each.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import astuple, fields
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from config.settings import LearnSettings
from processors.learner import Allowance, Teacher, sample, share_of
from processors.learning import BETA1, STEP, Prediction, Taught, learn, teach
from processors.standing import Standing, rank_of
from serving.candidates import Query
from serving.features import CANDIDATE_FEATURES, SESSION_FEATURES
from serving.model import PARAMETERS, Model, untaught
from serving.rank import Ranker, ranked
from store.layout import STATISTICS
from store.statistics import Statistics
from store.taught import continue_from, pack_taught, unpack_taught
from tests.ranking_oracle import (
    Adam,
    Ids,
    Network,
    asked_of,
    random_parameters,
    random_session,
    random_world,
)

seeds = st.integers(0, 2**32)

FADE = 1 - 1 / 5000


def random_query(random: Random, m: int) -> Query:
    """Candidates with any features, as float32 holds them."""
    rule = np.array(sorted((random.random() for _ in range(m)), reverse=True))
    rule /= rule.sum()
    x = [[random.gauss(0, 1) for _ in range(m)] for _ in CANDIDATE_FEATURES]
    return Query(
        np.arange(m),
        np.array(random.sample(range(1000), m), np.int64),
        rule,
        np.zeros(0),
        np.log(rule + 1e-5).astype(np.float32),
        np.array(x, np.float32),
        np.array([random.gauss(0, 1) for _ in SESSION_FEATURES], np.float32),
    )


def loss(numbers: list[float], lessons: list[tuple[Query, int]]) -> float:
    """Mean cross-entropy, by the oracle."""
    network = Network.of(numbers)
    parts = [
        network.loss(query.rule.tolist(), query.x.T.tolist(), query.q.tolist(), true)
        for query, true in lessons
    ]
    return sum(parts) / len(parts)


def smooth(numbers: list[float], lessons: list[tuple[Query, int]]) -> bool:
    """Whether no hidden unit is at the bend, where the loss has no one slope."""
    network = Network.of(numbers)
    return all(
        abs(inner) > 1e-4
        for query, _ in lessons
        for x in query.x.T.tolist()
        for inner in network.inner(x, query.q.tolist())
    )


def random_lessons(random: Random) -> list[tuple[Query, int]]:
    sizes = [random.randint(1, 6) for _ in range(random.choice([1, 2, 4]))]
    return [(random_query(random, m), random.randrange(m)) for m in sizes]


@settings(max_examples=20, deadline=None, print_blob=True)
@given(seed=seeds)
def test_the_gradient_is_the_slope_of_the_loss(seed: int) -> None:
    random = Random(seed)
    taught = Taught(random_parameters(random, PARAMETERS))
    numbers = taught.parameters.tolist()
    lessons = random_lessons(random)
    assume(smooth(numbers, lessons))
    learn(taught, lessons)
    gradient = taught.first / (1 - BETA1)
    bounds = np.cumsum([0, *(part.size for part in astuple(Model.of(gradient)))]).tolist()
    assert bounds[-1] == PARAMETERS
    # Some of each of the five parts.
    for begin, end in pairwise(bounds):
        for at in random.sample(range(begin, end), 6):
            slope = 0.0
            for sign in (1, -1):
                moved = numbers.copy()
                moved[at] += sign * 1e-5
                slope += sign * loss(moved, lessons) / 2e-5
            assert gradient[at] == pytest.approx(slope, rel=1e-3, abs=2e-6), (begin, at)


@settings(max_examples=10, deadline=None, print_blob=True)
@given(seed=seeds, before=st.sampled_from([0, 3, 48, 900, 200_000]))
def test_steps_are_adams(seed: int, before: int) -> None:
    random = Random(seed)
    taught = Taught(random_parameters(random, PARAMETERS), steps=before)
    slow = [Adam(value, steps=before) for value in taught.parameters.tolist()]
    lessons = random_lessons(random)
    for step in range(1, 6):
        first = taught.first
        kept = taught.parameters.copy()
        old = taught.parameters
        learn(taught, lessons)
        assert taught.steps == before + step
        assert (old == kept).all(), "whoever answers with the model must not see it change"
        # Six digits of a gradient: it is told apart from the running mean that holds it.
        gradient = (taught.first.astype(np.float64) - BETA1 * first) / (1 - BETA1)
        for one, slope in zip(slow, gradient.tolist(), strict=True):
            one.step(slope)
        np.testing.assert_allclose(
            taught.second, [one.second for one in slow], rtol=1e-3, atol=1e-14
        )
        moved = taught.parameters.astype(np.float64) - old
        wanted = [one.value for one in slow]
        np.testing.assert_allclose(taught.parameters, wanted, atol=2e-6)
        assert np.abs(moved).max() < 0.02
        for one, value in zip(slow, taught.parameters.tolist(), strict=True):
            one.value = value


def test_learning_from_nothing_moves_the_output_first() -> None:
    taught = Taught()
    learn(taught, [(random_query(Random(2), 5), 3)])
    before, after = Model.of(untaught()), Model.of(taught.parameters)
    assert (before.candidate == after.candidate).all()
    assert (before.session == after.session).all()
    assert (before.linear == 0).all()
    assert np.abs(after.linear).max() == pytest.approx(0.0004, rel=1e-3)
    assert (untaught() == untaught()).all()
    assert Taught().parameters.shape == Taught().first.shape == Taught().second.shape


@settings(max_examples=10, deadline=None, print_blob=True)
@given(seed=seeds)
def test_a_pattern_is_learned_and_then_served(seed: int) -> None:
    """Whatever the session, the most popular of its candidates comes next."""
    random = Random(seed)
    world = random_world(random, 60)
    ids = Ids(random, world.items)
    ranker = Ranker(world.rules)
    lessons = []
    for _ in range(80):
        query = asked_of(ranker, world, ids, random_session(random, world)).query
        popular = max(ids.names(query.index), key=lambda name: world.sessions_with.get(name, 0))
        lessons.append((query, ids.index[popular]))
    teacher = Teacher(Taught())
    ranks: list[list[Prediction]] = []
    # How soon it leads is the sample's: mostly from the second time on, once within the twelfth.
    while len(ranks) < 12 or (
        len(ranks) < 60 and any(told.served != told.learned for told in ranks[-1])
    ):
        random.shuffle(lessons)
        ranks.append([teacher.predict(query, item) for query, item in lessons])

    def worth(of: list[int]) -> float:
        return sum(1 / rank for rank in of) / len(of)

    learned = [worth([told.learned for told in again]) for again in ranks]
    by_rule = worth([told.rule for told in ranks[0]])
    assert learned[-1] > 1.5 * by_rule
    assert learned[-1] > 1.3 * learned[0]
    assert not any(told.served != told.rule for told in ranks[0][:4]), "the rule is served first"
    assert teacher.taught.leads
    assert all(told.served == told.learned for told in ranks[-1])
    # What is served is what was told.
    model = Model.of(teacher.taught.parameters)
    first = [ranked(query, model, 1).index.item() == item for query, item in lessons]
    assert sum(first) > 0.2 * len(first)


def test_one_repeated_event_raises_its_chance_at_every_step() -> None:
    query = random_query(Random(4), 30)
    taught = Taught()
    chances = []
    for _ in range(200):
        chances.append(float(Model.of(taught.parameters).chances(query)[20]))
        learn(taught, [(query, 20)])
    assert chances == sorted(chances)
    assert chances[0] == pytest.approx(query.rule[20], rel=1e-2)
    assert chances[-1] > 0.9


def test_predicting_says_who_was_right_and_teaches_in_steps() -> None:
    query = random_query(Random(3), 12)
    teacher = Teacher(Taught(steps=7))
    for n in range(1, 2 * STEP):
        told = teacher.predict(query, int(query.index[4]))
        assert told.rule == 5
        assert told.served == told.rule
        assert teacher.taught.steps == 7 + n // STEP
        assert teacher.learned == n // STEP * STEP
    assert teacher.predict(query, 5000) == Prediction(0, 0, 0)
    assert teacher.taught.steps == 8, "what is no candidate teaches nothing"
    nobody = Query(
        query.where[:0], query.index[:0], query.rule[:0], query.boost, *[query.base[:0]] * 3
    )
    assert teach(teacher.taught, nobody, 3) == (Prediction(0, 0, 0), False)
    assert teacher.taught.standing.tried == pytest.approx(2 * STEP + 1, rel=1e-2)
    teacher.finish()
    assert (teacher.taught.steps, teacher.learned) == (9, 2 * STEP - 1)
    teacher.finish()
    assert teacher.taught.steps == 9
    teacher.taught.parameters = random_parameters(Random(6), PARAMETERS)
    chances = Model.of(teacher.taught.parameters).chances(query)
    learned = sorted(chances.tolist(), reverse=True).index(chances[4]) + 1
    assert learned != 5
    assert teacher.predict(query, int(query.index[4])) == Prediction(5, learned, 5)
    teacher.taught.standing = Standing(gain=100, leads=True)
    assert teacher.predict(query, int(query.index[4])) == Prediction(5, learned, learned)


class SlowStanding:
    """All predictions kept, and summed anew each time."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.leads = False
        self.close = False
        """Whether it came to less than rounding can tell."""

    def add(self, rule: int, learned: int) -> None:
        self.told.append((rule, learned))
        _, rule_hits, _, learned_hits, _, gain, squared, changes = self.sums()
        more = learned_hits - rule_hits
        if self.leads:
            bounds = [gain, more + 2 * math.sqrt(changes)]
            self.leads = gain > 0 and more >= -2 * math.sqrt(changes)
        else:
            bounds = [gain - 2 * math.sqrt(squared), more]
            self.leads = gain > 2 * math.sqrt(squared) and more >= 0
        self.close = any(bound and abs(bound) < 1e-9 for bound in bounds)

    def sums(self) -> list[float]:
        """In the order of the fields."""
        sums = [0.0] * 8
        for age, (rule, learned) in enumerate(reversed(self.told)):
            hits = [float(1 <= rank <= 20) for rank in (rule, learned)]
            worth = [
                1 / rank if hit else 0.0 for rank, hit in zip((rule, learned), hits, strict=True)
            ]
            gain = hits[1] + worth[1] - hits[0] - worth[0]
            changed = float(hits[0] != hits[1])
            one = [1.0, hits[0], worth[0], hits[1], worth[1], gain, gain**2, changed]
            sums = [total + FADE**age * part for total, part in zip(sums, one, strict=True)]
        return sums


@settings(max_examples=100, deadline=None, print_blob=True)
@given(seed=seeds)
def test_the_lead_changes_as_the_slow_way_says(seed: int) -> None:
    random = Random(seed)
    standing, slow = Standing(), SlowStanding()
    for _ in range(random.randint(1, 4)):  # phases, in which one or the other is better
        better, hit = random.choice([0, 1, 1, 5]), random.random()
        learned_is_better = random.random() < 0.6
        for _ in range(random.randint(1, 30)):
            a = random.choice([0, 1, 2, 5, 20, 21, 100]) if random.random() < hit else 0
            b = max(a - better, 1) if a else random.choice([0, 0, 20])
            ranks = (a, b) if learned_is_better else (b, a)
            standing.add(*ranks)
            slow.add(*ranks)
            assume(not slow.close)
            *sums, leads = astuple(standing)
            assert sums == pytest.approx(slow.sums(), abs=1e-9)
            assert leads == slow.leads


def test_the_lead_is_won_and_lost() -> None:
    standing = Standing()
    led = []
    for _ in range(20):
        standing.add(2, 1)
        led.append(standing.leads)
    # Of n gains of 1/2 the standard error is √n/2, twice that is below n/2 from 5 on.
    assert led == [False] * 4 + [True] * 16
    for _ in range(19):
        standing.add(1, 2)
        assert standing.leads, "it still gains something"
    for _ in range(2):
        standing.add(1, 2)
    assert not standing.leads
    standing.add(2, 1)
    assert not standing.leads, "gaining something is not enough to come back"


def test_whoever_hits_less_never_takes_the_lead() -> None:
    standing = Standing()
    standing.add(20, 0)  # one hit less
    for _ in range(300):
        standing.add(10, 1)
        assert not standing.leads
    standing.add(0, 20)
    assert standing.leads


def test_the_lead_goes_with_the_hits() -> None:
    standing = Standing()
    for _ in range(50):
        standing.add(20, 1)
    assert standing.leads
    misses = 0
    while standing.leads:
        standing.add(20, 0)
        misses += 1
        assert standing.gain > 0
    assert misses == 5  # n misses are more than 2√n from 5 on, whatever else it gains
    assert standing.learned_hits < standing.rule_hits


def test_old_predictions_fade() -> None:
    standing = Standing()
    standing.add(1, 0)
    for _ in range(5000):
        standing.add(0, 0)
    assert standing.rule_hits == pytest.approx(math.exp(-1), rel=1e-3)
    assert standing.rule_reciprocal == pytest.approx(math.exp(-1), rel=1e-3)
    assert standing.tried == pytest.approx(5000 * (1 - math.exp(-1)), rel=1e-3)


@settings(max_examples=100, deadline=None, print_blob=True)
@given(seed=seeds)
def test_a_rank_counts_whoever_scores_as_much(seed: int) -> None:
    random = Random(seed)
    scores = [random.choice([0.0, 0.25, 0.5, random.random()]) for _ in range(random.randint(1, 9))]
    at = random.randrange(len(scores))
    answer = np.arange(len(scores)) == at
    # Sums in another order differ by rounding.
    told = [score * (1 + random.choice([-1e-12, 0, 1e-12])) for score in scores]
    wanted = 1 + sum(s >= scores[at] for place, s in enumerate(scores) if place != at)
    assert rank_of(answer, np.array(told)) == wanted
    assert rank_of(np.zeros(len(scores), np.bool_), np.array(told)) == 0


@settings(max_examples=150, deadline=None, print_blob=True)
@given(
    n=st.integers(0, 3000),
    share=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.05, 1.0])),
    most=st.one_of(st.integers(0, 3000), st.just(5)),
    seed=seeds,
)
def test_a_sample_keeps_its_bounds(n: int, share: float, most: int, seed: int) -> None:
    rows = sample(n, share, most, np.random.default_rng(seed))
    again = sample(n, share, most, np.random.default_rng(seed))
    assert rows.tolist() == again.tolist()
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert all(0 <= row < n for row in rows.tolist())
    assert len(rows) <= most
    assert len(rows) == 0 or len(rows) >= min(n, STEP, most)
    if n * share >= STEP:
        assert len(rows) in (min(math.floor(n * share), most), min(math.ceil(n * share), most))
    if share == 0:
        assert len(rows) == 0
    if share == 1:
        assert len(rows) == min(n, most)


@pytest.mark.parametrize(
    ("n", "share"), [(3, 0.1), (7, 0.9), (40, 0.05), (100, 0.07), (178, 0.05), (1000, 0.0495)]
)
def test_a_sample_is_the_share_on_average_of_any_rows(n: int, share: float) -> None:
    random = np.random.default_rng(17)
    draws = 4000
    times: Counter[int] = Counter()
    for _ in range(draws):
        times.update(sample(n, share, n, random).tolist())
    least = min(n, STEP)
    # A batch's size is at most `least` off by chance: six standard errors of the mean.
    error = 6 * least / 2 / math.sqrt(draws)
    assert sum(times.values()) / draws == pytest.approx(n * share, abs=min(error, 0.1 * n * share))
    each = [times[row] / draws for row in range(n)]
    assert max(each) < share + 6 * math.sqrt(share / draws)
    assert min(each) > share - 6 * math.sqrt(share / draws)


def test_a_young_stream_is_learned_from_more() -> None:
    rules = LearnSettings(share=0.05, first_events=10_000)
    shares = [share_of(rules, events) for events in (0, 1, 10_000, 20_000, 200_000, 10**9)]
    assert shares == [1.0, 1.0, 1.0, 0.5, 0.05, 0.05]
    assert share_of(LearnSettings(share=0, first_events=10_000), 5) == 0
    assert share_of(LearnSettings(share=0.5, first_events=0), 0) == 0.5


def test_what_may_be_learned_from_is_saved_up_until_it_is_worth_a_lesson() -> None:
    at = 0.0
    allowance = Allowance(lambda: 100, lambda: at)
    assert [allowance.now(n) for n in (500, 20)] == [100, 20]
    allowance.spend(100)
    lessons = []
    for _ in range(1000):
        at += 0.01
        if events := allowance.now(40):
            allowance.spend(events)
            lessons.append(events)
    assert sum(lessons) == pytest.approx(1000, abs=40)
    assert min(lessons) >= 30


def test_few_a_second_are_not_saved_up_for_longer_than_that() -> None:
    at = 0.0
    allowance = Allowance(lambda: 2, lambda: at)
    assert allowance.now(5) == 2
    allowance.spend(2)
    at += 0.9
    assert allowance.now(5) == 0
    at += 0.1
    assert allowance.now(5) == 2
    assert Allowance(None).now(5) == 5


@settings(max_examples=30, deadline=None, print_blob=True)
@given(seed=seeds)
def test_what_is_taught_comes_back(seed: int) -> None:
    random = Random(seed)
    standing = Standing()
    for one in fields(Standing):
        setattr(standing, one.name, random.uniform(-5, 5000))
    standing.leads = random.random() < 0.5
    parts = [np.abs(random_parameters(random, PARAMETERS)) for _ in range(3)]
    parameters, first, second = parts
    taught = Taught(parameters, first, second, random.randrange(2**40), standing)
    value = pack_taught(taught)
    found = unpack_taught(value)
    assert (found.steps, found.standing, found.leads) == (taught.steps, standing, standing.leads)
    for mine, theirs in zip(parts, (found.parameters, found.first, found.second), strict=True):
        assert (mine == theirs).all()
        assert theirs.dtype == np.float32
    learn(found, [(random_query(random, 3), 1)])  # and can be taught further
    again = pack_taught(taught)
    assert again[8:] == value[8:]
    assert again[:8] != value[:8], "each lesson has a version of its own"
    lesson = continue_from(value, taught)
    assert lesson.continues == value[:8]
    assert lesson.model[8:] == value[8:]
    assert continue_from(None, taught).continues == b""


@pytest.mark.parametrize("value", [None, b"", b"x" * 100, pack_taught(Taught())[:-4]])
def test_another_value_is_as_if_nothing_were_taught(value: bytes | None) -> None:
    found = unpack_taught(value)
    assert (found.parameters == untaught()).all()
    assert not found.first.any()
    assert not found.second.any()
    assert (found.steps, found.standing) == (0, Standing())


@settings(max_examples=60, deadline=None, print_blob=True)
@given(seed=seeds)
def test_statistics_are_kept_for_a_while(seed: int) -> None:
    random = Random(seed)
    kept, slow = Statistics(), dict[int, tuple[float, float, int]]()
    until, due = dict[int, float](), dict[int, float]()
    far, rate = random.choice([0, 1, 3]), random.choice([0.0, 0.01])
    for now in range(0, 150, 5):
        # Ints grow with time, as those of new items do.
        near = [1024 * block + place for block in range(far * now // 40 + 1) for place in range(8)]
        some = random.sample(near, random.randint(0, 8))
        index = np.array(some, np.int64)
        stale, again = (part.tolist() for part in kept.look(index, float(now)))
        assert stale == [one for one in some if until.get(one, -1) < now]
        assert again == [one for one in some if one not in stale and due[one] < now]
        due.update((one, now + 1.0) for one in again)
        found = kept.of(index, now, rate)
        known = [slow.get(one, (0.0, 0.0, now)) for one in some]
        assert found[0].tolist() == [sessions for sessions, _, _ in known]
        assert found[1].tolist() == pytest.approx(
            [recent * math.exp(-rate * max(now - at, 0)) for _, recent, at in known]
        )
        read = [one for one in some if one in stale or (one in again and random.random() < 0.8)]
        rows = np.zeros(len(read), STATISTICS)
        for place, one in enumerate(read):
            # Clocks of producers differ.
            at = max(now + random.randint(-3, 3), 0)
            rows[place] = random.choice([0, 1, 99]), 5, float(random.randrange(99)), at
            row = rows[place]
            slow[one] = (float(row["sessions"]), float(row["recent"]), at)
            # An item that is in no session yet is looked for again soon.
            until[one] = now + (60.0 if row["sessions"] else 0.25)
            due[one] = now + (10.0 if row["sessions"] else math.inf)
        kept.put(np.array(read, np.int64), rows, float(now))
