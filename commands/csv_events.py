"""Reads the CSV form of events and of the catalogue, row by row.

Events have the columns `timestamp_ms,user_id,item_id,type` and maybe `session_id`, items `item_id`
and maybe `title`; in any order, plain or gzip. Of events further columns are ignored, of items
they become attributes. A row that breaks a rule is handed out as the Rejection that says why.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import msgspec

from config.errors import BadInput, SettingsError
from config.settings import EventSettings
from streams.event import Event, EventRules, Rejection, invalid, time_of
from streams.item import CatalogueItem

if TYPE_CHECKING:
    from _csv import Reader

__all__ = ["EventFile", "Row", "problem_of", "read_items"]

EVENT_COLUMNS = ("timestamp_ms", "user_id", "item_id", "type")
_DIGITS = 15
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file of events."""

    line: int
    """Its line in the file, from 1."""
    event: Event | Rejection
    position: int
    """Bytes of the file that were read, before decompression."""


@dataclass(slots=True)
class EventFile:
    """A CSV file of events, which can be read any number of times.

    Raises SettingsError where the file is missing, cannot be read, or lacks a column.
    """

    path: Path
    settings: EventSettings
    size: int = field(init=False)
    """Bytes of the file."""

    def __post_init__(self) -> None:
        with _table(self.path, EVENT_COLUMNS) as (_rows, _header, _file):
            self.size = self.path.stat().st_size

    def rows(self, shift_ms: int = 0) -> Iterator[Row]:
        """The rows, their times moved by `shift_ms`.

        Raises BadInput where the file is no CSV, no UTF-8, or ends in the middle.
        """
        rules = EventRules(self.settings)
        with _table(self.path, EVENT_COLUMNS) as (rows, header, file):
            place = [header.get(name) for name in (*EVENT_COLUMNS, "session_id")]
            longest = len(header)
            now = int(time.time() * 1000)
            for row in rows:
                if not row:
                    continue
                event: Event | Rejection
                try:
                    if len(row) != longest:
                        raise _rejection(f"{len(row)} columns where the header has {longest}")
                    event = _event(row, place, shift_ms)
                    rules.kind_of(event)
                    rules.check_time(time_of(event), now)
                except Rejection as rejection:
                    event = rejection
                yield Row(rows.line_num, event, file.tell())

    def span(self) -> tuple[int, int, int]:
        """How many events there are, and the times of the first and the last (ms since 1970)."""
        times = [time_of(row.event) for row in self.rows() if isinstance(row.event, Event)]
        return len(times), min(times, default=0), max(times, default=0)


def read_items(path: Path) -> Iterator[CatalogueItem | tuple[int, Rejection]]:
    """The items of a catalogue file, or the line of a row and what is wrong with it.

    Attributes that are written as plain numbers become numbers; empty ones are left out. Raises
    as EventFile does.
    """
    with _table(path, ("item_id",)) as (rows, header, _file):
        others = {n: at for n, at in header.items() if n not in ("item_id", "title")}
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                problem = f"{len(row)} columns where the header has {len(header)}"
                yield rows.line_num, _rejection(problem)
                continue
            attributes = {n: _value(row[at]) for n, at in others.items() if row[at]}
            title = row[header["title"]] if "title" in header else ""
            item = {"item_id": row[header["item_id"]], "title": title, "attributes": attributes}
            try:
                yield msgspec.convert(item, CatalogueItem)
            except msgspec.ValidationError as error:
                yield rows.line_num, invalid(error)


def problem_of(line: int, rejection: Rejection) -> str:
    """What is wrong with a row, for a person."""
    field, text = rejection.field, str(rejection)
    return f"line {line}: {text}" if not field or field in text else f"line {line}: {field}: {text}"


def _event(row: list[str], place: list[int | None], shift_ms: int) -> Event:
    at_time, at_user, at_item, at_type, at_session = place
    # Only the optional column can be missing: _table has made sure of the others.
    text = row[at_time or 0]
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        problem = f"timestamp_ms {text[:40]!r} is not a whole number of milliseconds since 1970"
        raise Rejection("invalid", problem, "timestamp_ms")
    session = row[at_session] if at_session is not None else ""
    fields = {
        "user_id": row[at_user or 0],
        "item_id": row[at_item or 0],
        "type": row[at_type or 0],
        "timestamp": int(text) + shift_ms,
        "session_id": session or None,
    }
    try:
        return msgspec.convert(fields, Event)
    except msgspec.ValidationError as error:
        raise invalid(error) from None


def _rejection(problem: str) -> Rejection:
    return Rejection("invalid", problem)


def _value(text: str) -> str | float:
    return float(text) if _NUMBER.fullmatch(text) else text


@contextmanager
def _table(
    path: Path, needed: tuple[str, ...]
) -> Iterator[tuple[Reader, dict[str, int], BinaryIO]]:
    """A reader past the header, where each column stands, and the file behind it."""
    try:
        file = path.open("rb")
        start = file.read(2)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    with file:
        file.seek(0)
        unpacked = gzip.GzipFile(fileobj=file) if start == b"\x1f\x8b" else file
        text = io.TextIOWrapper(cast(BinaryIO, unpacked), "utf-8-sig", newline="")
        rows = csv.reader(text)
        try:
            header = {name.strip(): at for at, name in enumerate(next(rows, []))}
            missing = [name for name in needed if name not in header]
            if missing:
                raise SettingsError(
                    f"{path} has no column {', '.join(missing)}: its first line must name the "
                    f"columns {', '.join(needed)}"
                )
            yield rows, header, file
        except (csv.Error, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
            raise BadInput(f"{path}, after line {rows.line_num}: {error}") from None
