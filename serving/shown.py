"""What items look like, as ready JSON, kept until the catalogue changes.

Names never change and catalogue entries seldom do, so neither is read again until the store tells
that an item's entry has changed. That is looked at four times a second, and told to who follows
(`judge.py`): a change shows within a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import orjson

from config.settings import Settings
from serving.filters import Attributes
from store.found import ItemText
from store.reader import StoreReader
from store.shared import Refreshed
from streams.columns import U64
from streams.item import category_of, facts_of

__all__ = ["SCORE", "Shown", "title_of"]

SCORE = b'"score":'
"""How each piece ends."""
_LOOK_SECONDS = 0.25
_MOST_KEPT = 200_000
_NO_FACTS: Attributes = {}

Follow = Callable[[U64 | None, U64], None]
"""Is told of items (hashes) whose entries have changed, None for all, and of which of these are not
available."""


def title_of(text: ItemText) -> str:
    """The title in an item's catalogue entry, empty where there is none."""
    return str(_facts_of(text)["title"]) if text.catalogue else ""


@dataclass(slots=True)
class _Kept:
    """By items' hashes."""

    pieces: dict[int, bytes] = field(default_factory=dict)
    facts: dict[int, Attributes] = field(default_factory=dict)

    def clear(self) -> None:
        """Keep nothing."""
        self.pieces.clear()
        self.facts.clear()

    def drop(self, item: int) -> None:
        """Keep nothing of one."""
        self.pieces.pop(item, None)
        self.facts.pop(item, None)


class Shown:
    """Keeps pieces and categories. Raises redis.RedisError."""

    def __init__(self, reader: StoreReader, settings: Settings) -> None:
        self._reader = reader
        self._attribute = settings.rank.category
        self._kept = _Kept()
        self._counts: list[int] = []
        self._looked = Refreshed(self._look, _LOOK_SECONDS)
        self._followers: list[Follow] = []

    def follow_with(self, follower: Follow) -> None:
        """Tell `follower` of changes, before anything that it has not heard of is shown."""
        self._followers.append(follower)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """What is looked at by itself, to be ended before the store's connection is closed."""
        return self._looked.tasks

    async def follow(self) -> None:
        """Look whether the catalogue has changed, if that was not done a moment ago."""
        await self._looked.get()

    async def pieces(self, items: Sequence[list[int]]) -> list[list[bytes | None]]:
        """Each list's pieces, None where nobody knows an item's (a hash's) name."""
        await self._prepare()
        found = [list(map(self._kept.pieces.get, some)) for some in items]
        if any([None in some for some in found]):
            known = self._kept.pieces
            await self._read([item for some in items for item in some if item not in known])
            found = [list(map(self._kept.pieces.get, some)) for some in items]
        return found

    def from_memory(self) -> Shown:
        """What is kept here, without asking the store for more."""
        return _Remembered(self._kept, self._attribute)

    async def facts(self, items: Collection[int]) -> Mapping[int, Attributes]:
        """By item (a hash): what the catalogue says of it, which may be nothing."""
        await self._prepare()
        while True:
            counts, kept = self._counts, self._kept.facts
            known = {item: kept[item] for item in items if item in kept}
            missing = [item for item in items if item not in known]
            if missing:
                known |= await self._read(missing)
            # What was kept may have changed while the others were read.
            if counts == self._counts:
                return known

    async def categories(self, items: Collection[int]) -> set[str]:
        """Categories of items (hashes), where the catalogue knows them."""
        facts = await self.facts(items)
        found = (category_of(one, self._attribute) for one in facts.values())
        return {one for one in found if one is not None}

    async def _prepare(self) -> None:
        await self._looked.get()
        if len(self._kept.pieces) > _MOST_KEPT:
            self._kept.clear()

    async def _read(self, items: Collection[int]) -> dict[int, Attributes]:
        """Read items and keep what has a name; returns what is known of each."""
        missing, found = list(set(items)), {}
        for item, text in zip(missing, await self._read_texts(missing), strict=True):
            found[item] = _facts_of(text)
            if text.item_id:
                self._kept.pieces[item] = _piece(text.item_id, str(found[item].get("title", "")))
                self._kept.facts[item] = found[item]
        return found

    async def _read_texts(self, items: list[int]) -> list[ItemText]:
        """Of one moment between two changes."""
        while True:
            counts = self._counts
            texts = await self._reader.texts(np.array(items, np.uint64))
            if counts == self._counts:
                return texts

    async def _look(self) -> None:
        """Drop what has changed since the last look, and tell who follows."""
        availability = self._reader.availability
        changes = await self._reader.catalogue_changes()
        counts = [now.count for now in changes]
        more = [now.count - before for now, before in zip(changes, self._counts, strict=False)]
        if counts == self._counts:
            return
        if self._counts and all(
            0 <= n <= len(one.latest) for n, one in zip(more, changes, strict=True)
        ):
            latest = [one.latest[:n] for n, one in zip(more, changes, strict=True)]
            items = np.unique(np.concatenate(latest))
            unavailable = items[await availability.are_unavailable(items)]
            for item in items.tolist():
                self._kept.drop(item)
            self._tell(items, unavailable)
        else:  # more than the store names, or it has lost some
            unavailable = await availability.unavailable()
            self._kept.clear()
            self._tell(None, unavailable)
        self._counts = counts

    def _tell(self, items: U64 | None, unavailable: U64) -> None:
        for follower in self._followers:
            follower(items, unavailable)


class _Remembered(Shown):
    """What another keeps."""

    def __init__(self, kept: _Kept, attribute: str) -> None:
        self._kept = kept
        self._attribute = attribute
        self._followers = []

    async def follow(self) -> None:
        """Nothing is heard of changes."""

    async def pieces(self, items: Sequence[list[int]]) -> list[list[bytes | None]]:
        return [list(map(self._kept.pieces.get, some)) for some in items]

    async def facts(self, items: Collection[int]) -> Mapping[int, Attributes]:
        """Of those that are kept."""
        return {item: self._kept.facts[item] for item in items if item in self._kept.facts}


def _facts_of(text: ItemText) -> Attributes:
    return facts_of(text.catalogue) if text.catalogue else _NO_FACTS


def _piece(item_id: str, title: str) -> bytes:
    shown = {"item_id": item_id, "title": title} if title else {"item_id": item_id}
    return orjson.dumps(shown)[:-1] + b"," + SCORE
