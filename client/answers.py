"""What the server answers. Fields that a newer server adds are ignored."""

from __future__ import annotations

from msgspec import Struct

__all__ = [
    "Contribution",
    "EventsAnswer",
    "Experiment",
    "Explanation",
    "FilledUp",
    "Recommendations",
    "RecommendedItem",
    "RejectedEvent",
    "User",
    "UserEvent",
]


class Contribution(Struct, frozen=True):
    """What one item of the session adds to a score."""

    item_id: str
    co_occurrence: float
    repeat: float
    title: str = ""


class Explanation(Struct, frozen=True):
    """score = factor · Σ (co_occurrence + repeat) + trending."""

    contributions: tuple[Contribution, ...]
    trending: float
    factor: float


class RecommendedItem(Struct, frozen=True):
    """One item of an answer."""

    item_id: str
    score: float
    title: str = ""
    explored: bool = False
    """A new item, there to be tried."""
    explanation: Explanation | None = None
    outside_filter: bool = False
    """It does not fit the filter, of which too few do."""


class FilledUp(Struct, frozen=True):
    """What stands in for items that fit the filter, of which there are too few."""

    trending: int
    outside_filter: int


class Experiment(Struct, frozen=True):
    """Which one an answer belongs to."""

    name: str
    variant: str


class Recommendations(Struct, frozen=True):
    """Items, best first."""

    recommendation_id: str
    items: tuple[RecommendedItem, ...]
    degraded: bool
    """Answered without the store: from what the server still knew."""
    filled: FilledUp | None = None
    experiment: Experiment | None = None
    """Send the recommendation_id with what the answer leads to: that is how variants are told
    apart."""


class RejectedEvent(Struct, frozen=True):
    """An event that was not taken."""

    index: int
    """Its place among those sent, from 0."""
    reason: str
    field: str
    message: str


class EventsAnswer(Struct, frozen=True):
    """What became of events."""

    accepted: int
    rejected: tuple[RejectedEvent, ...] = ()


class UserEvent(Struct, frozen=True):
    """An event that is kept of a user."""

    item_id: str
    type: str
    timestamp: int
    """Milliseconds since 1970 UTC."""
    title: str = ""


class User(Struct, frozen=True):
    """What is known of a user: the latest session's events, and those before it."""

    user_id: str
    count: int
    session: tuple[UserEvent, ...]
    history: tuple[UserEvent, ...]
