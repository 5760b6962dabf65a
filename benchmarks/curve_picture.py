"""Draws how rankings compare over a stream, from what `headwater evaluate FILE.csv --json` printed:
`python -m benchmarks.curve_picture RESULT.json OUT.svg`.

Two panels, HR@20 and MRR@20, over the share of the stream. Every line is named at its end and has a
dash pattern of its own, so that nothing depends on colour; rankings that agree in every part share
one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.svg import FAINT, draw_file, page
from commands.curve import RANKINGS
from config.errors import BadInput

__all__ = ["draw"]

_WIDTH, _PANEL, _TOP, _GAP, _FOOT = 820, 230, 64, 56, 50
_LEFT, _RIGHT = 56, 610
_LABEL_STEP = 17
_STYLES = {
    "served": ("#0550ae", "", 3.0),
    "learned": ("#8250df", "7 3", 2.2),
    "rule": ("#bc4c00", "2 3", 2.4),
    "last_item": ("#1a7f37", "10 3 2 3", 2.0),
    "popularity": ("#59636e", "1 4", 2.0),
}
"""Colour, dashes and width of each of RANKINGS."""
_NAMES = {
    "served": "served",
    "learned": "learned",
    "rule": "the rule",
    "last_item": "after the last item",
    "popularity": "most popular",
}
_MEASURES = {"hr_at_20": "HR@20, %", "mrr_at_20": "MRR@20, %"}


@dataclass(frozen=True, slots=True)
class _Line:
    """One line, which stands for every ranking with these values."""

    rankings: list[str]
    values: list[float]

    @property
    def label(self) -> str:
        names = " = ".join(_NAMES[name] for name in self.rankings)
        return f"{names} {self.values[-1]:.1f}"


def draw(result: dict[str, Any]) -> str:
    """The picture as SVG. Raises BadInput where the result holds no curve."""
    curve = result.get("curve")
    if not curve:
        raise BadInput(
            "the result holds no curve: make one with `headwater evaluate FILE.csv --json`"
        )
    name = Path(result["data"]).parent.name or Path(result["data"]).name
    height = _TOP + len(_MEASURES) * (_PANEL + _GAP) + _FOOT - _GAP
    parts = [
        f'<text x="{_LEFT}" y="28" font-size="16" font-weight="600">'
        f"{escape(name)}: each event predicted before it is learned</text>",
    ]
    for number, (measure, label) in enumerate(_MEASURES.items()):
        parts += _panel(curve, measure, label, _TOP + number * (_PANEL + _GAP))
    foot = f"share of the stream; {result['queries']:,} predictions, {len(curve)} parts"
    middle = (_LEFT + _RIGHT) / 2
    parts.append(
        f'<text x="{middle:g}" y="{height - 10}" text-anchor="middle">{escape(foot)}</text>'
    )
    title = f"{name}: rankings over the stream"
    return page(_WIDTH, height, title, _told(result, curve), parts)


def _panel(curve: Sequence[dict[str, Any]], measure: str, label: str, top: int) -> list[str]:
    lines = _lines(curve, measure)
    step = next(s for s in (2, 5, 10, 20) if max(map(_highest, lines)) / s <= 5)
    most = step * (int(max(map(_highest, lines)) // step) + 1)
    ends = [float(part["until"]) for part in curve]
    # Parts are equally long, so the second tells where the first one began.
    begin = 2 * ends[0] - ends[1] if len(ends) > 1 else 0.0

    def x(share: float) -> float:
        return _LEFT + (share - begin) / (1 - begin) * (_RIGHT - _LEFT)

    def y(value: float) -> float:
        return top + _PANEL * (1 - value / most)

    parts = [f'<text x="{_LEFT}" y="{top - 10}" font-weight="600">{escape(label)}</text>']
    for value in range(0, most + 1, step):
        parts += [
            f'<path d="M{_LEFT} {y(value):.1f}H{_RIGHT}" stroke="{FAINT}"/>',
            f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>',
        ]
    for tenth in range(11):
        if tenth / 10 >= begin - 1e-9:
            parts.append(
                f'<text x="{x(tenth / 10):.1f}" y="{top + _PANEL + 18}" text-anchor="middle">'
                f"{tenth * 10} %</text>"
            )
    # A part is drawn at its middle.
    middles = [x((a + b) / 2) for a, b in pairwise([begin, *ends])]
    heights = _apart([y(line.values[-1]) for line in lines], top + _PANEL)
    # What is served is drawn last, above the others; labels keep the order of RANKINGS.
    for line, at in reversed(list(zip(lines, heights, strict=True))):
        colour, dashes, width = _STYLES[line.rankings[0]]
        points = [(a, y(value)) for a, value in zip(middles, line.values, strict=True)]
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        look = f'fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"'
        look += f' stroke-dasharray="{dashes}"' if dashes else ""
        (last_x, last_y), label_x = points[-1], _RIGHT + 14
        parts += [
            f'<path d="{path}" {look}/>',
            f'<circle cx="{last_x:.1f}" cy="{last_y:.1f}" r="3" fill="{colour}"/>',
            f'<path d="M{last_x + 4:.1f} {last_y:.1f}L{label_x - 4} {at:.1f}" '
            f'stroke="{colour}" stroke-width="0.8"/>',
            f'<text x="{label_x}" y="{at + 4:.1f}" fill="{colour}">{escape(line.label)}</text>',
        ]
    return parts


def _lines(curve: Sequence[dict[str, Any]], measure: str) -> list[_Line]:
    found: list[_Line] = []
    for name in RANKINGS:
        values = [float(part[name][measure]) for part in curve]
        same = next((line for line in found if line.values == values), None)
        if same is None:
            found.append(_Line([name], values))
        else:
            same.rankings.append(name)
    return found


def _highest(line: _Line) -> float:
    return max(line.values)


def _apart(wanted: Sequence[float], lowest: float) -> list[float]:
    """Heights of labels near those wanted, none over another, none below `lowest`."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    found = list(wanted)
    for above, below in pairwise(order):
        found[below] = max(found[below], found[above] + _LABEL_STEP)
    limit = lowest
    for at in reversed(order):
        found[at] = min(found[at], limit)
        limit = found[at] - _LABEL_STEP
    return found


def _told(result: dict[str, Any], curve: Sequence[dict[str, Any]]) -> str:
    """The picture in words: the last part of every ranking."""
    last = curve[-1]
    ends = "; ".join(
        f"{_NAMES[name]} {last[name]['hr_at_20']:.1f} and {last[name]['mrr_at_20']:.1f}"
        for name in RANKINGS
    )
    return (
        f"Two line charts of HR@20 and MRR@20 in percent over the stream. What was served reached "
        f"{result['hr_at_20']:.1f} and {result['mrr_at_20']:.1f} over all of it. "
        f"In the last part: {ends}."
    )


if __name__ == "__main__":
    draw_file(draw, sys.argv[1:])
