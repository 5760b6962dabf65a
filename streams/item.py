"""An item as it stands in the catalogue, the value of a record of the topic `items`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

__all__ = ["Attribute", "CatalogueItem", "category_of", "facts_of", "id_of"]

Attribute = str | float | bool | list[str] | None
"""What an attribute may be."""


class CatalogueItem(Struct, frozen=True, omit_defaults=True):
    """One item as it stands in the catalogue."""

    item_id: Annotated[str, Meta(min_length=1, max_length=128)]
    title: Annotated[str, Meta(max_length=512)] = ""
    attributes: dict[str, Attribute] = {}
    available: bool = True
    """One that is not is never recommended; what it is seen with still counts."""


class _Facts(Struct, frozen=True):
    item_id: str
    title: str = ""
    attributes: dict[str, Attribute] = {}


class _Id(Struct):
    item_id: str


_id_decoder = msgspec.json.Decoder(_Id)
_decoder = msgspec.json.Decoder(_Facts)


def facts_of(entry: bytes) -> dict[str, Attribute]:
    """What a catalogue entry (JSON) says of an item: its attributes, and its id and title under
    `item_id` and `title`.
    """
    facts = _decoder.decode(entry)
    return {**facts.attributes, "item_id": facts.item_id, "title": facts.title}


def category_of(facts: Mapping[str, Attribute], attribute: str) -> str | None:
    """The category among facts: an attribute that is text, or the first of a list of texts; None
    where there is none.
    """
    value = facts.get(attribute)
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, str) else None


def id_of(entry: bytes) -> str:
    """The item's id in a catalogue entry (JSON)."""
    return _id_decoder.decode(entry).item_id
