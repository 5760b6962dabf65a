"""Runs Prometheus' recording and alert rules over the made-up series of a promtool test file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import promql_parser as promql

from tests.promql import NAME, Database, Labels, Vector, labels_of

__all__ = ["failures_of", "seconds_of"]

_SERIES = re.compile(r"(?P<name>[\w:]*)(?:\{(?P<labels>.*)\})?")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_VALUES = re.compile(r"(?P<first>-?[\d.]+)(?:(?P<step>[+-][\d.]+))?x(?P<times>\d+)")


def seconds_of(duration: str) -> float:
    """Seconds of a duration as Prometheus writes it."""
    return promql.parse_duration(duration).total_seconds()


def failures_of(groups: Sequence[Mapping[str, Any]], scenario: Mapping[str, Any]) -> list[str]:
    """What is otherwise than a scenario of a promtool test file expects; evaluated each minute."""
    step = seconds_of("1m")
    points = _points(scenario["input_series"], seconds_of(scenario["interval"]))
    arriving = {at: list(some) for at, some in groupby(points, lambda point: point[0])}
    expected = sorted(scenario["promql_expr_test"], key=lambda one: seconds_of(one["eval_time"]))
    runner = _Runner(groups)
    found: list[str] = []
    for tick in range(int(seconds_of(expected[-1]["eval_time"]) / step) + 1):
        at = tick * step
        for _, labels, value in arriving.get(at, ()):
            runner.data.add(labels, at, value)
        runner.evaluate(at)
        for one in expected:
            if seconds_of(one["eval_time"]) != at:
                continue
            got = runner.data.vector(promql.parse(one["expr"]), at)
            wanted = {_labels(sample["labels"]): sample["value"] for sample in one["exp_samples"]}
            if got != wanted:
                found.append(f"at {one['eval_time']}, {one['expr']}: {got}, expected {wanted}")
    return found


class _Runner:
    def __init__(self, groups: Sequence[Mapping[str, Any]]) -> None:
        self.data = Database()
        self._rules = [
            (rule, promql.parse(rule["expr"])) for group in groups for rule in group["rules"]
        ]
        self._since: dict[str, dict[Labels, float]] = {}
        self._written: dict[str, set[Labels]] = {}

    def evaluate(self, at: float) -> None:
        for rule, expression in self._rules:
            result = self.data.vector(expression, at)
            if "record" in rule:
                named = {_named(labels, rule["record"]): value for labels, value in result.items()}
                self._write(rule["record"], named, at)
            else:
                self._write(rule["alert"], self._alerts(rule, result, at), at)

    def _alerts(self, rule: Mapping[str, Any], result: Vector, at: float) -> Vector:
        before = self._since.get(rule["alert"], {})
        self._since[rule["alert"]] = since = {one: before.get(one, at) for one in result}
        wait = seconds_of(rule["for"]) if "for" in rule else 0.0
        told = {}
        for labels, began in since.items():
            firing = at - began >= wait
            own = {
                "alertname": rule["alert"],
                "alertstate": "firing" if firing else "pending",
                **rule["labels"],
            }
            told[_named(labels, "ALERTS") | labels_of(**own)] = 1.0
        return told

    def _write(self, rule: str, series: Vector, at: float) -> None:
        """Points of what the rule says now, and the ends of what it does not say any more."""
        for labels in self._written.get(rule, set()) - series.keys():
            self.data.add(labels, at, None)
        for labels, value in series.items():
            self.data.add(labels, at, value)
        self._written[rule] = set(series)


def _named(labels: Labels, name: str) -> Labels:
    return frozenset(one for one in labels if one[0] != NAME) | labels_of(**{NAME: name})


def _labels(series: str) -> Labels:
    match = _SERIES.fullmatch(series)
    assert match, series
    found = dict(_LABEL.findall(match["labels"] or ""))
    return labels_of(**found, **({NAME: match["name"]} if match["name"] else {}))


def _points(
    series: Iterable[Mapping[str, str]], interval: float
) -> list[tuple[float, Labels, float | None]]:
    found = [
        (place * interval, _labels(one["series"]), value)
        for one in series
        for place, value in enumerate(_values(one["values"]))
        if value != "_"
    ]
    return sorted(
        ((at, labels, None if value == "stale" else float(value)) for at, labels, value in found),
        key=lambda point: point[0],
    )


def _values(text: str) -> Iterator[str | float]:
    """promtool's notation: `1+2x3` is 1 3 5 7, `_x3` is three times nothing."""
    for word in text.split():
        if word.startswith("_x"):
            yield from ["_"] * int(word[2:])
        elif many := _VALUES.fullmatch(word):
            first, step = float(many["first"]), float(many["step"] or 0)
            yield from (first + step * n for n in range(int(many["times"]) + 1))
        else:
            yield word
