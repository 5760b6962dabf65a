"""What items look like: kept until the catalogue changes, and no longer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import msgspec
import orjson
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from config.settings import Settings
from serving.shown import Shown
from store.commit import CatalogueEntry, Target
from store.connect import connect
from store.found import ItemText
from store.reader import StoreReader
from store.writer import StoreWriter
from streams.columns import U64, hash_id
from streams.item import CatalogueItem


class Catalogue:
    """Commits entries, as a worker does, and remembers which items were read."""

    def __init__(self, redis: Redis, settings: Settings, patch: pytest.MonkeyPatch) -> None:
        patch.setattr("serving.shown._LOOK_SECONDS", 0.0)  # look each time
        self._writer = StoreWriter(redis, settings)
        self._last = -1
        reader = StoreReader(redis, settings)
        self.shown = Shown(reader, settings)
        self.read: list[int] = []
        texts = reader.texts

        async def noted(items: U64) -> list[ItemText]:
            self.read += items.tolist()
            return await texts(items)

        patch.setattr(reader, "texts", noted)

    async def put(self, entries: Mapping[str, str | None]) -> None:
        """Titles by item id; None deletes."""
        marks = await self._writer.read_catalogue_marks("items", 0)
        changed = [
            CatalogueEntry(
                hash_id(name),
                None
                if title is None
                else msgspec.json.encode(CatalogueItem(name, title, {"category": title.upper()})),
            )
            for name, title in entries.items()
        ]
        self._last += len(entries)
        target = Target("items", 0, self._last)
        assert not (await self._writer.commit_catalogue(target, marks, changed)).refused

    async def titles(self, *names: str) -> list[str | None]:
        # All of them twice, as in the answers to two requests.
        found, again = await self.shown.pieces([[hash_id(name) for name in names]] * 2)
        assert found == again
        return [orjson.loads(one + b"0}").get("title") if one else None for one in found]


@pytest_asyncio.fixture
async def catalogue(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Catalogue]:
    redis = connect(settings)
    yield Catalogue(redis, settings, monkeypatch)
    await redis.aclose()


async def test_only_what_changed_is_read_again(catalogue: Catalogue) -> None:
    names = [f"i{n}" for n in range(20)]
    assert await catalogue.titles(*names) == [None] * 20
    await catalogue.put({name: f"t{name}" for name in names})
    # What had no name was not kept.
    assert await catalogue.titles(*names) == [f"t{name}" for name in names]
    catalogue.read.clear()
    await catalogue.put({"i3": "new", "i4": None, "other": "o"})
    await catalogue.put({"i3": "newer", "i5": "five"})
    assert await catalogue.titles("i2", "i3", "i4", "i5") == ["ti2", "newer", None, "five"]
    assert sorted(catalogue.read) == sorted(map(hash_id, ("i3", "i4", "i5")))
    # Nothing but an entry knows the name of an item without events.
    categories = await catalogue.shown.categories([hash_id(n) for n in ("i2", "i3", "i4", "x")])
    assert categories == {"TI2", "NEWER"}


async def test_after_more_changes_than_are_named_everything_is_read_again(
    catalogue: Catalogue,
) -> None:
    names = [f"i{n}" for n in range(1500)]
    await catalogue.put({name: "a" for name in names})
    assert await catalogue.titles("i0", "i1", "i2") == ["a"] * 3
    await catalogue.put({"i0": "b"} | {name: "c" for name in names[1:]})
    assert await catalogue.titles("i0", "i1", "i2") == ["b", "c", "c"]
    await catalogue.put({"i2": "d"})
    assert await catalogue.titles("i0", "i1", "i2") == ["b", "c", "d"]


async def test_what_a_store_has_lost_is_not_shown(catalogue: Catalogue, settings: Settings) -> None:
    await catalogue.put({"a": "one", "b": "two"})
    assert await catalogue.titles("a", "b") == ["one", "two"]
    redis = connect(settings)
    keys = [key async for key in redis.scan_iter(f"{settings.store.namespace}*")]
    await redis.delete(*keys)
    await redis.aclose()
    catalogue.read.clear()
    await catalogue.titles("a", "b")
    assert sorted(catalogue.read) == sorted([hash_id("a"), hash_id("b")])
