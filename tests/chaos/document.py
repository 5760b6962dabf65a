"""Puts the rows into a document: `python -m tests.chaos.document ROWS.json DOCUMENT`.

Between the lines `<!-- faults -->` and `<!-- end -->` of the document goes the table. Rows of
faults that were not run this time stay as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from tests.chaos.table import FAULTS

__all__ = ["fill_in", "main"]

_SECTION = re.compile(r"(<!-- faults -->\n).*?(<!-- end -->)", re.DOTALL)
_ROW = re.compile(r"^\| `([a-z0-9-]+)` \|.*$", re.MULTILINE)
_HEAD = (
    "| fault | what happens | events | injected | lost | doubled | lag 0 after | worst answer "
    "| degraded | not 2xx |\n|---|---|--:|--:|--:|--:|--:|--:|--:|---|\n"
)


def _line(row: Mapping[str, Any]) -> str:
    if row["skipped"]:
        return f"| `{row['fault']}` | {row['what']} | skipped: {row['skipped']} |||||||||"
    lag = "never" if row["lag_seconds"] is None else f"{row['lag_seconds']:.1f} s"
    codes = ", ".join(f"{code}: {n}" for code, n in sorted(row["not_2xx"].items())) or "none"
    share = row["degraded"] / max(1, row["asked"])
    failed = f" **failed: {'; '.join(row['failures'])}**" if row["failures"] else ""
    return (
        f"| `{row['fault']}` | {row['what']} | {row['sent']:,} | {row['injected']:,} "
        f"| {row['lost']} | {row['doubled']} | {lag} | {row['worst_ms'] / 1000:.2f} s "
        f"| {share:.0%} | {codes}{failed} |"
    )


def fill_in(document: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The document with these rows in place of the older ones of the same faults."""

    def table(section: re.Match[str]) -> str:
        lines = {found[1]: found[0] for found in _ROW.finditer(section[0])}
        lines |= {row["fault"]: _line(row) for row in rows}
        known = [lines[name] for name in FAULTS if name in lines]
        return section[1] + "\n" + _HEAD + "\n".join(known) + "\n\n" + section[2]

    return _SECTION.sub(table, document)


def main(arguments: Iterable[str]) -> None:
    """Fill in the document from the rows' file."""
    rows, document = map(Path, arguments)
    text = document.read_text(encoding="utf-8")
    document.write_text(fill_in(text, orjson.loads(rows.read_bytes())), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
