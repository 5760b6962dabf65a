"""Items found by the words of their titles: against a search that looks at every item."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from config.settings import Settings
from store.commit import CatalogueEntry, Target
from store.connect import connect
from store.keys import Keys
from store.search import _MOST_COUNTED, _MOST_READ, TitleSearch
from store.words import MOST_WORDS, Entry, entry_words, folded, words_of
from store.writer import StoreWriter
from streams.columns import hash_id
from streams.item import CatalogueItem
from tests.oracle import Click
from tests.test_store import commit

SEED = 20_261_128
WORDS = (
    "Green",
    "gréen",
    "Tea",
    "teapot",
    "Straße",
    "Øl",
    "緑茶",
    "no",
    "n°",
    "12",
    "red",
    "RED-tea",
)


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = connect(settings)
    yield client
    await client.aclose()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Café CREME", ["cafe", "creme"]),
        ("Straße, Ærø & Łódź", ["strasse", "aero", "lodz"]),
        ("it's a 3-in-1_set", ["it", "s", "a", "3", "in", "1", "set"]),
        ("緑茶 tea", ["緑", "茶", "tea"]),
        ("tea Tea TÉA", ["tea"]),
        ("x" * 30, ["x" * 24]),
        ("— ! ", []),
    ],
)
def test_words_are_folded(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text(max_size=60))
def test_folding_once_is_enough_and_words_are_found_by_themselves(text: str) -> None:
    assert folded(folded(text)) == folded(text)
    words = words_of(text)
    assert words_of(" ".join(words)) == words
    assert words_of(text.upper()) == words_of(text.upper().casefold())
    assert len(words) <= MOST_WORDS


async def write(writer: StoreWriter, offset: int, entries: dict[str, CatalogueItem | None]) -> None:
    packed = [
        CatalogueEntry(
            hash_id(item),
            None if entry is None else msgspec.json.encode(entry),
            entry is None or entry.available,
        )
        for item, entry in entries.items()
    ]
    marks = await writer.read_catalogue_marks("items", 0)
    assert not (await writer.commit_catalogue(Target("items", 0, offset), marks, packed)).refused


def expected(known: dict[str, CatalogueItem], events: dict[str, int], text: str) -> list[str]:
    """All that match, best first; of what the catalogue has not, the item of just that id."""
    if events.get(text):
        known = {text: CatalogueItem(text), **known}
    words = words_of(text)
    found = []
    for item, entry in known.items():
        own = entry_words(msgspec.json.encode(entry))
        fits = bool(words) and all(any(one.startswith(w) for one in own) for w in words)
        if fits or item == text:
            first = folded(entry.title).startswith(folded(text.strip()))
            found.append((item != text, not first, -events.get(item, 0), entry.title, item))
    return [one[-1] for one in sorted(found)]


async def test_the_index_follows_the_catalogue(settings: Settings, redis: Redis) -> None:
    print(f"seed {SEED}")
    chance = Random(SEED)
    writer, search = StoreWriter(redis, settings), TitleSearch(redis, Keys(settings.store))
    items = [f"item-{n}" for n in range(40)] + ["tea", "Ünü"]
    log = [Click(n, "u", chance.choice(items), "view", 10**12 + n) for n in range(150)]
    await commit(writer, settings, log)
    events = {item: sum(one.item == item for one in log) for item in items}
    known: dict[str, CatalogueItem] = {}
    for offset in range(12):
        changed: dict[str, CatalogueItem | None] = {}
        for item in chance.sample(items, 12):
            title = " ".join(chance.choices(WORDS, k=chance.randrange(5)))
            made = CatalogueItem(item, title, available=chance.random() < 0.8)
            changed[item] = None if chance.random() < 0.2 else made
        await write(writer, offset, changed)
        known = {i: one for i, one in {**known, **changed}.items() if one is not None}
        for text in (
            "g",
            "te",
            "tea",
            "tea gre",
            "GREEN tea 12",
            "strass",
            "茶",
            "item-1",
            "zz",
            "!",
        ):
            found = await search.find(text, 100)
            assert [one.entry.item_id for one in found.items] == expected(known, events, text), text
            assert found.complete
            for one in found.items:
                assert one.events == events[one.entry.item_id]
                if own := known.get(one.entry.item_id):
                    assert one.entry == Entry(own.item_id, own.title, own.available)
    some = await search.find("i", 3)
    assert [one.entry.item_id for one in some.items] == expected(known, events, "i")[:3]
    assert not some.complete
    await write(writer, 20, dict.fromkeys(known))
    # Nothing is left of what is gone.
    assert [await redis.exists(Keys.words(prefix)) for prefix in Keys(settings.store).items] == [
        0,
        0,
    ]


async def test_an_item_without_an_entry_is_found_by_its_whole_id(
    settings: Settings, redis: Redis
) -> None:
    await commit(StoreWriter(redis, settings), settings, [Click(0, "u", "Ä 1", "view", 10**12)])
    search = TitleSearch(redis, Keys(settings.store))
    found = await search.find("Ä 1", 5)
    assert [(one.entry.item_id, one.entry.title, one.events) for one in found.items] == [
        ("Ä 1", "", 1)
    ]
    assert (await search.find("ä 1", 5)).items == []


async def test_of_very_many_the_exact_and_the_frequent_are_found(
    settings: Settings, redis: Redis
) -> None:
    writer, search = StoreWriter(redis, settings), TitleSearch(redis, Keys(settings.store))
    many = 2 * _MOST_COUNTED
    entries: dict[str, CatalogueItem | None] = {
        f"i{n}": CatalogueItem(f"i{n}", f"lamps {n % 3}") for n in range(many)
    }
    entries |= {f"exact{n}": CatalogueItem(f"exact{n}", "Lamp") for n in range(_MOST_READ + 50)}
    await write(writer, 0, entries)
    log = [Click(n, "u", "exact7", "view", 10**12 + n) for n in range(3)]
    await commit(writer, settings, log)
    found = await search.find("lamp", 20)
    assert not found.complete
    assert found.items[0].entry.item_id == "exact7"
    assert {one.entry.title for one in found.items} == {"Lamp"}
    both = await search.find(f"lamps i{many - 1}", 20)
    assert [one.entry.item_id for one in both.items] == [f"i{many - 1}"]
    assert both.complete
    assert np.all([one.events == 0 for one in both.items])
