"""What an answer showed, the value of a record of the topic `recommendations`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["Shown"]

Id = Annotated[str, Meta(min_length=1, max_length=128)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,32}$")]


class Shown(Struct, frozen=True, omit_defaults=True):
    """One answer. Unknown fields are allowed and ignored.

    There is one for every answer that belongs to an experiment or tries a new item, and for all
    others where the setting experiments.publish_all says so.
    """

    recommendation_id: Annotated[str, Meta(min_length=1, max_length=64)]
    timestamp: Annotated[int, Meta(ge=0)]
    """Milliseconds since 1970."""
    user_id: Id | None = None
    items: Annotated[list[Id], Meta(max_length=100)] = []
    """What was shown, best first."""
    explored: Annotated[list[Id], Meta(max_length=100)] = []
    """New items among them that were shown to be tried."""
    experiment: Name | None = None
    """Which it belongs to, if any; then it has a user and a variant, too."""
    variant: Name | None = None
    degraded: bool = False
    """Made while the store did not answer."""
