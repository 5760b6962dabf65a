"""Google Analytics 4: ecommerce events as its Measurement Protocol has them.

What an event's `items` hold becomes an event each. The protocol has no id of an event: a purchase
counts once for each `transaction_id`, anything else once for each name, time and place in the
request, where the sender says the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from serving.adapters import Refused, Taken, bounded_in_all, draft, part
from serving.bodies import MOST_EVENTS, Decoder
from streams.cloudevents import bounded
from streams.event import Rejection

__all__ = ["Ga4Request", "from_ga4"]

_Micros = (
    Annotated[int, Meta(ge=0, lt=10**18)] | Annotated[str, Meta(pattern="^[0-9]{1,18}$")] | None
)


class Ga4Item(Struct):
    """One item of an event. What else Google Analytics knows of it is ignored."""

    item_id: str | int | None = None
    index: Any = None
    """Its position in the answer that recommendation_id names; else ignored."""


class Ga4Params(Struct):
    """What an event is about."""

    items: list[msgspec.Raw] | None = None
    """Each becomes an event."""
    transaction_id: str | int | None = None
    """Makes a repeated purchase count once."""
    session_id: str | int | None = None
    recommendation_id: str | None = None
    """Of the answer that led to the event."""


class Ga4Event(Struct):
    """One event of a request."""

    name: str
    """A name of GA4's ecommerce events, or one of the setting events.names."""
    params: Ga4Params | None = None
    timestamp_micros: _Micros = None
    """Microseconds since 1970 UTC; those of the request where there are none."""


class Ga4Request(Struct):
    """What is sent to the Measurement Protocol. Other fields of it are ignored."""

    events: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MOST_EVENTS)]
    client_id: str | int | None = None
    """The user, where there is no user_id."""
    user_id: str | int | None = None
    """The user."""
    timestamp_micros: _Micros = None
    """Microseconds since 1970 UTC; now where there are none."""


_hit: Decoder[Ga4Request] = Decoder(Ga4Request)
_event: Decoder[Ga4Event] = Decoder(Ga4Event)
_item: Decoder[Ga4Item] = Decoder(Ga4Item)


def from_ga4(body: bytes, names: Mapping[str, str], now: int) -> list[Taken]:
    """The events of a request's `events`; those without a time happened `now` (ms).

    `names` say what type an event's name stands for. Raises BadInput where the body is no such
    request.
    """
    hit = _hit.read(body)
    return bounded_in_all(
        [
            taken
            for index, raw in enumerate(hit.events)
            for taken in _of_event(index, bytes(raw), hit, names, now)
        ]
    )


def _of_event(
    index: int, raw: bytes, hit: Ga4Request, names: Mapping[str, str], now: int
) -> Iterator[Taken]:
    prefix = f"events[{index}]."
    place = prefix + "params."
    try:
        event = part(_event, raw, prefix)
        params = event.params or Ga4Params()
        if not params.items:
            raise Rejection(
                "invalid",
                f"{event.name[:40]!r} has no items: only what is done with items counts",
                place + "items",
            )
    except Rejection as rejection:
        yield Refused(index, rejection)
        return
    own = event.timestamp_micros is not None
    micros = event.timestamp_micros if own else hit.timestamp_micros
    user = "client_id" if hit.user_id in (None, "") else "user_id"
    once = (
        f"{event.name}:{params.transaction_id}"
        if params.transaction_id is not None
        else None
        if micros is None
        else f"{event.name}:{micros}:{index}"
    )
    for n, item in enumerate(params.items):
        one = f"{place}items[{n}]."
        try:
            found = part(_item, bytes(item), one)
        except Rejection as rejection:
            yield Refused(index, rejection)
            continue
        recommended = params.recommendation_id is not None
        yield draft(
            index,
            {
                "user_id": getattr(hit, user),
                "item_id": found.item_id,
                "type": names.get(event.name, event.name),
                "timestamp": now if micros is None else int(micros) // 1000,
                "event_id": None if once is None else bounded(f"{once}:{n}"),
                "session_id": params.session_id,
                "recommendation_id": params.recommendation_id,
                "position": found.index if recommended else None,
            },
            {
                "user_id": user,
                "item_id": one + "item_id",
                "type": prefix + "name",
                "timestamp": (prefix if own else "") + "timestamp_micros",
                "session_id": place + "session_id",
                "recommendation_id": place + "recommendation_id",
                "position": one + "index",
            },
        )
