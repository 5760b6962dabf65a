"""Which items a request wants, by what the catalogue says of them. Pure.

    {"category": {"in": ["shoes", "bags"]}, "price": {"lt": 50}, "not": {"brand": "acme"}}

Every member of a filter must hold. A member is the name of an attribute (or `item_id`, `title`)
with what its value must be, or one of

    not: filter        and: [filter, …]        or: [filter, …]

and a value is a text, number or true/false to be equal to, or an object of conditions, of which all
must hold:

    eq, ne: value      in: [value, …]      lt, lte, gt, gte: number      exists: true or false

Of an attribute that is a list of texts, one that fits is enough for `eq` and `in`, and none may be
equal for `ne`. An item without the attribute fits `ne` and `exists: false`, and nothing else; texts
and numbers are never equal or comparable. A filter is compiled into closures once, and its size is
bounded, so that no request can make an answer slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from config.errors import BadInput
from streams.item import Attribute

__all__ = ["FILTER_SCHEMA", "MOST_BOOSTS", "Attributes", "Boost", "Filter", "filter_of"]

Attributes = Mapping[str, Attribute]
"""What the catalogue says of an item: its attributes, and `item_id` and `title` under these names.
"""
Fits = Callable[[Attributes], bool]

MOST_DEPTH, MOST_CONDITIONS, MOST_VALUES, MOST_BOOSTS = 8, 64, 1000, 16
"""Filters within filters, conditions and values of lists in one filter, and boosts of a request."""
_MOST_CHARACTERS = 512
_JOINS = ("not", "and", "or")
_ORDERED: dict[str, Callable[[float, float], bool]] = {
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
}
_OPERATORS = ("eq", "ne", "in", *_ORDERED, "exists")

_TEXT = {"type": "string", "maxLength": _MOST_CHARACTERS}
_SCALAR = {"anyOf": [_TEXT, {"type": "number"}, {"type": "boolean"}]}
_SELF = {"$ref": "#/components/schemas/Filter"}
FILTER_SCHEMA: dict[str, Any] = {
    "title": "Filter",
    "type": "object",
    "maxProperties": MOST_CONDITIONS,
    "properties": {
        "not": _SELF,
        "and": {"type": "array", "items": _SELF, "maxItems": MOST_CONDITIONS},
        "or": {"type": "array", "items": _SELF, "maxItems": MOST_CONDITIONS},
    },
    "additionalProperties": {
        "anyOf": [
            *_SCALAR["anyOf"],
            {
                "type": "object",
                "minProperties": 1,
                "properties": {
                    "eq": _SCALAR,
                    "ne": _SCALAR,
                    "in": {"type": "array", "items": _SCALAR, "maxItems": MOST_VALUES},
                    **{name: {"type": "number"} for name in _ORDERED},
                    "exists": {"type": "boolean"},
                },
                "additionalProperties": False,
            },
        ]
    },
    "description": "Every member must hold: an attribute with a value or conditions, or `not`, "
    "`and`, `or` with further filters.",
}
"""JSON Schema of a filter, a component named `Filter`."""


class Filter:
    """A compiled filter; two that say the same the same way are equal."""

    __slots__ = ("fits", "key")

    def __init__(self, key: str, fits: Fits) -> None:
        self.key = key
        """What it says, to know it again by."""
        self.fits = fits
        """Whether an item with these attributes is wanted."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, slots=True)
class Boost:
    """Scores of items that fit are multiplied."""

    filter: Filter
    factor: float


def filter_of(value: Any, field: str = "filter") -> Filter:
    """A filter from decoded JSON. Raises BadInput with the path of what is wrong, from `field`."""
    compiler = _Compiler()
    fits = compiler.filter(value, field, 1)
    return Filter(repr(value), fits)


