"""What an answer showed, the value of a record of the topic `recommendations`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["Shown"]

Id = Annotated[str, Meta(min_length=1, max_length=128)]


class Shown(Struct, frozen=True):
    """One answer with new items in it. Unknown fields are allowed and ignored."""

    recommendation_id: Annotated[str, Meta(min_length=1, max_length=64)]
    timestamp: Annotated[int, Meta(ge=0)]
    """Milliseconds since 1970."""
    explored: Annotated[list[Id], Meta(max_length=100)]
    """New items that were shown to be tried."""
