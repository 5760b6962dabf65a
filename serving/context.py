"""What the handlers of one server process share."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from config.settings import Settings
from serving.answers import Answers
from serving.backlog import Backlog
from serving.bodies import Decoder, ItemBody, RecommendBody
from serving.desk import Desk
from serving.experiments import Experiments
from serving.outage import Outage
from serving.outcomes import Outcomes
from serving.publishing import Publisher
from serving.scenarios import Scenarios
from serving.status import Readings, Status
from serving.view import LiveView, View
from store.reader import StoreReader
from streams.event import EventRules

__all__ = ["CONTEXT", "SETTINGS", "Context", "json_response"]


@dataclass(frozen=True)
class Context:
    """Made by `serving.app` when the server starts."""

    settings: Settings
    """Those of the process; `view.settings` are those of the generation that answers."""
    live: LiveView
    outage: Outage
    publisher: Publisher
    backlog: Backlog
    scenarios: Scenarios
    experiments: Experiments
    outcomes: Outcomes
    desk: Desk
    status: Status
    readings: Readings
    """Of all tenants."""
    recommend_body: Decoder[RecommendBody]
    batch_body: Decoder[list[RecommendBody]]
    item_body: Decoder[ItemBody]

    @property
    def view(self) -> View:
        """What answers now; another one may the next time that this is asked."""
        return self.live.now

    @property
    def reader(self) -> StoreReader:
        """Reads what answers are made of now."""
        return self.live.now.reader

    @property
    def answers(self) -> Answers:
        """Answers now."""
        return self.live.now.answers

    @property
    def rules(self) -> EventRules:
        """What an event has to be now."""
        return self.live.now.rules


CONTEXT = web.AppKey("context", Context)
SETTINGS = web.AppKey("settings", Settings)


def json_response(body: bytes, status: int = 200) -> web.Response:
    """Ready JSON bytes as a response."""
    return web.Response(body=body, status=status, content_type="application/json")
