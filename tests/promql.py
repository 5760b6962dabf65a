"""Evaluates PromQL over made-up series, as far as our rules use it, and refuses the rest.

promql-parser reads expressions; what they mean is Prometheus' documentation: series are looked back
for five minutes, `rate` extrapolates to its window's ends, comparisons leave out what is not true.
"""

from __future__ import annotations

import math
import operator
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

import promql_parser as promql

__all__ = ["NAME", "Database", "Labels", "Vector", "labels_of", "selectors"]

NAME = "__name__"
LOOK_BACK = 300.0
Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Points = list[tuple[float, float]]

_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else math.copysign(math.inf, a) if a and a == a else math.nan,
}
_COMPARED: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
_AGGREGATES: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "count": len,
    "max": lambda values: max((v for v in values if v == v), default=math.nan),
}


def labels_of(**labels: str) -> Labels:
    """Labels as keys have them."""
    return frozenset(labels.items())


def selectors(expression: str) -> list[tuple[promql.VectorSelector, set[str]]]:
    """What an expression reads: each selector, with the labels that anything around it names.

    Raises ValueError where it is not PromQL.
    """
    return list(_selectors(promql.parse(expression), frozenset()))


def _selectors(
    node: Any, around: frozenset[str]
) -> Iterable[tuple[promql.VectorSelector, set[str]]]:
    match node:
        case promql.VectorSelector():
            yield node, set(around) | {one.name for one in node.matchers.matchers}
        case promql.MatrixSelector():
            yield from _selectors(node.vector_selector, around)
        case promql.ParenExpr():
            yield from _selectors(node.expr, around)
        case promql.AggregateExpr():
            named = node.modifier.labels if node.modifier else ()
            yield from _selectors(node.expr, around | set(named))
        case promql.Call():
            for argument in node.args:
                yield from _selectors(argument, around)
        case promql.BinaryExpr():
            matching = node.modifier.matching if node.modifier else None
            named = matching.labels if matching else ()
            for side in (node.lhs, node.rhs):
                yield from _selectors(side, around | set(named))
        case promql.NumberLiteral() | promql.StringLiteral():
            return
        case _:
            raise NotImplementedError(f"{type(node).__name__}: {node}")


class Database:
    """Series of points in time; None marks where a series ends."""

    def __init__(self) -> None:
        self._series: dict[Labels, tuple[list[float], list[float | None]]] = {}

    def add(self, labels: Labels, at: float, value: float | None) -> None:
        """One point, later than those that the series has."""
        times, values = self._series.setdefault(labels, ([], []))
        times.append(at)
        values.append(value)

    def evaluate(self, node: Any, at: float) -> float | Vector:
        """What a parsed expression is at a time in seconds. Raises NotImplementedError."""
        match node:
            case promql.NumberLiteral():
                return node.val
            case promql.ParenExpr():
                return self.evaluate(node.expr, at)
            case promql.VectorSelector():
                return self._instant(node, at)
            case promql.AggregateExpr():
                return self._aggregate(node, at)
            case promql.Call():
                return self._call(node, at)
            case promql.BinaryExpr():
                return self._binary(node, at)
        raise NotImplementedError(f"{type(node).__name__}: {node}")

    def vector(self, node: Any, at: float) -> Vector:
        """As `evaluate`, of what must be a vector."""
        found = self.evaluate(node, at)
        assert isinstance(found, dict), node
        return found

    def _matching(self, selector: promql.VectorSelector) -> Iterable[Labels]:
        assert selector.offset is None
        assert selector.at is None
        for labels in self._series:
            own = dict(labels)
            if own[NAME] == selector.name and all(
                _fits(one, own) for one in selector.matchers.matchers
            ):
                yield labels

    def _instant(self, selector: promql.VectorSelector, at: float) -> Vector:
        found = {}
        for labels in self._matching(selector):
            times, values = self._series[labels]
            place = bisect_right(times, at) - 1
            if place >= 0 and times[place] > at - LOOK_BACK:
                value = values[place]
                if value is not None:
                    found[labels] = value
        return found

    def _ranges(self, node: Any, at: float) -> tuple[float, dict[Labels, Points]]:
        seconds = node.range.total_seconds()
        found = {}
        for labels in self._matching(node.vector_selector):
            times, values = self._series[labels]
            first, last = bisect_right(times, at - seconds), bisect_right(times, at)
            points = zip(times[first:last], values[first:last], strict=True)
            found[labels] = [(time, value) for time, value in points if value is not None]
        return seconds, found

    def _aggregate(self, node: Any, at: float) -> Vector:
        groups: dict[Labels, list[float]] = {}
        for labels, value in self.vector(node.expr, at).items():
            assert node.modifier is None or node.modifier.type == promql.AggModifierType.By
            by = node.modifier.labels if node.modifier else ()
            groups.setdefault(_only(labels, by), []).append(value)
        return {labels: _AGGREGATES[str(node.op)](values) for labels, values in groups.items()}

    def _call(self, node: Any, at: float) -> Vector:
        name, arguments = node.func.name, node.args
        if name == "absent":
            return {} if self.vector(arguments[0], at) else {frozenset(): 1.0}
        if name == "histogram_quantile":
            return _quantiles(arguments[0].val, self.vector(arguments[1], at))
        over = {"rate": _rate, "increase": _increase, "deriv": _slope}
        if name not in over:
            raise NotImplementedError(name)
        seconds, ranges = self._ranges(arguments[0], at)
        return {
            _unnamed(labels): over[name](points, at - seconds, at)
            for labels, points in ranges.items()
            if len(points) >= 2
        }

    def _binary(self, node: Any, at: float) -> float | Vector:
        op, left, right = str(node.op), self.evaluate(node.lhs, at), self.evaluate(node.rhs, at)
        if isinstance(left, dict) and isinstance(right, dict):
            return _vectors(op, left, right, node.modifier)
        if op in _ARITHMETIC:
            compute = _ARITHMETIC[op]
            if isinstance(left, dict):
                return {_unnamed(k): compute(v, right) for k, v in left.items()}  # type: ignore[arg-type]
            if isinstance(right, dict):
                return {_unnamed(k): compute(left, v) for k, v in right.items()}
            return compute(left, right)
        assert isinstance(left, dict), f"{node}: write the vector on the left"
        return {k: v for k, v in left.items() if _COMPARED[op](v, right)}  # type: ignore[arg-type]


