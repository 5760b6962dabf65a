"""The event: its fields, its rules, and why one is refused.

The same rules hold at both doors: what `POST /v1/events` refuses with 400, a worker sends to
`events.dead`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from config.errors import BadInput
from config.settings import EventSettings

__all__ = ["MOST_CHARACTERS", "Event", "EventRules", "Id", "Rejection", "time_of"]

MOST_CHARACTERS = 128
"""Of an id of a user or an item."""
Id = Annotated[str, Meta(min_length=1, max_length=MOST_CHARACTERS)]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999
"""The end of the year 9999, where RFC 3339 ends too."""
_MILLISECOND = timedelta(milliseconds=1)
_type = attrgetter("type")


class Event(Struct, frozen=True, gc=False, omit_defaults=True):
    """One thing that a user did with an item. Unknown fields are allowed and ignored."""

    user_id: Id
    item_id: Id
    type: str
    timestamp: Annotated[int, Meta(ge=0, le=_LAST_MS)] | Annotated[datetime, Meta(tz=True)]
    """Milliseconds since 1970 UTC, or RFC 3339."""
    event_id: Annotated[str, Meta(max_length=64)] | None = None
    """Makes a repeated event of the same user count once."""
    session_id: Annotated[str, Meta(max_length=128)] | None = None
    """Without it a pause ends a session."""
    recommendation_id: Annotated[str, Meta(max_length=64)] | None = None
    position: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None


class Rejection(BadInput):
    """An event that cannot be counted. `reason` is a short fixed word, for metrics and headers."""

    def __init__(self, reason: str, message: str, field: str | None = None) -> None:
        super().__init__(message, field)
        self.reason = reason


def time_of(event: Event) -> int:
    """Milliseconds since 1970, rounded down."""
    if isinstance(event.timestamp, int):
        return event.timestamp
    return (event.timestamp - _EPOCH) // _MILLISECOND


class EventRules:
    """Decodes single events and holds them against the settings."""

    def __init__(self, settings: EventSettings) -> None:
        self._decoder = msgspec.json.Decoder(Event)
        self._kinds = {name: position for position, name in enumerate(settings.weights)}
        self.future_ms = int(settings.future_seconds * 1000)
        self._max_bytes = settings.max_bytes
        self.names = settings.names
        """What names of other formats stand for."""

    def decode(self, value: bytes | None) -> Event:
        """The event in a record's value. Raises Rejection."""
        if value is None:
            raise Rejection("empty", "the record has neither key nor value; an event has both")
        if len(value) > self._max_bytes:
            raise Rejection(
                "too_large", f"{len(value)} bytes; an event has at most {self._max_bytes}"
            )
        try:
            return self._decoder.decode(value)
        except msgspec.ValidationError as error:
            raise invalid(error) from None
        except RecursionError:
            raise Rejection("not_json", "nested too deeply") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Rejection("not_json", f"not JSON: {error}") from None

    def decode_all(self, values: list[bytes | None]) -> list[Event] | None:
        """The events in records' values; None where `decode` would refuse any of them."""
        try:
            if values and max(map(len, values)) > self._max_bytes:  # type: ignore[arg-type]
                return None
            return list(map(self._decoder.decode, values))  # type: ignore[arg-type]
        except (TypeError, ValueError, RecursionError):
            return None  # TypeError is a value of None; what msgspec raises are ValueErrors

    def kinds_of(self, events: list[Event]) -> npt.NDArray[np.uint8] | None:
        """`kind_of` each; None where that would refuse any of them."""
        try:
            kinds = map(self._kinds.__getitem__, map(_type, events))
            return np.fromiter(kinds, np.uint8, len(events))
        except KeyError:
            return None

    def kind_of(self, event: Event) -> int:
        """The position of the event's type in the settings. Raises Rejection."""
        kind = self._kinds.get(event.type)
        if kind is None:
            allowed = ", ".join(self._kinds)
            raise Rejection(
                "unknown_type", f"type {event.type[:40]!r} is none of {allowed}", "type"
            )
        return kind

    def check_user(self, key: bytes) -> None:
        """Refuse a key without a value that can be no user's id. Raises Rejection."""
        try:
            fits = 1 <= len(key.decode()) <= MOST_CHARACTERS
        except UnicodeDecodeError:
            fits = False
        if not fits:
            raise Rejection(
                "wrong_key",
                "a record without a value forgets the user whose id is its key; this key is not "
                f"1 to {MOST_CHARACTERS} characters of UTF-8",
            )

    def check_time(self, time: int, now: int) -> None:
        """Refuse a time (ms) before 1970 or too far past `now` (ms), the broker's clock.

        Raises Rejection.
        """
        if time < 0:
            raise Rejection("invalid", "timestamp lies before 1970", "timestamp")
        if time > now + self.future_ms:
            raise Rejection(
                "in_future",
                f"timestamp lies {(time - now) / 1000:.0f} s in the future, "
                f"{self.future_ms / 1000:.0f} s are allowed",
                "timestamp",
            )


def invalid(error: msgspec.ValidationError) -> Rejection:
    """A Rejection that names the field which a decoding error is about."""
    message, _, path = str(error).partition(" - at `")
    field = path.rstrip("`").removeprefix("$").lstrip(".") or None
    if field is None and "required field `" in message:
        field = message.split("required field `")[1].split("`")[0]
    return Rejection("invalid", message, field)
