"""POST /v1/events and its neighbours: the second door for events, with the rules of the first."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import orjson
from aiohttp import web
from msgspec import Meta

from serving.adapters import Draft, Refused, Taken, event_of
from serving.adapters_cloudevents import from_cloudevents, is_cloudevent
from serving.adapters_ga4 import from_ga4
from serving.adapters_segment import from_segment
from serving.bodies import MOST_EVENTS, Decoder, parameters
from serving.context import CONTEXT, json_response
from serving.cors import foreign
from serving.problems import problem
from streams.event import Rejection

__all__ = ["routes"]

_array: Decoder[list[msgspec.Raw]] = Decoder(
    Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MOST_EVENTS)]
)
_encoder = msgspec.json.Encoder()
_NO_PLACES: dict[str, str] = {}


async def post_events(request: web.Request) -> web.Response:
    """One event or an array of them, as ours or as CloudEvents; 202 once the broker has those that
    can be counted.

    Of the content type only CloudEvents' own ones matter: scripts in web pages send plain text.
    """
    parameters(request, set())
    if is_cloudevent(request.headers):
        names = request.app[CONTEXT].settings.events.names
        taken = from_cloudevents(request.headers, await request.read(), names)
    else:
        taken = _own(await request.read())
    return await _accept(request, taken)


async def post_segment(request: web.Request) -> web.Response:
    """POST /v1/events/segment: a track call of Segment's, or a batch of calls."""
    parameters(request, set())
    names = request.app[CONTEXT].settings.events.names
    return await _accept(request, from_segment(await request.read(), names, _now()))


async def post_ga4(request: web.Request) -> web.Response:
    """POST /v1/events/ga4: what is sent to Google Analytics' Measurement Protocol.

    The parameters that it has there may stay in the address.
    """
    parameters(request, {"measurement_id", "api_secret", "firebase_app_id"})
    names = request.app[CONTEXT].settings.events.names
    return await _accept(request, from_ga4(await request.read(), names, _now()))


def _own(body: bytes) -> list[Taken]:
    """Events in our own form. Raises BadInput."""
    if not body.lstrip(b" \t\r\n").startswith(b"["):
        return [Draft(0, body)]
    return [Draft(n, bytes(raw), _NO_PLACES, "[{}].") for n, raw in enumerate(_array.read(body))]


async def _accept(request: web.Request, taken: Iterable[Taken]) -> web.Response:
    """Send what can be counted to Kafka, and tell of the others by their place in the body."""
    if (origin := foreign(request)) is not None:
        detail = f"pages of {origin[:100]!r} may not send events: setting http.cors_origins"
        return problem(403, detail, field="Origin")
    context = request.app[CONTEXT]
    topic = context.settings.kafka.events_topic
    now = _now()
    records: list[tuple[str, bytes | None, bytes | None, None]] = []
    rejected: list[dict[str, Any]] = []
    for one in taken:
        try:
            if isinstance(one, Refused):
                raise one.rejection
            event = event_of(one, context.rules, now)
        except Rejection as rejection:
            rejected.append(
                {
                    "index": one.index,
                    "reason": rejection.reason,
                    "field": rejection.field or "body",
                    "message": str(rejection),
                }
            )
        else:
            records.append((topic, event.user_id.encode(), _encoder.encode(event), None))
    if not records:
        first = rejected[0]
        return problem(400, first["message"], field=first["field"], rejected=rejected)
    await context.publisher.send(records)
    return json_response(orjson.dumps({"accepted": len(records), "rejected": rejected}), 202)


def _now() -> int:
    return time.time_ns() // 1_000_000


routes = [
    web.post("/v1/events", post_events),
    web.post("/v1/events/segment", post_segment),
    web.post("/v1/events/ga4", post_ga4),
]
