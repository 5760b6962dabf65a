"""An item as it stands in the catalogue, the value of a record of the topic `items`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["CatalogueItem"]


class CatalogueItem(Struct, frozen=True, omit_defaults=True):
    """One item as it stands in the catalogue."""

    item_id: Annotated[str, Meta(min_length=1, max_length=128)]
    title: Annotated[str, Meta(max_length=512)] = ""
    attributes: dict[str, str | float | bool | list[str] | None] = {}
