"""Reads the CSV form of events, row by row.

They have the columns `timestamp_ms,user_id,item_id,type` and maybe `session_id`; in any order,
plain or gzip; further columns are ignored. A row that breaks a rule is handed out as the Rejection
that says why.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from commands.csv_table import opened, table
from config.settings import EventSettings
from streams.event import Event, EventRules, Rejection, invalid, time_of

__all__ = ["EventFile", "Row", "problem_of"]

EVENT_COLUMNS = ("timestamp_ms", "user_id", "item_id", "type")
_DIGITS = 15


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
        with opened(self.path) as source, table(source, EVENT_COLUMNS):
            self.size = self.path.stat().st_size

    def rows(self, shift_ms: int = 0) -> Iterator[Row]:
        """The rows, their times moved by `shift_ms`.

        Raises BadInput where the file is no CSV, no UTF-8, or ends in the middle.
        """
        rules = EventRules(self.settings)
        with opened(self.path) as source, table(source, EVENT_COLUMNS) as (rows, header):
            place = [header.get(name) for name in (*EVENT_COLUMNS, "session_id")]
            longest = len(header)
            now = int(time.time() * 1000)
            for row in rows:
                if not row:
                    continue
                event: Event | Rejection
                try:
                    if len(row) != longest:
                        raise Rejection(
                            "invalid", f"{len(row)} columns where the header has {longest}"
                        )
                    event = _event(row, place, shift_ms)
                    rules.kind_of(event)
                    rules.check_time(time_of(event), now)
                except Rejection as rejection:
                    event = rejection
                yield Row(rows.line_num, event, source.position())

    def span(self) -> tuple[int, int, int]:
        """How many events there are, and the times of the first and the last (ms since 1970)."""
        times = [time_of(row.event) for row in self.rows() if isinstance(row.event, Event)]
        return len(times), min(times, default=0), max(times, default=0)


def problem_of(line: int, rejection: Rejection) -> str:
    """What is wrong with a row, for a person."""
    field, text = rejection.field, str(rejection)
    return f"line {line}: {text}" if not field or field in text else f"line {line}: {field}: {text}"


def _event(row: list[str], place: list[int | None], shift_ms: int) -> Event:
    at_time, at_user, at_item, at_type, at_session = place
    # Only the optional column can be missing: `table` has made sure of the others.
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