def _fits(matcher: promql.Matcher, labels: dict[str, str]) -> bool:
    value = labels.get(matcher.name, "")
    match matcher.op:
        case promql.MatchOp.Equal:
            return value == matcher.value
        case promql.MatchOp.NotEqual:
            return value != matcher.value
        case promql.MatchOp.Re:
            return re.fullmatch(matcher.value, value) is not None
    return re.fullmatch(matcher.value, value) is None


def _only(labels: Labels, names: Iterable[str]) -> Labels:
    return frozenset((name, value) for name, value in labels if name in set(names))


def _without(labels: Labels, names: Iterable[str]) -> Labels:
    return frozenset((name, value) for name, value in labels if name not in set(names))


def _unnamed(labels: Labels) -> Labels:
    return _without(labels, (NAME,))


def _vectors(op: str, left: Vector, right: Vector, modifier: promql.BinModifier | None) -> Vector:
    matching = modifier.matching if modifier else None

    def key(labels: Labels) -> Labels:
        if matching is None:
            return _unnamed(labels)
        if matching.type == promql.LabelModifierType.Include:
            return _only(labels, matching.labels)
        return _without(labels, [NAME, *matching.labels])

    others = {key(labels): value for labels, value in right.items()}
    if op == "and":
        return {labels: value for labels, value in left.items() if key(labels) in others}
    if op == "or":
        own = {key(labels) for labels in left}
        return left | {labels: value for labels, value in right.items() if key(labels) not in own}
    assert len(others) == len(right), "many on the right of one-to-one matching"
    assert len({key(labels) for labels in left}) == len(left), "many on the left"
    pairs = [(one, value, others[key(one)]) for one, value in left.items() if key(one) in others]
    if op in _ARITHMETIC:
        return {key(one): _ARITHMETIC[op](value, other) for one, value, other in pairs}
    return {one: value for one, value, other in pairs if _COMPARED[op](value, other)}


def _increase(points: Points, begin: float, end: float) -> float:
    """What a counter gained, resets included, extrapolated to the window's ends where the points
    come close to them, and never below 0.
    """
    gained, before = points[-1][1] - points[0][1], points[0][1]
    for _, value in points[1:]:
        gained += before if value < before else 0.0
        before = value
    span = points[-1][0] - points[0][0]
    average = span / (len(points) - 1)
    to_begin, to_end = points[0][0] - begin, end - points[-1][0]
    if gained > 0 and points[0][1] >= 0:
        to_begin = min(to_begin, span * points[0][1] / gained)
    near = average * 1.1
    reached = span + sum(gap if gap < near else average / 2 for gap in (to_begin, to_end))
    return gained * reached / span


def _rate(points: Points, begin: float, end: float) -> float:
    return _increase(points, begin, end) / (end - begin)


def _slope(points: Points, begin: float, end: float) -> float:
    middle = sum(time for time, _ in points) / len(points)
    mean = sum(value for _, value in points) / len(points)
    over = sum((time - middle) * (value - mean) for time, value in points)
    return over / sum((time - middle) ** 2 for time, _ in points)


def _quantiles(share: float, buckets: Vector) -> Vector:
    found: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"])
        found.setdefault(_without(labels, (NAME, "le")), []).append((bound, count))
    return {labels: _quantile(share, sorted(some)) for labels, some in found.items()}


def _quantile(share: float, buckets: list[tuple[float, float]]) -> float:
    wanted = share * buckets[-1][1]
    if not wanted:
        return math.nan
    lower, before = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if math.isinf(bound):
                break
            return lower + (bound - lower) * (wanted - before) / (count - before)
        lower, before = bound, count
    return lower
