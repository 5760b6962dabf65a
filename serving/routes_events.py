"""POST /v1/events: the second door for events, with the rules of the first."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
import orjson
from aiohttp import web
from msgspec import Meta

from serving.bodies import MOST_EVENTS, Decoder, parameters
from serving.context import CONTEXT, Context, json_response
from serving.problems import problem
from streams.event import Event, Rejection, time_of

__all__ = ["routes"]

_array: Decoder[list[msgspec.Raw]] = Decoder(
    Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MOST_EVENTS)]
)
_encoder = msgspec.json.Encoder()


async def post_events(request: web.Request) -> web.Response:
    """One event or an array of them; 202 once the broker has those that can be counted."""
    context = request.app[CONTEXT]
    parameters(request, set())
    body = await request.read()
    many = body.lstrip(b" \t\r\n").startswith(b"[")
    values = [bytes(raw) for raw in _array.read(body)] if many else [body]
    topic = context.settings.kafka.events_topic
    now = time.time_ns() // 1_000_000
    records: list[tuple[str, bytes | None, bytes | None, None]] = []
    rejected: list[dict[str, Any]] = []
    for index, value in enumerate(values):
        try:
            event = _event(context, value, now)
        except Rejection as rejection:
            field = rejection.field or "body"
            rejected.append(
                {
                    "index": index,
                    "reason": rejection.reason,
                    "field": f"[{index}].{field}" if many and rejection.field else field,
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


def _event(context: Context, value: bytes, now: int) -> Event:
    """The event, if a worker would count it. Raises Rejection."""
    event = context.rules.decode(value)
    context.rules.kind_of(event)
    context.rules.check_time(time_of(event), now)
    return event


routes = [web.post("/v1/events", post_events)]
