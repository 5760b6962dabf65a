"""Intervals and verdicts: against slow oracles, and over a hundred simulated experiments."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.experiment_report import report, reports
from serving.proportions import difference, quantile, users_needed, wilson
from store.attribution import VariantCounts

Z = quantile(0.95)
SEEDS = range(100)
COVERED = 93
USERS = 400
CLICKS = {"control": 0.12, "other": 0.17}
PURCHASES = {"control": 0.02, "other": 0.03}


def score(k: int, n: int, p: float) -> float:
    """How many standard errors, as p has them, the share lies from p."""
    return (k / n - p) / math.sqrt(p * (1 - p) / n)


def slow_wilson(k: int, n: int, z: float) -> tuple[float, float]:
    """Wilson's interval holds the shares that k of n does not speak against: looked for by halving
    between what was seen and the end.
    """

    def edge(outside: float, inside: float) -> float:
        for _ in range(200):
            middle = (outside + inside) / 2
            if 0 < middle < 1 and abs(score(k, n, middle)) <= z:
                inside = middle
            else:
                outside = middle
        return inside

    seen = k / n
    low = edge(0.0, seen if k else 1e-300) if k else 0.0
    high = edge(1.0, seen) if k < n else 1.0
    return low, high


@st.composite
def seen(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, 100_000))
    return draw(st.integers(0, n)), n


@given(seen(), st.sampled_from([0.8, 0.95, 0.999]))
def test_wilson_is_what_is_not_spoken_against(one: tuple[int, int], confidence: float) -> None:
    z = quantile(confidence)
    assert wilson(*one, z) == pytest.approx(slow_wilson(*one, z), abs=1e-9)


@given(seen(), seen())
def test_newcombe_is_put_together_of_both(one: tuple[int, int], two: tuple[int, int]) -> None:
    (k1, n1), (k2, n2) = one, two
    (l1, u1), (l2, u2) = slow_wilson(k1, n1, Z), slow_wilson(k2, n2, Z)
    p1, p2 = k1 / n1, k2 / n2
    low = p2 - p1 - math.sqrt((p2 - l2) ** 2 + (u1 - p1) ** 2)
    high = p2 - p1 + math.sqrt((u2 - p2) ** 2 + (p1 - l1) ** 2)
    assert difference(k1, n1, k2, n2, Z) == pytest.approx((low, high), abs=1e-7)
    assert difference(k2, n2, k1, n1, Z) == pytest.approx((-high, -low), abs=1e-7)


def test_figures_of_the_papers() -> None:
    """Newcombe 1998, table II, method 10: 56/70 and 48/80; 9/10 and 3/10; 10/10 and 0/20."""
    assert difference(48, 80, 56, 70, Z) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference(3, 10, 9, 10, Z) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert difference(0, 20, 10, 10, Z) == pytest.approx((0.6791, 1.0), abs=5e-5)
    assert wilson(0, 0, Z) == (0, 1)
    assert difference(0, 0, 3, 5, Z) == (-1, 1)


def test_so_many_users_find_it_in_four_of_five() -> None:
    chance = random.Random(7)
    p, q = 0.10, 0.15
    n = users_needed(p, q, Z)
    assert n == 686  # Fleiss 1981, without the correction
    found = 0
    for _ in range(400):
        k1 = sum(chance.random() < p for _ in range(n))
        k2 = sum(chance.random() < q for _ in range(n))
        found += difference(k1, n, k2, n, Z)[0] > 0
    assert 0.74 < found / 400 < 0.86


def simulate(seed: int) -> dict[str, VariantCounts]:
    """Users come, are drawn by lot, and do what they would do."""
    chance = random.Random(seed)
    found = {name: VariantCounts() for name in CLICKS}
    for _ in range(USERS * len(CLICKS)):
        name = chance.choice(list(CLICKS))
        one = found[name]
        one.users += 1
        one.answers += chance.randrange(1, 5)
        one.clickers += chance.random() < CLICKS[name]
        one.buyers += chance.random() < PURCHASES[name]
    return found


def test_intervals_hold_the_truth() -> None:
    covered = {"clicks": 0, "purchases": 0, "rate": 0}
    for seed in SEEDS:
        found = report("x", "running", {"control": 1, "other": 1}, simulate(seed), lift=0.1)
        first, other = found.variants
        assert other.click_through_compared is not None
        assert other.conversion_compared is not None
        for what, one, truth in (
            ("clicks", other.click_through_compared, CLICKS["other"] - CLICKS["control"]),
            ("purchases", other.conversion_compared, PURCHASES["other"] - PURCHASES["control"]),
            ("rate", first.click_through, CLICKS["control"]),
        ):
            covered[what] += one.low <= truth <= one.high
    print(f"seeds {SEEDS}: {covered}")
    assert min(covered.values()) >= COVERED


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(0, 60), st.integers(2, 5))
def test_a_report_is_sound(seed: int, users: int, variants: int) -> None:
    chance = random.Random(seed)
    counts = {}
    for number in range(variants):
        n = chance.randrange(users + 1)
        k, b = chance.randint(0, n), chance.randint(0, n)
        counts[f"v{number}"] = VariantCounts(n, 3 * n, 2 * k, b, k, b)
    found = report("x", "running", dict.fromkeys(counts, 1.0), counts, lift=0.1)
    for row in found.variants:
        for share in (row.click_through, row.conversion):
            assert 0 <= share.low <= (share.rate or 0) <= share.high or share.rate is None
            assert (share.rate is None) == (row.users == 0)
        for one in (row.click_through_compared, row.conversion_compared):
            if one is not None and one.difference is not None:
                assert -1 <= one.low <= one.difference <= one.high <= 1
                assert (one.word == "better") == (one.low > 0)
                assert (one.word == "worse") == (one.high < 0)
    assert found.verdict


def verdict(first: VariantCounts, second: VariantCounts) -> str:
    known = {"A": first, "B": second}
    return report("x", "running", {"A": 1, "B": 1}, known, lift=0.1).verdict


def test_verdicts_are_plain() -> None:
    nothing = VariantCounts()
    assert verdict(nothing, nothing) == "Nobody was shown anything yet."
    few = VariantCounts(100, 200, 12, 2, 11, 2)
    said = verdict(few, VariantCounts(100, 200, 13, 2, 12, 2))
    needed = users_needed(0.11, 0.121, Z)
    assert f"Clicks: no difference between B and A seen yet; about {needed - 100:,} more" in said
    many = VariantCounts(20_000, 50_000, 2_100, 400, 2_000, 400)
    better = VariantCounts(20_000, 50_000, 2_600, 400, 2_460, 400)
    assert "Clicks: B is better than A by 1.7 to 2.9 points." in verdict(many, better)
    assert "Clicks: B is worse than A by 1.7 to 2.9 points." in verdict(better, many)
    assert "Clicks: no difference between B and A; one as large" in verdict(many, many)
    said = verdict(VariantCounts(50, 60), VariantCounts(40, 60))
    assert "Purchases: no difference between B and A seen yet; nothing happened so far." in said
    said = verdict(few, nothing)
    assert "Clicks: B and A cannot be compared yet; one of them has no users." in said
    alone = report("x", "removed", {}, {"A": few}, lift=0.1)
    assert alone.verdict == "There is only one variant: nothing to compare."


def test_what_the_file_does_not_have_any_more_is_told_too() -> None:
    found = reports({}, {"old": {"b": VariantCounts(1, 1), "a": VariantCounts(2, 3)}}, 0.1)
    [one] = found
    assert (one.experiment, one.state, one.share) == ("old", "removed", None)
    assert [(row.variant, row.weight, row.users) for row in one.variants] == [
        ("a", None, 2),
        ("b", None, 1),
    ]