class _Compiler:
    """Makes closures of one filter, and counts what it is made of."""

    def __init__(self) -> None:
        self._conditions = 0
        self._values = 0

    def filter(self, value: Any, field: str, depth: int) -> Fits:
        """Every member must hold."""
        if not isinstance(value, dict):
            raise BadInput(f"{field} must be an object", field)
        if depth > MOST_DEPTH:
            raise BadInput(f"filters are nested deeper than {MOST_DEPTH}", field)
        if not value:  # it asks for nothing, and is called for every item all the same
            self._count(field)
        parts = [
            self._member(name, one, f"{field}.{name[:40]}", depth) for name, one in value.items()
        ]
        return _all_of(parts)

    def _member(self, name: str, value: Any, field: str, depth: int) -> Fits:
        self._count(field)
        if name == "not":
            inner = self.filter(value, field, depth + 1)
            return lambda item: not inner(item)
        if name in _JOINS:
            if not isinstance(value, list):
                raise BadInput(f"{field} must be an array of filters", field)
            parts = [
                self.filter(one, f"{field}[{place}]", depth + 1) for place, one in enumerate(value)
            ]
            return _all_of(parts) if name == "and" else _any_of(parts)
        if not isinstance(value, dict):
            return _equal(name, self._scalar(value, field))
        if not value:
            raise BadInput(f"{field} has no condition: {', '.join(_OPERATORS)}", field)
        return _all_of(
            [self._condition(name, op, one, f"{field}.{op[:40]}") for op, one in value.items()]
        )

    def _count(self, field: str) -> None:
        self._conditions += 1
        if self._conditions > MOST_CONDITIONS:
            raise BadInput(f"a filter has more than {MOST_CONDITIONS} conditions", field)

    def _condition(self, name: str, operator: str, value: Any, field: str) -> Fits:
        if operator == "exists":
            if not isinstance(value, bool):
                raise BadInput(f"{field} must be true or false", field)
            return lambda item: (item.get(name) is not None) is value
        if operator == "in":
            return self._one_of(name, value, field)
        if operator in _ORDERED:
            return _compared(name, _ORDERED[operator], _number(value, field))
        if operator not in ("eq", "ne"):
            known = ", ".join(_OPERATORS)
            raise BadInput(f"{field}: unknown condition; known: {known}", field)
        equal = _equal(name, self._scalar(value, field))
        return equal if operator == "eq" else lambda item: not equal(item)

    def _one_of(self, name: str, values: Any, field: str) -> Fits:
        if not isinstance(values, list):
            raise BadInput(f"{field} must be an array of values", field)
        self._values += len(values)
        if self._values > MOST_VALUES:
            raise BadInput(f"a filter has more than {MOST_VALUES} values", field)
        wanted = {
            _typed(self._scalar(one, f"{field}[{place}]")) for place, one in enumerate(values)
        }

        def fits(item: Attributes) -> bool:
            value = item.get(name)
            if isinstance(value, list):
                return any((str, one) in wanted for one in value)
            return value is not None and _typed(value) in wanted

        return fits

    @staticmethod
    def _scalar(value: Any, field: str) -> str | float | bool:
        if isinstance(value, str):
            if len(value) > _MOST_CHARACTERS:
                raise BadInput(f"{field} has more than {_MOST_CHARACTERS} characters", field)
            return value
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return _number(value, field)
        raise BadInput(f"{field} must be a text, a number, or true or false", field)


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{field} must be a number", field)
    try:
        number = float(value)
    except OverflowError:
        raise BadInput(f"{field} is too large a number", field) from None
    if not math.isfinite(number):
        raise BadInput(f"{field} must be a number", field)
    return number


def _typed(value: str | float | bool) -> tuple[type, str | float | bool]:
    """To Python, True is 1: to a catalogue it is not."""
    return (bool if isinstance(value, bool) else str if isinstance(value, str) else float), value


def _equal(name: str, wanted: str | float | bool) -> Fits:
    typed = _typed(wanted)

    def fits(item: Attributes) -> bool:
        value = item.get(name)
        if isinstance(value, list):
            return wanted in value
        return value is not None and _typed(value) == typed

    return fits


def _compared(name: str, holds: Callable[[float, float], bool], bound: float) -> Fits:
    def fits(item: Attributes) -> bool:
        value = item.get(name)
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and holds(value, bound)
        )

    return fits


def _all_of(parts: list[Fits]) -> Fits:
    if len(parts) == 1:
        return parts[0]
    return lambda item: all(fits(item) for fits in parts)


def _any_of(parts: list[Fits]) -> Fits:
    return lambda item: any(fits(item) for fits in parts)
