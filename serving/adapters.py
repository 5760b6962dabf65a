"""Events as other formats have them, on their way to becoming ours.

An adapter takes a body apart into `Draft`s, each the JSON of an event, and says where in the body
each of its fields came from. Drafts are held against the same rules as all events, and what is
refused is told by its place in the body that was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from config.errors import BadInput
from serving.bodies import MOST_EVENTS, Decoder
from streams.event import Event, EventRules, Rejection, time_of

__all__ = ["Draft", "Refused", "Taken", "bounded_in_all", "draft", "event_of", "part"]

_T = TypeVar("_T")
_encoder = msgspec.json.Encoder()


class Draft(Struct, frozen=True, gc=False):
    """What may be an event."""

    index: int
    """Which one of those sent it came from, from 0."""
    value: bytes
    """JSON."""
    places: Mapping[str, str] = {}
    """Where in the body fields came from."""
    prefix: str = ""
    """What goes before the names of all others; `{}` in it stands for the index."""


class Refused(Struct, frozen=True):
    """What no event can be made of."""

    index: int
    rejection: Rejection
    """Its field is a place in the body."""


Taken = Draft | Refused


def draft(index: int, fields: dict[str, Any], places: Mapping[str, str]) -> Draft:
    """A draft of fields of an event; those that are None are left out, ids may be numbers."""
    told = {name: value for name, value in fields.items() if value is not None}
    for name in ("user_id", "item_id", "session_id"):
        if isinstance(told.get(name), int):
            told[name] = str(told[name])
    return Draft(index, _encoder.encode(told), places)


def event_of(one: Draft, rules: EventRules, now: int) -> Event:
    """The event, if a worker would count it at the time `now` (ms).

    Raises Rejection whose field is the place in the body.
    """
    try:
        event = rules.decode(one.value)
        rules.kind_of(event)
        rules.check_time(time_of(event), now)
    except Rejection as rejection:
        field, message = rejection.field, str(rejection)
        if rejection.reason == "unknown_type" and "type" in one.places:
            message += "; setting events.names says what other names stand for"
        place = one.places.get(field, one.prefix.format(one.index) + field) if field else "body"
        raise Rejection(rejection.reason, message, place) from None
    return event


def part(decoder: Decoder[_T], raw: bytes, prefix: str) -> _T:
    """One of several in a body. Raises Rejection with its place, `prefix` before it."""
    try:
        return decoder.read(raw)
    except BadInput as error:
        field = error.field or "body"
        place = prefix.rstrip(".") or "body" if field == "body" else prefix + field
        raise Rejection("invalid", str(error), place) from None


def bounded_in_all(taken: list[Taken]) -> list[Taken]:
    """All of them. Raises BadInput where they are more than a request may hold."""
    if len(taken) > MOST_EVENTS:
        raise BadInput(
            f"{len(taken)} events would come of this; a request may hold {MOST_EVENTS}", "body"
        )
    return taken
