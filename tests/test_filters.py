"""Filters against a slow reading of what they say, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import BadInput
from serving.filters import MOST_CONDITIONS, MOST_DEPTH, MOST_VALUES, filter_of

NAMES = ["category", "price", "new", "tags", "item_id"]
TEXTS, NUMBERS = ["a", "b", "1", ""], [0.0, 1.0, 2.5, -3.0]
scalars = st.one_of(st.sampled_from(TEXTS), st.sampled_from(NUMBERS), st.booleans(), st.just(1))
conditions = st.fixed_dictionaries(
    {},
    optional={
        "eq": scalars,
        "ne": scalars,
        "in": st.lists(scalars, max_size=3),
        "lt": st.sampled_from(NUMBERS),
        "lte": st.sampled_from(NUMBERS),
        "gt": st.sampled_from(NUMBERS),
        "gte": st.sampled_from(NUMBERS),
        "exists": st.booleans(),
    },
).filter(bool)
members = st.dictionaries(st.sampled_from(NAMES), st.one_of(scalars, conditions), max_size=3)
filters = st.recursive(
    members,
    lambda inner: st.one_of(
        st.tuples(members, st.fixed_dictionaries({}, optional={"not": inner})).map(
            lambda two: {**two[0], **two[1]}
        ),
        st.fixed_dictionaries({"and": st.lists(inner, max_size=2)}),
        st.fixed_dictionaries({"or": st.lists(inner, max_size=2)}),
    ),
    max_leaves=6,
)
items = st.dictionaries(
    st.sampled_from(NAMES),
    st.one_of(scalars, st.none(), st.lists(st.sampled_from(TEXTS), max_size=3)),
)


def same(a: object, b: object) -> bool:
    """Equal, and of one kind: texts, numbers, or truth."""

    def kind(value: object) -> str:
        if isinstance(value, bool):
            return "truth"
        return "text" if isinstance(value, str) else "number"

    return kind(a) == kind(b) and a == b


def meets(value: Any, condition: str, wanted: Any) -> bool:
    some = [] if value is None else value if isinstance(value, list) else [value]
    numbers = [v for v in some if kind_is_number(v) and not isinstance(value, list)]
    match condition:
        case "eq":
            return any(same(v, wanted) for v in some)
        case "ne":
            return not any(same(v, wanted) for v in some)
        case "in":
            return any(same(v, one) for v in some for one in wanted)
        case "exists":
            return (value is not None) is wanted
        case "lt":
            return any(v < wanted for v in numbers)
        case "lte":
            return any(v <= wanted for v in numbers)
        case "gt":
            return any(v > wanted for v in numbers)
    return bool([v for v in numbers if v >= wanted])


def kind_is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def holds(filter_: dict[str, Any], item: dict[str, Any]) -> bool:
    for name, wanted in filter_.items():
        if name == "not":
            fine = not holds(wanted, item)
        elif name == "and":
            fine = all([holds(one, item) for one in wanted])
        elif name == "or":
            fine = any([holds(one, item) for one in wanted])
        elif isinstance(wanted, dict):
            fine = all([meets(item.get(name), *one) for one in wanted.items()])
        else:
            fine = meets(item.get(name), "eq", wanted)
        if not fine:
            return False
    return True


@settings(max_examples=1500, deadline=None, print_blob=True)
@given(wanted=filters, item=items)
def test_a_filter_means_what_it_says(wanted: dict[str, Any], item: dict[str, Any]) -> None:
    assert filter_of(wanted).fits(item) is holds(wanted, item)


def test_filters_that_say_the_same_are_one() -> None:
    one, other = filter_of({"a": {"lt": 1}}), filter_of({"a": {"lt": 1}})
    assert one == other
    assert hash(one) == hash(other)
    # To Python, these are equal.
    assert filter_of({"a": 1}) != filter_of({"a": True})


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"a": 1}
    for _ in range(depth - 1):
        found = {"not": found}
    return found


@pytest.mark.parametrize(
    ("wanted", "field", "said"),
    [
        ([], "filter", "must be an object"),
        ({"a": None}, "filter.a", "must be a text"),
        ({"a": [1]}, "filter.a", "must be a text"),
        ({"a": {}}, "filter.a", "has no condition"),
        ({"a": {"near": 1}}, "filter.a.near", "unknown condition"),
        ({"a": {"lt": "5"}}, "filter.a.lt", "must be a number"),
        ({"a": {"gte": True}}, "filter.a.gte", "must be a number"),
        ({"a": {"lt": float("inf")}}, "filter.a.lt", "must be a number"),
        ({"a": {"gt": 10**400}}, "filter.a.gt", "too large"),
        ({"a": {"in": "b"}}, "filter.a.in", "must be an array"),
        ({"a": {"in": [1, {}]}}, "filter.a.in[1]", "must be a text"),
        ({"a": {"in": list(range(MOST_VALUES + 1))}}, "filter.a.in", "more than"),
        ({"a": {"exists": 1}}, "filter.a.exists", "true or false"),
        ({"a": "x" * 513}, "filter.a", "more than 512"),
        ({"not": 1}, "filter.not", "must be an object"),
        ({"or": {}}, "filter.or", "array of filters"),
        ({"and": [{}, {"a": {"lt": []}}]}, "filter.and[1].a.lt", "must be a number"),
        ({f"a{n}": 1 for n in range(MOST_CONDITIONS + 1)}, "filter.a64", "more than"),
        ({"and": [{}] * MOST_CONDITIONS}, "filter.and[63]", "more than"),
        (nested(MOST_DEPTH + 1), "filter" + ".not" * MOST_DEPTH, "nested deeper"),
    ],
)
def test_what_breaks_a_rule_is_named(wanted: Any, field: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        filter_of(wanted)
    assert caught.value.field == field


def test_the_largest_filters_are_allowed() -> None:
    assert filter_of(nested(MOST_DEPTH)).fits({"a": 1}) is False
    assert filter_of({"a": {"in": list(range(MOST_VALUES))}}).fits({"a": 999})
    assert filter_of({}).fits({})
