"""What is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

__all__ = ["Boost", "Event", "Item", "RecommendRequest"]


class Event(Struct, frozen=True, omit_defaults=True):
    """One thing that a user did with an item."""

    user_id: str
    item_id: str
    type: str
    """`view`, `click`, `cart`, `purchase`, `like`, `dislike`, or what the server's settings add."""
    timestamp: int | None = None
    """Milliseconds since 1970 UTC; the client says now where there is none."""
    event_id: str | None = None
    """The same id from the same user counts once; the client makes one where there is none."""
    session_id: str | None = None
    recommendation_id: str | None = None
    """Of the answer that led to it; and the place of the item in it, from 0."""
    position: int | None = None


class Item(Struct, frozen=True, omit_defaults=True):
    """One item of the catalogue."""

    item_id: str
    title: str = ""
    attributes: dict[str, str | float | bool | list[str] | None] = {}
    available: bool = True
    """Those that are not are never recommended."""


class Boost(Struct, frozen=True):
    """Items that are to be shown rather, or less."""

    filter: Mapping[str, Any]
    """Which ones, as in RecommendRequest."""
    factor: float
    """What their scores are multiplied by."""


class RecommendRequest(Struct, frozen=True, omit_defaults=True):
    """What to recommend, and to whom."""

    user_id: str | None = None
    session: Sequence[str] | None = None
    n: int = 20
    exclude: Sequence[str] | None = None
    exclude_seen: bool | None = None
    diversity: float | None = None
    explain: bool = False
    scenario: str | None = None
    filter: Mapping[str, Any] | None = None
    """`{"category": {"in": ["shoes"]}, "price": {"lt": 50}}`: docs/filters.md has all of it."""
    boost: Sequence[Boost] | None = None
    strict: bool | None = None
    """Rather too few items than one that does not fit the filter."""
