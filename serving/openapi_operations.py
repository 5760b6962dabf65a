"""What each route does, for who asks it: the table that `/openapi.json` is made of.

A route that users call has an entry here; tests compare both, and every example with its type.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import msgspec

from serving.adapters_ga4 import Ga4Request
from serving.adapters_segment import SegmentBody
from serving.bodies import QUERY, BatchBody, ItemBody, RecommendBody
from serving.experiment_report import ExperimentReport, Experiments, report
from serving.filters import FILTER_SCHEMA
from serving.openapi import HTML, PROBLEM, TEXT, Answer, Operation, document
from serving.openapi_types import (
    Accepted,
    Alive,
    EventsProblem,
    Forgotten,
    FoundItems,
    ItemQuery,
    KnownUser,
    NotReady,
    OneOrMoreEvents,
    Problem,
    Ready,
    Recommendations,
    Removed,
    SearchQuery,
    TrendingQuery,
    Unavailable,
)
from store.attribution import VariantCounts
from streams.event import Id
from streams.item import CatalogueItem

__all__ = ["OPERATIONS", "describe"]

_INFO = {
    "title": "Headwater",
    "version": version("headwater"),
    "summary": "A streaming recommender: clicks in, answers a second fresh out.",
    "description": "Errors are RFC 9457 problem details: `detail` says what is wrong and what is "
    "allowed, `field` names the part of the request. Ids are 1 to 128 characters of any Unicode, "
    "percent-encoded in paths. Unknown parameters of /v1 are refused. A key belongs to one tenant; "
    "where none is asked for, the header Headwater-Tenant names one, and without it the deployment "
    "itself answers.",
}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_TAGS = {
    "recommendations": "What to show: to a user, after a session, beside an item, to everybody.",
    "events": "What users do.",
    "catalogue": "What items are called and what they are like.",
    "users": "What is known of a user.",
    "experiments": "What variants of the answers lead to.",
    "service": "Health, metrics and this description.",
}

_ITEMS = {
    "recommendation_id": "5f0c91d2a31c",
    "items": [
        {"item_id": "item-4", "title": "Green tea", "score": 0.4125},
        {"item_id": "item-7", "score": 0.1875},
    ],
    "degraded": False,
}
_EVENT = {
    "user_id": "user-1",
    "item_id": "item-9",
    "type": "view",
    "timestamp": 1_700_000_000_000,
    "event_id": "e-1",
}
_LATER = {**_EVENT, "item_id": "item-4", "type": "cart", "timestamp": "2023-11-14T22:15:00Z"}
_SEGMENT = {
    "type": "track",
    "userId": "user-1",
    "event": "Product Viewed",
    "messageId": "m-1",
    "timestamp": "2023-11-14T22:13:20Z",
    "properties": {"product_id": "item-9"},
}
_GA4 = {
    "client_id": "user-1",
    "timestamp_micros": 1_700_000_000_000_000,
    "events": [{"name": "view_item", "params": {"items": [{"item_id": "item-9"}]}}],
}
_ITEM = {
    "item_id": "item-9",
    "title": "Black tea",
    "attributes": {"category": "tea", "price": 4.5, "organic": True, "tags": ["loose", "tin"]},
}
_BODY = {"title": _ITEM["title"], "attributes": _ITEM["attributes"]}
_USER = {
    "user_id": "user-1",
    "count": 1,
    "session": [
        {
            "item_id": "item-9",
            "title": "Black tea",
            "type": "view",
            "timestamp": 1_700_000_000_000,
        }
    ],
    "history": [],
}


_EXPERIMENT = msgspec.to_builtins(
    report(
        "steeper",
        "running",
        {"control": 1.0, "steep": 1.0},
        {
            "control": VariantCounts(5012, 20_431, 650, 41, 601, 38),
            "steep": VariantCounts(4988, 20_087, 771, 44, 712, 43),
        },
        lift=0.1,
        share=1.0,
    )
)


def _problem(status: int, title: str, detail: str, **members: Any) -> dict[str, Any]:
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **members}


_BAD = {
    400: Answer(
        "A parameter or the body breaks a rule.",
        Problem,
        PROBLEM,
        example=_problem(400, "Bad request", "n must be from 1 to 100, not 0", field="n"),
    )
}
_LARGE = {
    413: Answer(
        "The body is larger than the setting http.max_body_bytes allows.",
        Problem,
        PROBLEM,
    )
}
_DOWN = "try again in a second"
_NO_STORE = {
    503: Answer(
        "The store does not answer; or there are too many requests.",
        Unavailable,
        PROBLEM,
        ["Retry-After"],
        _problem(503, "Not available right now", f"the store does not answer; {_DOWN}"),
    )
}
_NO_BROKER = {
    503: Answer(
        "The broker does not confirm; or there are too many requests.",
        Unavailable,
        PROBLEM,
        ["Retry-After"],
    )
}
_NOTHING_HELD = {
    503: Answer(
        "The store does not answer, and this server has read nothing yet to answer from; or "
        "there are too many requests.",
        Unavailable,
        PROBLEM,
        ["Retry-After"],
    )
}
_ADMISSION = {
    401: Answer("It needs an API key that is known here.", Problem, PROBLEM, ["WWW-Authenticate"]),
    403: Answer("The key has not the scope for it.", Problem, PROBLEM),
    429: Answer("The key was used more often than its rate.", Problem, PROBLEM, ["Retry-After"]),
}
"""Of every operation of the API, where keys are asked for."""
_TAKEN = {
    202: Answer(
        "The broker has those that can be counted.",
        Accepted,
        example={
            "accepted": 1,
            "rejected": [
                {
                    "index": 1,
                    "reason": "unknown_type",
                    "field": "[1].type",
                    "message": "type 'stare' is none of view, click",
                }
            ],
        },
    ),
    400: Answer("There is none that can be counted.", EventsProblem, PROBLEM),
    403: Answer(
        "They come from a page of an origin that the setting http.cors_origins does not name; or "
        "the key has not the scope for it.",
        Problem,
        PROBLEM,
    ),
    **_LARGE,
    **_NO_BROKER,
}
_LISTED = {200: Answer("Items, best first.", Recommendations, example=_ITEMS)}
_Batch = list[Recommendations]

_OPERATIONS = [
    Operation(
        "GET /v1/recommendations/{user_id}",
        "recommendForUser",
        "recommendations",
        "What next for a user",
        {**_LISTED, **_BAD, **_NOTHING_HELD},
        "By the user's latest session; of whom nothing is known gets what is trending.",
        query=RecommendBody,
        query_names=QUERY,
        values={"user_id": "user-1", "n": 5},
    ),
    Operation(
        "POST /v1/recommendations",
        "recommend",
        "recommendations",
        "What next for a user or after a session",
        {**_LISTED, **_BAD, **_LARGE, **_NOTHING_HELD},
        "What the request says goes over what its scenario says.",
        body=RecommendBody,
        bodies={
            "after a session": {"session": ["item-9", "item-4"], "n": 5},
            "for a user, without what was seen": {"user_id": "user-1", "exclude_seen": True},
            "with reasons": {"session": ["item-9"], "n": 3, "explain": True},
            "filtered and boosted": {
                "user_id": "user-1",
                "filter": {"category": {"in": ["tea"]}, "price": {"lt": 50}},
                "boost": [{"filter": {"organic": True}, "factor": 1.5}],
            },
        },
    ),
    Operation(
        "POST /v1/recommendations/batch",
        "recommendBatch",
        "recommendations",
        "Many of these at once",
        {
            200: Answer("Answers in the requests' order.", _Batch, example=[_ITEMS]),
            **_BAD,
            **_LARGE,
            **_NOTHING_HELD,
        },
        body=BatchBody,
        bodies={"two": [{"user_id": "user-1"}, {"session": ["item-9"], "n": 3}]},
    ),
    Operation(
        "GET /v1/items/{item_id}/similar",
        "similarItems",
        "recommendations",
        "What belongs to an item",
        {**_LISTED, **_BAD, **_NOTHING_HELD},
        "Of an item that nobody has seen, nothing.",
        query=ItemQuery,
        values={"item_id": "item-9", "n": 5, "relation": "bought"},
    ),
    Operation(
        "GET /v1/trending",
        "trending",
        "recommendations",
        "What everybody likes now",
        {**_LISTED, **_BAD, **_NOTHING_HELD},
        query=TrendingQuery,
        values={"n": 5, "window": "24h"},
    ),
    Operation(
        "POST /v1/events",
        "sendEvents",
        "events",
        "One event, or an array of them",
        _TAKEN,
        "Of an array, events that can be counted are accepted and the others named. Each is "
        "counted exactly once; one that is sent again counts once where it has an `event_id`. "
        "CloudEvents are taken, too: structured, in batches and in binary mode, by their content "
        "types and headers.",
        body=OneOrMoreEvents,
        bodies={"one": _EVENT, "two": [_EVENT, _LATER]},
    ),
    Operation(
        "POST /v1/events/segment",
        "sendSegmentEvents",
        "events",
        "A track call of Segment's, or a batch of them",
        _TAKEN,
        "Each product of a call is an event. `index` is a call's place in the batch, `field` the "
        "place in the body; the setting events.names says what further names stand for.",
        body=SegmentBody,
        bodies={"a product seen": _SEGMENT, "a batch": {"batch": [_SEGMENT]}},
    ),
    Operation(
        "POST /v1/events/ga4",
        "sendGa4Events",
        "events",
        "What is sent to Google Analytics 4",
        _TAKEN,
        "Ecommerce events as the Measurement Protocol has them; its parameters may stay in the "
        "address. Each item of an event is an event. `index` is the place in `events`, `field` "
        "the place in the body.",
        body=Ga4Request,
        bodies={"an item seen": _GA4},
    ),
    Operation(
        "GET /v1/items",
        "searchItems",
        "catalogue",
        "Find items by their titles",
        {
            200: Answer(
                "Items: the one of just that id, then titles that begin with the text, then what "
                "has the most events.",
                FoundItems,
                example={
                    "items": [{"item_id": "item-4", "title": "Green tea", "events": 812}],
                    "complete": True,
                },
            ),
            **_BAD,
            **_NO_STORE,
        },
        "By the words of titles and ids in the catalogue. What a search reads is bounded: of very "
        "many that match, not all are looked at, and `complete` is false.",
        query=SearchQuery,
        values={"search": "green te", "n": 5},
    ),
    Operation(
        "PUT /v1/items/{item_id}",
        "putItem",
        "catalogue",
        "Write an item's entry",
        {
            202: Answer("The broker has it; the catalogue follows.", CatalogueItem, example=_ITEM),
            **_BAD,
            **_LARGE,
            **_NO_BROKER,
        },
        "It replaces the whole entry, and shows within a second.",
        body=ItemBody,
        bodies={"an entry": _BODY},
        values={"item_id": "item-9"},
    ),
    Operation(
        "GET /v1/items/{item_id}",
        "getItem",
        "catalogue",
        "Read an item's entry",
        {
            200: Answer("The entry.", CatalogueItem, example=_ITEM),
            **_BAD,
            404: Answer("The catalogue has no such item.", Problem, PROBLEM),
            **_NO_STORE,
        },
        values={"item_id": "item-9"},
    ),
    Operation(
        "DELETE /v1/items/{item_id}",
        "deleteItem",
        "catalogue",
        "Remove an item's entry",
        {
            202: Answer("The broker has it.", Removed, example={"item_id": "item-9"}),
            **_BAD,
            **_NO_BROKER,
        },
        "The item is shown without a title from then on.",
        values={"item_id": "item-9"},
    ),
    Operation(
        "GET /v1/users/{user_id}",
        "getUser",
        "users",
        "What is known of a user",
        {200: Answer("Events that are kept.", KnownUser, example=_USER), **_BAD, **_NO_STORE},
        "Of an unknown user, nothing: an empty session and history.",
        values={"user_id": "user-1"},
    ),
    Operation(
        "DELETE /v1/users/{user_id}",
        "forgetUser",
        "users",
        "Forget a user for good",
        {
            202: Answer("The broker has it.", Forgotten, example={"user_id": "user-1"}),
            **_BAD,
            **_NO_BROKER,
        },
        "Within seconds the store keeps nothing under the id. What the user's events have added "
        "to counts of items stays; events that come later begin a new history.",
        values={"user_id": "user-1"},
    ),
    Operation(
        "GET /v1/experiments",
        "experiments",
        "experiments",
        "All experiments, and what has come of each",
        {
            200: Answer(
                "Those of the file, then those that were.",
                Experiments,
                example={"experiments": [_EXPERIMENT]},
            ),
            **_BAD,
            **_NO_STORE,
        },
        "Users are counted, since users are what is drawn by lot: of those who were shown a "
        "variant, the share that clicked and the share that bought, with intervals.",
    ),
    Operation(
        "GET /v1/experiments/{experiment}",
        "experiment",
        "experiments",
        "One experiment, and what has come of it",
        {
            200: Answer("It.", ExperimentReport, example=_EXPERIMENT),
            **_BAD,
            404: Answer("There is no such experiment.", Problem, PROBLEM),
            **_NO_STORE,
        },
        values={"experiment": "steeper"},
    ),
    Operation(
        "GET /health/live",
        "live",
        "service",
        "Whether the process answers",
        {200: Answer("It does.", Alive, example={"live": True})},
    ),
    Operation(
        "GET /health/ready",
        "ready",
        "service",
        "Whether the store answers and keeps up",
        {
            200: Answer(
                "It does.",
                Ready,
                example={"ready": True, "lag_seconds": 0, "log_seen_seconds": 0.2, "events": 1234},
            ),
            503: Answer("It does not.", NotReady, PROBLEM, ["Retry-After"]),
        },
    ),
    Operation(
        "GET /metrics",
        "metrics",
        "service",
        "Numbers for Prometheus",
        {200: Answer("In the text format, of all processes of the server.", str, TEXT)},
    ),
    Operation(
        "GET /openapi.json",
        "openapi",
        "service",
        "This description",
        {200: Answer("OpenAPI 3.1.", dict[str, Any])},
    ),
    Operation(
        "GET /docs",
        "docs",
        "service",
        "This description as a page",
        {200: Answer("A page that sends requests, too.", str, HTML)},
    ),
    Operation(
        "GET /",
        "console",
        "service",
        "The console",
        {200: Answer("A page with live numbers, and recommendations to try.", str, HTML)},
    ),
]


OPERATIONS = [
    replace(one, answers={**_ADMISSION, **one.answers}) if " /v1/" in one.route else one
    for one in _OPERATIONS
]


def describe(scenarios: Collection[str], kinds: Collection[str]) -> dict[str, Any]:
    """The API where these scenarios and types of events are known, as an OpenAPI document that is
    ready to be JSON.
    """
    allowed = {("RecommendBody", "scenario"): scenarios, ("Event", "type"): kinds}
    made = document(_INFO, _TAGS, OPERATIONS, Id, allowed)
    made["components"]["schemas"]["Filter"] = FILTER_SCHEMA
    made["components"]["securitySchemes"] = _KEYS
    # A server without a file of keys asks nobody for one.
    made["security"] = [{}, *({name: []} for name in _KEYS)]
    return made
