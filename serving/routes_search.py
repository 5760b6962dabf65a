"""Items by the words of their titles."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from config.errors import BadInput
from serving.bodies import chosen, parameters
from serving.context import CONTEXT, json_response
from store.search import FoundItem

__all__ = ["MOST_CHARACTERS", "routes"]

MOST_CHARACTERS = 128
"""Of what is searched for."""


async def search_items(request: web.Request) -> web.Response:
    """GET /v1/items?search=green+te&n=20."""
    context = request.app[CONTEXT]
    query = parameters(request, {"search", "n"})
    text = _text(query.get("search"))
    found = await context.outage.ask(context.reader.titles.find, text, chosen(query))
    told = {"items": [_told(one) for one in found.items], "complete": found.complete}
    return json_response(orjson.dumps(told))


def _text(text: str | None) -> str:
    if text is None:
        raise BadInput("search is needed: the beginnings of words to look for", "search")
    if not 1 <= len(text) <= MOST_CHARACTERS:
        raise BadInput(
            f"search has {len(text)} characters; 1 to {MOST_CHARACTERS} are allowed", "search"
        )
    try:
        text.encode()
    except UnicodeError:
        raise BadInput("search is not UTF-8", "search") from None
    return text


def _told(one: FoundItem) -> dict[str, Any]:
    told: dict[str, Any] = {"item_id": one.entry.item_id}
    if one.entry.title:
        told["title"] = one.entry.title
    if not one.entry.available:
        told["available"] = False
    told["events"] = one.events
    return told


routes = [web.get("/v1/items", search_items)]
