"""Draws what `headwater bench growth --json` printed: costs by items, users and workers.

`python -m benchmarks.growth_picture RESULT.json OUT.svg`

One panel for each axis; every cost is shown relative to the least of its panel, and told in
microseconds at its point. The band reaches up to 1.3, which is how far costs may lie apart.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.svg import FAINT, draw_file, page
from config.errors import BadInput

__all__ = ["draw"]

_AXES = ("items", "users", "workers")
_COSTS = {
    "event": ("an event in a backlog", "#0550ae", ""),
    "request": ("a request", "#bc4c00", "7 3"),
    "live_event": ("an event at 10,000/s", "#1a7f37", "2 3"),
}
"""What is shown: its name, colour and dashes."""
_PANEL, _GAP, _TOP, _HIGH, _LEFT, _FOOT, _ROW = 230, 36, 70, 210, 46, 48, 18
_BAND = "#eef4ec"
_ALLOWED, _LEAST_TOP = 1.3, 1.5


def draw(result: Mapping[str, Any]) -> str:
    """The picture as SVG. Raises BadInput where the result is of something else."""
    if any(f"by_{axis}" not in result for axis in _AXES):
        raise BadInput("the result is not of growth: make one with `headwater bench growth --json`")
    panels = {axis: result[f"by_{axis}"] for axis in _AXES}
    shown = [_relative(points, cost) for points in panels.values() for cost in _COSTS]
    top = max([_LEAST_TOP, *(value for line in shown for value in line)]) + 0.1
    width = _LEFT + len(_AXES) * (_PANEL + _GAP)
    height = _TOP + _HIGH + _FOOT
    parts = [
        f'<text x="{_LEFT}" y="26" font-size="16" font-weight="600">'
        "Processor time as the shop grows, relative to the least</text>",
    ]
    x = _LEFT
    for name, colour, dashes in _COSTS.values():
        parts += [
            f'<path d="M{x} 46h30" {_look(colour, dashes)}/>',
            f'<text x="{x + 36}" y="50" fill="{colour}">{name}, µs</text>',
        ]
        x += 240
    for number, (axis, points) in enumerate(panels.items()):
        parts += _draw_panel(axis, points, _LEFT + number * (_PANEL + _GAP), top)
    title = "Processor time of an event and a request as the shop grows"
    return page(width, height, title, _told(panels), parts)


def _draw_panel(
    axis: str, points: Sequence[Mapping[str, Any]], left: float, top: float
) -> list[str]:
    def y(value: float) -> float:
        return _TOP + _HIGH * (1 - value / top)

    step = _PANEL / len(points)
    middles = [left + step * (number + 0.5) for number in range(len(points))]
    band = y(1) - y(_ALLOWED)
    parts = [
        f'<rect x="{left}" y="{y(_ALLOWED):.1f}" width="{_PANEL}" height="{band:.1f}" '
        f'fill="{_BAND}"/>',
        f'<text x="{left + _PANEL / 2:g}" y="{_TOP + _HIGH + 38}" text-anchor="middle" '
        f'font-weight="600">{axis}</text>',
    ]
    for value in (0, 1, _ALLOWED):
        parts += [
            f'<path d="M{left} {y(value):.1f}h{_PANEL}" stroke="{FAINT}"/>',
            f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>',
        ]
    for middle, point in zip(middles, points, strict=True):
        parts.append(
            f'<text x="{middle:.1f}" y="{_TOP + _HIGH + 18}" text-anchor="middle">'
            f"{point[axis]:,}</text>"
        )
    for row, (cost, (_, colour, dashes)) in enumerate(_COSTS.items()):
        values = _relative(points, cost)
        if not values:
            continue
        at = [(x, y(value)) for x, value in zip(middles, values, strict=True)]
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in at)
        parts.append(f'<path d="{path}" {_look(colour, dashes)}/>')
        # Figures stand in rows: beside their points, those of one line would lie on another.
        figures = _TOP + _HIGH - _ROW * (len(_COSTS) - row) + _ROW // 3
        for (a, b), point in zip(at, points, strict=True):
            parts += [
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>',
                f'<text x="{a:.1f}" y="{figures}" text-anchor="middle" fill="{colour}">'
                f"{point[f'{cost}_microseconds']:.3g}</text>",
            ]
    return parts


def _look(colour: str, dashes: str) -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'fill="none" stroke="{colour}" stroke-width="2.4" stroke-linejoin="round"{dashed}'


def _relative(points: Sequence[Mapping[str, Any]], cost: str) -> list[float]:
    """Costs by the least of them; none where the points do not have this cost."""
    values = [float(point[f"{cost}_microseconds"]) for point in points if _has(point, cost)]
    return [value / min(values) for value in values]


def _has(point: Mapping[str, Any], cost: str) -> bool:
    return bool(point.get(f"{cost}_microseconds"))


def _told(panels: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The picture in words."""
    said = []
    for axis, points in panels.items():
        for cost, (name, *_) in _COSTS.items():
            if all(_has(point, cost) for point in points):
                costs = ", ".join(
                    f"{point[f'{cost}_microseconds']:.3g} µs at {point[axis]:,}" for point in points
                )
                said.append(f"{name} by {axis}: {costs}")
    return "Three line charts. " + "; ".join(said) + "."


if __name__ == "__main__":
    draw_file(draw, sys.argv[1:])
