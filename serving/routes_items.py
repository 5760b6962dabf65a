"""The catalogue, and what is known of a user."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import orjson
from aiohttp import web

from config.errors import BadInput
from serving.bodies import parameters, path_id
from serving.context import CONTEXT, json_response
from serving.problems import problem
from serving.shown import title_of
from store.reader import StoreReader
from streams.columns import hash_id
from streams.item import CatalogueItem

__all__ = ["known_of_user", "routes"]

_encoder = msgspec.json.Encoder()


async def put_item(request: web.Request) -> web.Response:
    """PUT /v1/items/{item_id}: 202 once the broker has it; the store follows."""
    context = request.app[CONTEXT]
    parameters(request, set())
    item_id = path_id(request, "item_id")
    body = context.item_body.read(await request.read())
    if body.item_id not in (None, item_id):
        raise BadInput("item_id in the body is not the one in the path", "item_id")
    item = _encoder.encode(CatalogueItem(item_id, body.title, body.attributes, body.available))
    if len(item) > context.settings.kafka.max_record_bytes // 2:
        raise BadInput("attributes are too large for one record of the catalogue", "attributes")
    topic = context.settings.kafka.items_topic
    await context.publisher.send([(topic, item_id.encode(), item, None)])
    return json_response(item, 202)


async def delete_item(request: web.Request) -> web.Response:
    """DELETE /v1/items/{item_id}: 202 once the broker has it; the store follows."""
    context = request.app[CONTEXT]
    parameters(request, set())
    item_id = path_id(request, "item_id")
    topic = context.settings.kafka.items_topic
    await context.publisher.send([(topic, item_id.encode(), None, None)])
    return json_response(orjson.dumps({"item_id": item_id}), 202)


async def get_item(request: web.Request) -> web.Response:
    """GET /v1/items/{item_id}: its catalogue entry."""
    context = request.app[CONTEXT]
    parameters(request, set())
    item_id = path_id(request, "item_id")
    items = np.array([hash_id(item_id)], np.uint64)
    text = (await context.outage.ask(context.reader.texts, items))[0]
    if text.catalogue is None:
        return problem(404, f"the catalogue has no item {item_id[:128]!r}", field="item_id")
    return json_response(text.catalogue)


async def get_user(request: web.Request) -> web.Response:
    """GET /v1/users/{user_id}: what is known of a user; of an unknown one, nothing."""
    context = request.app[CONTEXT]
    parameters(request, set())
    user_id = path_id(request, "user_id")
    view = context.view
    kinds = list(view.settings.events.weights)
    known = await context.outage.ask(known_of_user, view.reader, kinds, user_id)
    return json_response(orjson.dumps(known))


async def delete_user(request: web.Request) -> web.Response:
    """DELETE /v1/users/{user_id}: forgets a user for good; 202 once the broker has the tombstone.

    Within seconds the store keeps nothing under the user's id, and whoever reads the log later, or
    begins with an older snapshot of the store, forgets the user at the same place. Events that come
    after it begin a new history. What the user's events have added to counts of items (what is seen
    together, what is trending, totals) is nobody's and stays; the events themselves leave the log
    with its retention.
    """
    context = request.app[CONTEXT]
    parameters(request, set())
    user_id = path_id(request, "user_id")
    topic = context.settings.kafka.events_topic
    await context.publisher.send([(topic, user_id.encode(), None, None)])
    return json_response(orjson.dumps({"user_id": user_id}), 202)


async def known_of_user(reader: StoreReader, kinds: list[str], user_id: str) -> dict[str, Any]:
    """Events kept of a user in time order: the latest session's, and those before it.

    `kinds` are the event types in the order of the settings. Raises redis.RedisError.
    """
    table = await reader.history(hash_id(user_id))
    texts = await reader.texts(table.item)
    events = []
    for text, time, kind in zip(texts, table.time.tolist(), table.kind.tolist(), strict=True):
        event = {"item_id": text.item_id, "type": kinds[kind] if kind < len(kinds) else ""}
        if title := title_of(text):
            event["title"] = title
        events.append({**event, "timestamp": time})
    latest = table.tag == table.tag[-1] if len(table.tag) else table.tag
    return {
        "user_id": user_id,
        "count": len(events),
        "session": [event for event, now in zip(events, latest.tolist(), strict=True) if now],
        "history": [event for event, now in zip(events, latest.tolist(), strict=True) if not now],
    }


routes = [
    web.put("/v1/items/{item_id:[^/]*}", put_item),
    web.get("/v1/items/{item_id:[^/]*}", get_item),
    web.delete("/v1/items/{item_id:[^/]*}", delete_item),
    web.get("/v1/users/{user_id:[^/]*}", get_user),
    web.delete("/v1/users/{user_id:[^/]*}", delete_user),
]
