"""Queries and answers as types, for the description of the API alone: queries are read by
`bodies.py` and answers are written where they arise. Tests hold what is sent against these.

Doc strings of classes and fields are texts of the description.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from serving.answers import MOST
from serving.bodies import DEFAULT_N, MOST_EVENTS
from serving.recommend import Relation
from serving.routes_search import MOST_CHARACTERS
from streams.event import Event, Id

__all__ = [
    "Accepted",
    "Alive",
    "EventsProblem",
    "Forgotten",
    "FoundItems",
    "ItemQuery",
    "KnownUser",
    "NotReady",
    "OneOrMoreEvents",
    "Problem",
    "Ready",
    "Recommendations",
    "Removed",
    "SearchQuery",
    "TrendingQuery",
    "Unavailable",
]

OneOrMoreEvents = Event | Annotated[list[Event], Meta(min_length=1, max_length=MOST_EVENTS)]
"""POST /v1/events."""

_N = Annotated[int, Meta(ge=1, le=MOST)]
_Offset = Annotated[int, Meta(ge=0, lt=MOST)]
_Share = Annotated[float, Meta(ge=0)]


class ItemQuery(Struct, forbid_unknown_fields=True):
    """GET /v1/items/{item_id}/similar."""

    n: _N = DEFAULT_N
    """Items to answer with, at most."""
    offset: _Offset = 0
    """The page begins behind so many items; a list ends after 100."""
    relation: Relation = "viewed"
    """Seen in the same sessions, or bought in them."""


class TrendingQuery(Struct, forbid_unknown_fields=True):
    """GET /v1/trending."""

    n: _N = DEFAULT_N
    """Items to answer with, at most."""
    offset: _Offset = 0
    """The page begins behind so many items; a list ends after 100."""
    window: Literal["1h", "24h", "7d"] = "1h"
    """How far back events count."""


class SearchQuery(Struct, forbid_unknown_fields=True):
    """GET /v1/items."""

    search: Annotated[str, Meta(min_length=1, max_length=MOST_CHARACTERS)]
    """Beginnings of words, in any order; case and accents do not count. Or a whole id."""
    n: _N = DEFAULT_N
    """Items to answer with, at most."""


class FoundItem(Struct, forbid_unknown_fields=True):
    """One item that was found."""

    item_id: Id
    events: Annotated[int, Meta(ge=0)]
    """Counted of it so far."""
    title: str | UnsetType = UNSET
    """As the catalogue has it; absent where it has none."""
    available: Literal[False] | UnsetType = UNSET
    """Present where it is never recommended."""


class FoundItems(Struct, forbid_unknown_fields=True):
    """Items, best first."""

    items: Annotated[list[FoundItem], Meta(max_length=MOST)]
    complete: bool
    """Whether these are all that match."""


class Contribution(Struct, forbid_unknown_fields=True):
    """What one item of the session adds to a score."""

    item_id: Id
    co_occurrence: float
    """What stands together with it in sessions."""
    repeat: float
    """The chance to be chosen again, where the recommended item is this one."""
    title: str | UnsetType = UNSET


class Explained(Struct, forbid_unknown_fields=True):
    """factor · Σ (co_occurrence + repeat) + trending = score."""

    contributions: list[Contribution]
    """Of the session's items, latest first; those that add nothing are left out."""
    trending: float
    """The whole score of an item that no item of the session speaks for, else 0."""
    factor: float
    """What the learned ranking makes of the rule's score: 1 where the rule is served."""


class ScoredItem(Struct, forbid_unknown_fields=True):
    """One item of an answer."""

    item_id: Id
    score: float
    """Falls from the first to the last, unless `diversity` moves items."""
    title: str | UnsetType = UNSET
    """As the catalogue has it; absent where it has none."""
    explanation: Explained | UnsetType = UNSET
    """Where the request says `explain`."""
    outside_filter: bool | UnsetType = UNSET
    """Present where the item does not fit the request's filter, of which too few do."""
    explored: bool | UnsetType = UNSET
    """Present where this is a new item, shown to try it."""


