"""Reads files of the catalogue, entry by entry: CSV or JSON lines, plain or gzip, or stdin.

A file whose first character is `{` is JSON lines, each line an object with `item_id` and maybe
`title`, `available` and `attributes`. Any other is CSV with a header: the column `item_id`, maybe
`title`, and `available` (`true` or `1`, `false` or `0`; an empty cell is true), and every further
column is an attribute. What a cell of those becomes depends on the cell alone:

- an empty one is left out,
- `true` and `false`, in capitals or not, are truth values,
- a number is written plainly, without exponent, `+` or needless zeros before it, with up to 15
  digits before and after the point: `9.50` is 9.5; `007` and `1e5` are texts,
- with a `|` in it, it is a list of the texts between, empty ones left out: `red|blue`, and `red|`
  for a list of one,
- anything else is the text that it is.

What breaks a rule is handed out as the Rejection that says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from commands.csv_table import STDIN, Input, opened, table
from config.errors import BadInput, SettingsError
from streams.event import Rejection, invalid
from streams.item import CatalogueItem

__all__ = ["ItemFile", "ItemRow"]

_LONGEST_LINE = 16 * 1024 * 1024
_TRUTH = {"": True, "true": True, "1": True, "false": False, "0": False}
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?", re.ASCII)


class _Line(CatalogueItem, frozen=True, forbid_unknown_fields=True):
    """An entry as a line of JSON. A field with another name is a mistake, not an attribute."""


_line_decoder = msgspec.json.Decoder(_Line)


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One entry of a file."""

    line: int
    """Its line in the file, from 1; of several, the last."""
    item: CatalogueItem | Rejection
    position: int
    """Bytes of the file that were read, before decompression; 0 of stdin."""


class ItemFile:
    """A catalogue file. Can be read any number of times, unless it is stdin."""

    def __init__(self, path: Path) -> None:
        """`-` is stdin. Raises SettingsError where the file is missing or cannot be read."""
        self._path = path
        try:
            self.size = None if path == STDIN else path.stat().st_size
        except OSError as error:
            raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
        self.name = "stdin" if path == STDIN else path.name

    def rows(self) -> Iterator[ItemRow]:
        """The entries in the order of the file.

        Raises SettingsError where it cannot be read or lacks the column `item_id`, BadInput where
        it is no CSV, no UTF-8, or ends in the middle.
        """
        with opened(self._path) as source:
            if source.start.startswith(b"["):
                raise SettingsError(
                    f"{source.name} is one array of JSON; it must have one object on each line"
                )
            yield from _lines(source) if source.start.startswith(b"{") else _rows(source)


def _lines(source: Input) -> Iterator[ItemRow]:
    number = 0
    while text := source.unpacked.readline(_LONGEST_LINE):
        number += 1
        if len(text) == _LONGEST_LINE:
            raise BadInput(f"{source.name}: line {number} is longer than {_LONGEST_LINE} bytes")
        if number == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        if not text.isspace():
            yield ItemRow(number, _of_json(text), source.position())


def _of_json(text: bytes) -> CatalogueItem | Rejection:
    try:
        line = _line_decoder.decode(text)
    except msgspec.ValidationError as error:
        return invalid(error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Rejection("not_json", f"not JSON: {error}")
    return CatalogueItem(*msgspec.structs.astuple(line))


def _rows(source: Input) -> Iterator[ItemRow]:
    with table(source, ("item_id",)) as (rows, header):
        others = {n: at for n, at in header.items() if n not in CatalogueItem.__struct_fields__}
        for row in rows:
            if row:
                yield ItemRow(rows.line_num, _of_row(row, header, others), source.position())


def _of_row(
    row: list[str], header: dict[str, int], others: dict[str, int]
) -> CatalogueItem | Rejection:
    if len(row) != len(header):
        return Rejection("invalid", f"{len(row)} columns where the header has {len(header)}")
    available = row[header["available"]].lower() if "available" in header else ""
    if available not in _TRUTH:
        return Rejection("invalid", f"{available[:40]!r} is neither true nor false", "available")
    fields: dict[str, object] = {
        "item_id": row[header["item_id"]],
        "title": row[header["title"]] if "title" in header else "",
        "available": _TRUTH[available],
        "attributes": {name: _value(row[at]) for name, at in others.items() if row[at]},
    }
    try:
        return msgspec.convert(fields, CatalogueItem)
    except msgspec.ValidationError as error:
        return invalid(error)


def _value(text: str) -> str | float | bool | list[str]:
    if "|" in text:
        return [part for part in text.split("|") if part]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return float(text) if _NUMBER.fullmatch(text) else text
