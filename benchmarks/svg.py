"""What all pictures have: the page that they are drawn on, and how they come out of a result.

The background is white in dark pages, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import orjson

__all__ = ["FAINT", "INK", "draw_file", "page"]

INK, FAINT = "#1f2328", "#d1d9e0"


def page(width: int, height: int, title: str, told: str, parts: Iterable[str]) -> str:
    """An SVG of so many pixels; `told` says in words what `parts` show."""
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-labelledby="title description" font-size="13" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" '
        f'fill="{INK}">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="description">{escape(told)}</desc>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


def draw_file(draw: Callable[[dict[str, Any]], str], arguments: Iterable[str]) -> None:
    """Draw the result in the first file into the second. Raises BadInput as `draw` does."""
    source, target = map(Path, arguments)
    target.write_text(draw(orjson.loads(source.read_bytes())), encoding="utf-8")
