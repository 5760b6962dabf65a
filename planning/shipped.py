"""Writes the shipped unit costs anew: `python -m planning.shipped FOLDER`, by `make bench`.

FOLDER holds what `headwater bench NAME --json` printed as NAME.json. Costs without a result stay.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from planning.unit_costs import SHIPPED, costs_of

__all__ = ["main"]


def main(arguments: Iterable[str]) -> None:
    """Put what the results in a folder say into shipped.json, or into the file named after it."""
    folder, *named = map(Path, arguments)
    path = named[0] if named else Path(__file__).with_name("shipped.json")
    figures = {name: one.value for name, one in SHIPPED.items()}
    for found in sorted(folder.glob("*.json")):
        figures |= costs_of(found.stem, msgspec.json.decode(found.read_bytes()))
    path.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