class FilledUp(Struct, forbid_unknown_fields=True):
    """What stands in for items that fit the filter, of which there are too few."""

    trending: Annotated[int, Meta(ge=0)]
    """Items that fit and are only trending."""
    outside_filter: Annotated[int, Meta(ge=0)]
    """Items that do not fit; they come last."""


class Belonging(Struct, forbid_unknown_fields=True):
    """The experiment that an answer belongs to."""

    name: str
    variant: str
    """The one that the user gets, every time."""


class Recommendations(Struct, forbid_unknown_fields=True):
    """Items, best first."""

    recommendation_id: Annotated[str, Meta(min_length=1, max_length=64)]
    """Send it with the events that the answer leads to."""
    items: Annotated[list[ScoredItem], Meta(max_length=MOST)]
    degraded: bool
    """The store did not answer in time: made from what the server still holds."""
    filled: FilledUp | UnsetType = UNSET
    """Present where a filter left too few items."""
    experiment: Belonging | UnsetType = UNSET
    """Present where a variant of an experiment made it."""


class RejectedEvent(Struct, forbid_unknown_fields=True):
    """An event that was not accepted."""

    index: Annotated[int, Meta(ge=0, lt=MOST_EVENTS)]
    """Its place in the request, from 0."""
    reason: Literal["invalid", "unknown_type", "in_future", "not_json", "too_large"]
    field: str
    """What breaks a rule, as `[3].timestamp`."""
    message: str


class Accepted(Struct, forbid_unknown_fields=True):
    """Events that the broker has, and those that it was not given."""

    accepted: Annotated[int, Meta(ge=1, le=MOST_EVENTS)]
    rejected: list[RejectedEvent]


class Removed(Struct, forbid_unknown_fields=True):
    """The broker has it; within a second the catalogue follows."""

    item_id: Id


class Forgotten(Struct, forbid_unknown_fields=True):
    """The broker has it; within seconds the store follows."""

    user_id: Id


class KnownEvent(Struct, forbid_unknown_fields=True):
    """An event that is kept of a user."""

    item_id: Id
    type: str
    timestamp: int
    """Milliseconds since 1970 UTC."""
    title: str | UnsetType = UNSET


class KnownUser(Struct, forbid_unknown_fields=True):
    """What is kept of a user, in time order."""

    user_id: Id
    count: Annotated[int, Meta(ge=0)]
    session: list[KnownEvent]
    """The latest session."""
    history: list[KnownEvent]
    """What came before it."""


class Alive(Struct, forbid_unknown_fields=True):
    """The process answers."""

    live: bool


class Ready(Struct, forbid_unknown_fields=True):
    """The store answers, and is not too far behind the log."""

    ready: bool
    lag_seconds: _Share
    """How long the oldest event that is not yet counted has waited."""
    log_seen_seconds: _Share
    """How long ago the log's end was looked at."""
    events: Annotated[int, Meta(ge=0)]
    """Counted in all."""


class Problem(Struct, kw_only=True, forbid_unknown_fields=True):
    """RFC 9457 problem details."""

    type: Literal["about:blank"]
    title: str
    """What kind of problem, in words."""
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    """What is wrong, and what is allowed."""
    field: str | UnsetType = UNSET
    """The part of the request that breaks a rule: `n`, `[3].session[1]`, `body`, `path`."""


class Unavailable(Problem, kw_only=True, forbid_unknown_fields=True):
    """Not now."""

    cause: Literal["overload"] | UnsetType = UNSET
    """Present where there are more requests than this server can answer."""


class EventsProblem(Problem, kw_only=True, forbid_unknown_fields=True):
    """No event of the request can be counted. `detail` and `field` are about the first."""

    rejected: list[RejectedEvent] | UnsetType = UNSET
    """All of them; absent where the body could not be told apart into events."""


class NotReady(Problem, kw_only=True, forbid_unknown_fields=True):
    """Not fit to be sent requests."""

    cause: Literal[
        "store_unreachable", "store_timeout", "store_error", "late", "lag_unknown", "lag"
    ]
    lag_seconds: _Share | UnsetType = UNSET
    """Where the store is too far behind the log."""
