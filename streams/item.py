"""An item as it stands in the catalogue, the value of a record of the topic `items`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

__all__ = ["CatalogueItem", "category_of", "id_of"]


class CatalogueItem(Struct, frozen=True, omit_defaults=True):
    """One item as it stands in the catalogue."""

    item_id: Annotated[str, Meta(min_length=1, max_length=128)]
    title: Annotated[str, Meta(max_length=512)] = ""
    attributes: dict[str, str | float | bool | list[str] | None] = {}


class _Attributes(Struct):
    attributes: dict[str, str | float | bool | list[str] | None] = {}


class _Id(Struct):
    item_id: str


_id_decoder = msgspec.json.Decoder(_Id)
_decoder = msgspec.json.Decoder(_Attributes)


def category_of(entry: bytes | None, attribute: str) -> str | None:
    """The category in a catalogue entry (JSON): an attribute that is text, or the first of a list
    of texts; None where there is none.
    """
    value = _decoder.decode(entry).attributes.get(attribute) if entry else None
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, str) else None


def id_of(entry: bytes) -> str:
    """The item's id in a catalogue entry (JSON)."""
    return _id_decoder.decode(entry).item_id
