"""What items look like, as ready JSON, kept until the catalogue changes.

Names never change and catalogue entries seldom do, so neither is read again until the store tells
that an item's entry has changed. That is looked at twice a second: a change shows within a second.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import orjson

from config.settings import Settings
from store.found import ItemText
from store.reader import StoreReader
from store.shared import Refreshed
from streams.item import category_of

__all__ = ["SCORE", "Shown", "title_of"]

SCORE = b'"score":'
"""How each piece ends."""
_LOOK_SECONDS = 0.5
_MOST_KEPT = 200_000


class _Title(msgspec.Struct):
    title: str = ""


_title_decoder = msgspec.json.Decoder(_Title)


def title_of(text: ItemText) -> str:
    """The title in an item's catalogue entry, empty where there is none."""
    return _title_decoder.decode(text.catalogue).title if text.catalogue else ""


@dataclass(slots=True)
class _Kept:
    """By items' hashes."""

    pieces: dict[int, bytes] = field(default_factory=dict)
    category: dict[int, str | None] = field(default_factory=dict)

    def clear(self) -> None:
        """Keep nothing."""
        self.pieces.clear()
        self.category.clear()


class Shown:
    """Keeps pieces and categories. Raises redis.RedisError."""

    def __init__(self, reader: StoreReader, settings: Settings) -> None:
        self._reader = reader
        self._attribute = settings.rank.category
        self._kept = _Kept()
        self._counts: list[int] = []
        self._looked = Refreshed(self._look, _LOOK_SECONDS)

    async def pieces(self, items: Sequence[list[int]]) -> list[list[bytes | None]]:
        """Each list's pieces, None where nobody knows an item's (a hash's) name."""
        await self._prepare()
        found = [list(map(self._kept.pieces.get, some)) for some in items]
        if any([None in some for some in found]):
            await self._read([item for some in items for item in some])
            found = [list(map(self._kept.pieces.get, some)) for some in items]
        return found

    def from_memory(self) -> Shown:
        """What is kept here, without asking the store for more."""
        return _Remembered(self._kept)

    async def categories(self, items: Collection[int]) -> set[str]:
        """Categories of items (hashes), where the catalogue knows them."""
        await self._prepare()
        await self._read(items)
        return {one for item in items if (one := self._kept.category.get(item)) is not None}

    async def _prepare(self) -> None:
        await self._looked.get()
        if len(self._kept.pieces) > _MOST_KEPT:
            self._kept.clear()

    async def _read(self, items: Collection[int]) -> None:
        missing = list({item for item in items if item not in self._kept.pieces})
        while missing:
            counts = self._counts
            texts = await self._reader.texts(np.array(missing, np.uint64))
            if counts != self._counts:
                continue  # some of these may be from before the change
            for item, text in zip(missing, texts, strict=True):
                if text.item_id:
                    self._kept.pieces[item] = _piece(text)
                    self._kept.category[item] = category_of(text.catalogue, self._attribute)
            break

    async def _look(self) -> None:
        """Drop what has changed since the last look."""
        changes = await self._reader.catalogue_changes()
        for before, now in zip(self._counts, changes, strict=False):
            if 0 <= now.count - before <= len(now.latest):
                for item in now.latest[: now.count - before].tolist():
                    self._kept.pieces.pop(item, None)
                    self._kept.category.pop(item, None)
            else:  # more than the store names, or it has lost some
                self._kept.clear()
        self._counts = [now.count for now in changes]


class _Remembered(Shown):
    """What another keeps."""

    def __init__(self, kept: _Kept) -> None:
        self._kept = kept

    async def pieces(self, items: Sequence[list[int]]) -> list[list[bytes | None]]:
        return [list(map(self._kept.pieces.get, some)) for some in items]

    async def categories(self, items: Collection[int]) -> set[str]:
        return {one for one in map(self._kept.category.get, items) if one is not None}


def _piece(text: ItemText) -> bytes:
    title = title_of(text)
    shown = {"item_id": text.item_id, "title": title} if title else {"item_id": text.item_id}
    return orjson.dumps(shown)[:-1] + b"," + SCORE
