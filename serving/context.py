"""What the handlers of one server process share."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from config.settings import Settings
from serving.answers import Answers
from serving.bodies import Decoder, ItemBody, RecommendBody
from serving.outage import Outage
from serving.publishing import Publisher
from serving.status import Status
from store.reader import StoreReader
from streams.event import EventRules

__all__ = ["CONTEXT", "Context", "json_response"]


@dataclass(frozen=True)
class Context:
    """Made by `serving.app` when the server starts."""

    settings: Settings
    reader: StoreReader
    answers: Answers
    outage: Outage
    publisher: Publisher
    rules: EventRules
    status: Status
    recommend_body: Decoder[RecommendBody]
    batch_body: Decoder[list[RecommendBody]]
    item_body: Decoder[ItemBody]


CONTEXT = web.AppKey("context", Context)


def json_response(body: bytes, status: int = 200) -> web.Response:
    """Ready JSON bytes as a response."""
    return web.Response(body=body, status=status, content_type="application/json")
