"""Draws what `headwater bench spike --json` printed: requests, waits and the backlog by the second.

`python -m benchmarks.spike_picture RESULT.json OUT.svg`

Three panels over the same time, with the rush shaded. Lines differ in dashes, too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.svg import FAINT, draw_file, page
from config.errors import BadInput

__all__ = ["draw"]

_WIDTH, _LEFT, _TOP, _HIGH, _GAP, _FOOT = 820, 76, 76, 150, 46, 44
_RUSH = "#fff3e0"
_BLUE, _ORANGE, _GREEN = "#0550ae", "#bc4c00", "#1a7f37"
_DECADES = (1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0)

Points = Sequence[tuple[float, float]]


class _Panel:
    """One set of axes."""

    def __init__(self, place: int, seconds: float, y: Callable[[float], float]) -> None:
        """`y` says how high a value stands, from 0 to 1."""
        self.top = _TOP + place * (_HIGH + _GAP)
        self._seconds, self._y = seconds, y

    def at(self, second: float, value: float) -> tuple[float, float]:
        wide = _WIDTH - _LEFT - 20
        x = _LEFT + wide * second / self._seconds
        return x, self.top + _HIGH * (1 - min(1.0, max(0.0, self._y(value))))

    def frame(self, title: str, ticks: Iterable[float], rush: tuple[float, float]) -> list[str]:
        (left, _), (right, _) = self.at(rush[0], 0), self.at(rush[1], 0)
        parts = [
            f'<rect x="{left:.1f}" y="{self.top}" width="{right - left:.1f}" height="{_HIGH}" '
            f'fill="{_RUSH}"/>',
            f'<text x="{_LEFT}" y="{self.top - 8}" font-weight="600">{escape(title)}</text>',
        ]
        for value in ticks:
            _, y = self.at(0, value)
            parts += [
                f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - 20}" stroke="{FAINT}"/>',
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,.10g}</text>',
            ]
        return parts

    def line(self, points: Points, colour: str, dashes: str = "") -> str:
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (self.at(*one) for one in points))
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dashed}/>'

    def dots(self, points: Points, colour: str) -> list[str]:
        return [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{colour}"/>'
            for x, y in (self.at(*one) for one in points)
        ]


def draw(result: Mapping[str, Any]) -> str:
    """The picture as SVG. Raises BadInput where the result is of something else."""
    if "by_second" not in result or "backlog" not in result:
        raise BadInput("the result is not of a spike: make one with `headwater bench spike --json`")
    lengths = [float(one["seconds"]) for one in result["stages"]]
    whole, rush = sum(lengths), (lengths[0], lengths[0] + lengths[1])
    seconds = result["by_second"]

    def by_second(name: str, least: float = 0.0) -> Points:
        values = seconds[name][: math.ceil(whole)]
        return [(number + 0.5, max(least, value)) for number, value in enumerate(values)]

    asked = max(a + b for a, b in zip(seconds["answered"], seconds["failed"], strict=True))
    most = max((events for _, events in result["backlog"]), default=0)
    asks = _Panel(0, whole, lambda value: value / (1.05 * max(asked, 1)))
    low, high = math.log10(_DECADES[0]), math.log10(_DECADES[-1])
    waits = _Panel(1, whole, lambda value: (math.log10(max(value, 1e-9)) - low) / (high - low))
    backlog = _Panel(2, whole, lambda value: value / (1.05 * max(most, 1)))
    height = backlog.top + _HIGH + _FOOT
    parts = [
        f'<text x="{_LEFT}" y="26" font-size="16" font-weight="600">{_title(result)}</text>',
        *asks.frame("requests a second: answered (line), refused (dashes)", _ticks(asked), rush),
        asks.line(by_second("answered"), _BLUE),
        asks.line(by_second("failed"), _ORANGE, "6 3"),
        *waits.frame(
            "milliseconds: p50 (line) and p99 (dashes) of answers, event to visible (dots)",
            _DECADES,
            rush,
        ),
        waits.line(by_second("p50_ms", _DECADES[0]), _BLUE),
        waits.line(by_second("p99_ms", _DECADES[0]), _ORANGE, "6 3"),
        *waits.dots(result["freshness"], _GREEN),
        *backlog.frame("events in the log that are not counted yet", _ticks(most), rush),
        backlog.line([(at, events) for at, events in result["backlog"] if at <= whole], _BLUE),
    ]
    step = 30 if whole > 60 else max(1, int(whole / 6))
    for second in range(0, int(whole) + 1, step):
        x, _ = backlog.at(second, 0)
        y = backlog.top + _HIGH + 20
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{second} s</text>')
    return page(_WIDTH, height, "Ten times as much, and back", _told(result), parts)


def _ticks(most: float) -> list[float]:
    """From 0 up, three or four round values."""
    step = 10.0 ** math.floor(math.log10(max(most, 1) / 2))
    while most / step > 4:
        step *= 2 if str(step)[0] != "2" else 2.5
    return [step * number for number in range(int(most / step) + 1)]


def _title(result: Mapping[str, Any]) -> str:
    times = max(one["factor"] for one in result["stages"])
    return (
        f"{result['rate']:,.10g} events and {result['requests']:,.10g} requests a second, "
        f"then {times:g} times as many"
    )


def _told(result: Mapping[str, Any]) -> str:
    """The picture in words."""
    said = [
        f"at {one['factor']:g} times for {one['seconds']:g} s: {one['answered_per_second']:,} "
        f"requests answered and {one['failed_per_second']:,} refused a second, p50 "
        f"{one['p50_ms']:g} ms, p99 {one['p99_ms']:g} ms, an event visible after "
        f"{one['freshness_p50_ms']:g} ms, at most {one['most_behind']:,} events behind"
        for one in result["stages"]
    ]
    return "Three line charts over time. " + "; ".join(said) + "."


if __name__ == "__main__":
    draw_file(draw, sys.argv[1:])
