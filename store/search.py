"""Finds items of the catalogue by the words of their titles and ids.

Each item shard has its items' words in order, as members of a sorted set: a word, a zero, the item.
All that begin with what was typed so far stand side by side, so a search reads these and nothing
else, however large the catalogue is. The index is written with the entries
(`lua/commit_catalogue.lua`); `words.py` folds.

What is read has bounds, so that no search is long, in Redis or here: of a word with more than
5,000 items (1,000 where it is the only one) the first ones in the alphabet are looked at, exact
matches before longer words; of these, the 1,000 first ones' counts and the 120 most frequent ones'
entries. Where a bound was met, the answer says that it is not complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from redis.asyncio import Redis

from store.keys import Keys
from store.layout import name_of, unpack_statistics
from store.words import Entry, entry_of, entry_words, folded, words_of
from streams.columns import U64, hash_id

__all__ = ["FoundItem", "FoundItems", "TitleSearch"]

_MOST_OF_WORD = 5_000
_MOST_COUNTED = 1_000
_MOST_READ = 120


@dataclass(frozen=True, slots=True)
class FoundItem:
    """One item that was found."""

    entry: Entry
    events: int
    """Counted of it so far."""


@dataclass(frozen=True, slots=True)
class FoundItems:
    """Items, best first."""

    items: list[FoundItem]
    complete: bool
    """Whether all that match were looked at, and are here."""


@dataclass(frozen=True, slots=True)
class _Matches:
    item: U64
    complete: bool


class TitleSearch:
    """Searches one generation. Raises redis.RedisError."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def find(self, text: str, n: int) -> FoundItems:
        """At most n items whose words begin with those of a text, in any order.

        The item of just that id comes first, whether or not the catalogue has it; then titles that
        begin with the text; then what has the most events.
        """
        words = words_of(text)
        matches = await self._matches(words)
        looked = matches.item[:_MOST_COUNTED]
        named = np.array([hash_id(text)], np.uint64)
        looked = np.concatenate([named, looked[looked != named[0]]])
        values: list[bytes | None] = await self._redis.mget(self._keys.statistics(looked))  # type: ignore[assignment]
        events = unpack_statistics(values)["events"].astype(np.int64)
        events[0] = np.iinfo(np.int64).max  # read in any case
        best = np.argsort(-events, kind="stable")[:_MOST_READ]
        entries: list[bytes | None] = await self._redis.mget(self._keys.catalogue(looked[best]))  # type: ignore[assignment]
        events[0] = unpack_statistics(values[:1])["events"][0]
        found = []
        for at, value in zip(best.tolist(), entries, strict=True):
            entry = entry_of(value)
            if at == 0:
                if entry is None and (name := name_of(values[0])):
                    entry = Entry(name)
                if entry is not None and entry.item_id != text:
                    entry = None  # another id of the same hash
            elif not _fits(words, value):
                entry = None
            if entry is not None:
                found.append(FoundItem(entry, int(events[at])))
        plain = folded(text.strip())
        found.sort(
            key=lambda one: (
                one.entry.item_id != text,
                not folded(one.entry.title).startswith(plain),
                -one.events,
                one.entry.title,
                one.entry.item_id,
            )
        )
        complete = matches.complete and len(looked) <= _MOST_READ and len(found) <= n
        return FoundItems(found[:n], complete)

    async def _matches(self, words: Sequence[str]) -> _Matches:
        """Items that have all words, exact ones first where there is one word."""
        if not words:
            return _Matches(np.zeros(0, np.uint64), True)
        if len(words) == 1:
            return await self._of_word(words[0], _MOST_COUNTED)
        counts = await self._counts(words)
        # The rarest words first: of two that are in half of all titles, one is not read.
        order = sorted(range(len(words)), key=counts.__getitem__)
        found = await self._of_word(words[order[0]], _MOST_OF_WORD)
        for place in order[1:]:
            if counts[place] > _MOST_OF_WORD or not len(found.item):
                break  # the entries tell
            more = await self._of_word(words[place], _MOST_OF_WORD)
            kept = found.item[np.isin(found.item, more.item)]
            found = _Matches(kept, found.complete and more.complete)
        return found

    async def _counts(self, words: Sequence[str]) -> list[int]:
        pipeline = self._redis.pipeline(transaction=False)
        for word in words:
            for prefix in self._keys.items:
                pipeline.zlexcount(self._keys.words(prefix), *_range(word))
        counts = np.array(await pipeline.execute(), np.int64)
        totals: list[int] = counts.reshape(len(words), -1).sum(axis=1).tolist()
        return totals

    async def _of_word(self, word: str, most: int) -> _Matches:
        """Items with words that begin with this one: about as many of each shard."""
        limit = -(-most // self._keys.shards)
        pipeline = self._redis.pipeline(transaction=False)
        for prefix in self._keys.items:
            pipeline.zrangebylex(self._keys.words(prefix), *_range(word), start=0, num=limit)
        shards: list[list[bytes]] = await pipeline.execute()
        # In order over all shards: exact words before longer ones.
        members = sorted(member for some in shards for member in some)
        items = np.frombuffer(b"".join(member[-8:] for member in members), "<u8")
        _, first = np.unique(items, return_index=True)
        complete = all(len(some) < limit for some in shards)
        return _Matches(items[np.sort(first)].astype(np.uint64), complete)


def _range(word: str) -> tuple[bytes, bytes]:
    """All members that begin with a word; no byte of UTF-8 is 255."""
    return b"[" + word.encode(), b"(" + word.encode() + b"\xff"


def _fits(words: Sequence[str], value: bytes | None) -> bool:
    """Whether an entry, which may have changed since the index was read, has these words."""
    known = entry_words(value)
    return all(any(one.startswith(word) for one in known) for word in words)
