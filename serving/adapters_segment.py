"""Segment's HTTP tracking format: `track` calls of its ecommerce spec, one or a batch.

What a call's `products` hold becomes an event each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from serving.adapters import Draft, Refused, Taken, bounded_in_all, draft, part
from serving.bodies import MOST_EVENTS, Decoder
from streams.cloudevents import bounded
from streams.event import Rejection

__all__ = ["SegmentBody", "from_segment"]


_Batch = Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MOST_EVENTS)] | None


class SegmentProduct(Struct):
    """One product of an event. What else Segment knows of it is ignored."""

    product_id: str | int | None = None
    """The item."""
    sku: str | int | None = None
    """The item, where there is no product_id."""
    position: Any = None
    """Of the item in the answer that recommendation_id names; else ignored."""


class SegmentProperties(SegmentProduct):
    """What the event is about: a product, or several."""

    products: list[msgspec.Raw] | None = None
    """Each becomes an event."""
    recommendation_id: str | None = None
    """Of the answer that led to the event."""


class SegmentCall(Struct):
    """A track call. Other fields of it are ignored."""

    type: str = "track"
    """Calls of other types are rejected."""
    event: str | None = None
    """A name of Segment's ecommerce events, or one of the setting events.names."""
    userId: str | int | None = None
    """The user."""
    anonymousId: str | int | None = None
    """The user, where there is no userId."""
    messageId: str | None = None
    """Makes a repeated call count once."""
    timestamp: str | None = None
    """RFC 3339; now where there is none."""
    properties: SegmentProperties | None = None


class SegmentBody(SegmentCall):
    """A track call, or a batch of them."""

    batch: _Batch = None
    """Calls; then what stands beside it is ignored."""


class _Body(Struct):
    batch: _Batch = None


_body: Decoder[_Body] = Decoder(_Body)
_call: Decoder[SegmentCall] = Decoder(SegmentCall)
_product: Decoder[SegmentProduct] = Decoder(SegmentProduct)


def from_segment(body: bytes, names: Mapping[str, str], now: int) -> list[Taken]:
    """The events of a call or a batch of calls; those without a time happened `now` (ms).

    `names` say what type an event's name stands for. Raises BadInput where the body is neither.
    """
    batch = _body.read(body).batch
    calls = (
        [(body, "")] if batch is None else [(raw, f"batch[{n}].") for n, raw in enumerate(batch)]
    )
    return bounded_in_all(
        [
            taken
            for index, (raw, prefix) in enumerate(calls)
            for taken in _of_call(index, bytes(raw), prefix, names, now)
        ]
    )


def _of_call(
    index: int, raw: bytes, prefix: str, names: Mapping[str, str], now: int
) -> Iterator[Taken]:
    try:
        call = part(_call, raw, prefix)
        if call.type != "track":
            raise Rejection(
                "unknown_type", f"a call of type {call.type[:40]!r} is no event", prefix + "type"
            )
        if call.event is None:
            raise Rejection("invalid", "a track call names its event", prefix + "event")
        properties = call.properties or SegmentProperties()
        if properties.products == []:
            place = prefix + "properties.products"
            raise Rejection("invalid", "there is no product", place)
    except Rejection as rejection:
        yield Refused(index, rejection)
        return

    def event(product: SegmentProduct, place: str, event_id: str | None) -> Draft:
        recommended = properties.recommendation_id is not None
        item = "product_id" if product.product_id is not None or product.sku is None else "sku"
        return draft(
            index,
            {
                "user_id": call.anonymousId if call.userId in (None, "") else call.userId,
                "item_id": getattr(product, item),
                "type": names.get(call.event or "", call.event),
                "timestamp": now if call.timestamp is None else call.timestamp,
                "event_id": None if event_id is None else bounded(event_id),
                "recommendation_id": properties.recommendation_id,
                "position": product.position if recommended else None,
            },
            {
                "user_id": prefix + "userId",
                "item_id": place + item,
                "type": prefix + "event",
                "timestamp": prefix + "timestamp",
                "recommendation_id": prefix + "properties.recommendation_id",
                "position": place + "position",
            },
        )

    place = prefix + "properties."
    if properties.products is None:
        yield event(properties, place, call.messageId)
        return
    for n, product in enumerate(properties.products):
        one = f"{place}products[{n}]."
        try:
            found = part(_product, bytes(product), one)
        except Rejection as rejection:
            yield Refused(index, rejection)
        else:
            yield event(found, one, call.messageId and f"{call.messageId}:{n}")
