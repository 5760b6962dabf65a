"""What is known of an experiment, for the API, the command and the console: shares of users with
their intervals, differences to the first variant, and a verdict in words. Pure functions.

Doc strings of classes and fields are texts of /openapi.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from config.experiments import ExperimentSettings
from serving.proportions import difference, quantile, users_needed, wilson
from store.attribution import VariantCounts

__all__ = [
    "Compared",
    "ExperimentReport",
    "Experiments",
    "Measured",
    "VariantReport",
    "report",
    "reports",
]

CONFIDENCE = 0.95
Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Signed = Annotated[float, Meta(ge=-1, le=1)]
State = Literal["running", "stopped", "removed"]
Word = Literal["better", "worse", "open", "none"]


class Measured(Struct, frozen=True, forbid_unknown_fields=True):
    """A share of a variant's users; the interval holds the true one in 95 of 100 experiments."""

    users: Count
    """Of those who were shown something, so many did it at least once."""
    rate: Share | None
    """Their share; null while nobody was shown anything."""
    low: Share
    high: Share


class Compared(Struct, frozen=True, forbid_unknown_fields=True):
    """A variant's share minus the first variant's."""

    difference: Signed | None
    low: Signed
    high: Signed
    word: Word
    """`better` or `worse`: the interval leaves zero out; `open`: too few users yet to say; `none`:
    enough of them, and no difference."""
    users_needed: Count | None
    """Users that each variant needs in all for a difference as large as the setting
    experiments.lift says; null while nothing can be said."""


class VariantReport(Struct, frozen=True, forbid_unknown_fields=True):
    """What one variant led to."""

    variant: str
    weight: float | None
    """As the file has it; null where it is not there any more."""
    users: Count
    """Users who were shown an answer of it."""
    answers: Count
    clicks: Count
    """Clicks that are attributed to its answers."""
    purchases: Count
    click_through: Measured
    """Users who clicked."""
    conversion: Measured
    """Users who bought."""
    click_through_compared: Compared | None
    """With the first variant; null for that one itself."""
    conversion_compared: Compared | None


class ExperimentReport(Struct, frozen=True, forbid_unknown_fields=True):
    """An experiment and what has come of it so far."""

    experiment: str
    state: State
    """`stopped`: by the file; `removed`: it is not in the file any more."""
    share: Share | None
    """Of the users who take part."""
    scenarios: list[str] | None
    """It is about requests that name one of these; null for all."""
    variants: list[VariantReport]
    """The one that the others are compared with comes first."""
    verdict: str
    """In words, on clicks and on purchases."""


class Experiments(Struct, frozen=True, forbid_unknown_fields=True):
    """All that are in the file, in its order, and those that were."""

    experiments: list[ExperimentReport]


def reports(
    known: Mapping[str, ExperimentSettings],
    counts: Mapping[str, Mapping[str, VariantCounts]],
    lift: float,
) -> list[ExperimentReport]:
    """Of all experiments of the file, and then of those that something was counted for."""
    found = [
        report(
            name,
            "running" if one.running else "stopped",
            {variant: its.weight for variant, its in one.variants.items()},
            counts.get(name, {}),
            lift=lift,
            share=one.share,
            scenarios=one.scenarios,
        )
        for name, one in known.items()
    ]
    removed = sorted(set(counts) - set(known))
    return found + [report(name, "removed", {}, counts[name], lift=lift) for name in removed]


def report(
    name: str,
    state: State,
    weights: Mapping[str, float],
    counts: Mapping[str, VariantCounts],
    *,
    lift: float,
    share: float | None = None,
    scenarios: list[str] | None = None,
) -> ExperimentReport:
    """What has come of one. `weights` are those of the file, the first variant first; `counts` are
    by variant, and may know of others; `lift` is the setting experiments.lift.
    """
    variants = [*weights, *sorted(set(counts) - set(weights))]
    nothing = VariantCounts()
    known = [counts.get(one, nothing) for one in variants]
    z = quantile(CONFIDENCE)
    # Each of several comparisons gets its part of the doubt.
    shared = quantile(CONFIDENCE, max(1, len(variants) - 1))
    rows = []
    for place, (variant, its) in enumerate(zip(variants, known, strict=True)):
        first = known[0]
        both = None
        if place:
            both = (
                _compared(first.clickers, first.users, its.clickers, its.users, shared, lift),
                _compared(first.buyers, first.users, its.buyers, its.users, shared, lift),
            )
        rows.append(
            VariantReport(
                variant,
                weights.get(variant),
                its.users,
                its.answers,
                its.clicks,
                its.purchases,
                _measured(its.clickers, its.users, z),
                _measured(its.buyers, its.users, z),
                both[0] if both else None,
                both[1] if both else None,
            )
        )
    return ExperimentReport(name, state, share, scenarios, rows, _verdict(rows))


def _measured(k: int, n: int, z: float) -> Measured:
    return Measured(k, k / n if n else None, *wilson(k, n, z))


def _compared(k1: int, n1: int, k2: int, n2: int, z: float, lift: float) -> Compared:
    low, high = difference(k1, n1, k2, n2, z)
    if not n1 or not n2:
        return Compared(None, low, high, "open", None)
    base = k1 / n1
    # What is to be found, up where there is room for it.
    wanted = base * (1 + lift) if base * (1 + lift) <= 1 else base * (1 - lift)
    needed = users_needed(base, wanted, z) if 0 < base else None
    word: Word = "better" if low > 0 else "worse" if high < 0 else "open"
    if word == "open" and needed is not None and min(n1, n2) >= needed:
        word = "none"
    return Compared(k2 / n2 - base, low, high, word, needed)


def _verdict(rows: Sequence[VariantReport]) -> str:
    """A sentence for each measure and each variant but the first."""
    if len(rows) < 2:
        return "There is only one variant: nothing to compare."
    if not any(row.users for row in rows):
        return "Nobody was shown anything yet."
    first = rows[0]
    said = []
    for row in rows[1:]:
        for what, one in (
            ("Clicks", row.click_through_compared),
            ("Purchases", row.conversion_compared),
        ):
            if one is not None:
                fewest = min(first.users, row.users)
                said.append(f"{what}: {_sentence(row.variant, first.variant, one, fewest)}")
    return " ".join(said)


def _sentence(variant: str, first: str, one: Compared, users: int) -> str:
    low, high = _points(abs(one.low)), _points(abs(one.high))
    if one.word == "better":
        return f"{variant} is better than {first} by {low} to {high} points."
    if one.word == "worse":
        return f"{variant} is worse than {first} by {high} to {low} points."
    if one.word == "none":
        return (
            f"no difference between {variant} and {first}; one as large as the experiment is to "
            "find would probably have shown."
        )
    if one.difference is None:
        return f"{variant} and {first} cannot be compared yet; one of them has no users."
    if one.users_needed is None:
        return f"no difference between {variant} and {first} seen yet; nothing happened so far."
    more = max(0, one.users_needed - users)
    return (
        f"no difference between {variant} and {first} seen yet; about {more:,} more users a "
        "variant are needed."
    )


def _points(share: float) -> str:
    """Percentage points, as few digits as tell something."""
    points = 100 * share
    return f"{points:.1f}" if points >= 0.1 else f"{points:.2g}"
