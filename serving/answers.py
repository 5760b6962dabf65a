"""Recommendation answers as bytes, with titles; and what is answered while the store is down.

    {"recommendation_id": …, "items": [{"item_id", "title"?, "score"}, …], "degraded": false}

The last item may have `"explored": true`: a new one, there to be tried (`exploration.py`).

Where a request asked why, each item also has

    "explanation": {"contributions": [{"item_id", "title"?, "co_occurrence", "repeat"}, …],
                    "trending", "factor"}

with score = factor · Σ (co_occurrence + repeat) + trending. Numbers have nine digits, so that this
holds for who adds them up.

What an item looks like is kept as a ready piece of JSON for `_SHOWN_SECONDS`, so that a busy server
reads and encodes the text of a popular item a few times a second at most.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Awaitable, Callable

import msgspec
import numpy as np
import orjson

from processors.popularity import WINDOWS
from serving import metrics
from serving.explain import Explanation
from serving.exploration import Exposures
from serving.outage import Outage, StoreDown
from serving.recommend import Choice, Recommender, Relation, Scored
from store.found import ItemText
from store.reader import StoreReader
from store.shared import Together
from streams.columns import U64

__all__ = ["MOST", "Answers", "title_of"]

MOST = 100
"""Items in one answer, at most."""

_SCORE = b'"score":'
_SHOWN_SECONDS = 1.0
_KEPT_TEXTS = 200_000
_ANYONE = "anyone"
Find = Callable[[], Awaitable[Scored]]
Pieces = dict[int, bytes]


class _Title(msgspec.Struct):
    title: str = ""


_title_decoder = msgspec.json.Decoder(_Title)


def title_of(text: ItemText) -> str:
    """The title in an item's catalogue entry, empty where there is none."""
    return _title_decoder.decode(text.catalogue).title if text.catalogue else ""


class Answers:
    """Encodes what a recommender finds; keeps the last good trending for when it finds nothing."""

    def __init__(
        self,
        reader: StoreReader,
        recommender: Recommender,
        outage: Outage,
        exposures: Exposures,
    ) -> None:
        self._reader = reader
        self._recommender = recommender
        self._outage = outage
        self._exposures = exposures
        self._shown: dict[int, tuple[float, bytes]] = {}
        self._read_together = Together(self._read_pieces)
        self._last_good: dict[str, tuple[Scored, Pieces]] = {}
        # Unique across processes and restarts without asking anyone.
        self._prefix = secrets.token_hex(5)
        self._numbers = itertools.count()

    async def recommend(self, choice: Choice, user_id: str | None = None) -> bytes:
        """For a user or a session. Raises StoreDown when there is nothing to fall back to.

        `user_id` is what `choice.user` is the hash of.
        """
        return await self._answer(
            lambda: self._recommender.recommend(choice), choice.n, _ANYONE, choice.exclude, user_id
        )

    async def similar(self, item: int, n: int, relation: Relation) -> bytes:
        """For an item (a hash). Raises StoreDown as `recommend` does."""
        own = np.array([item], np.uint64)
        return await self._answer(
            lambda: self._recommender.similar(item, n, relation), n, _ANYONE, own
        )

    async def trending(self, window: str, n: int) -> bytes:
        """For a window of `processors.popularity.WINDOWS`. Raises StoreDown as `recommend` does."""
        return await self._answer(lambda: self._trending(window, n), n, window, None)

    async def remember(self) -> None:
        """Read what everybody is shown while the store is down. Raises StoreDown."""

        async def read() -> None:
            found = await self._recommender.best(Choice(MOST))
            if len(found.item):
                self._last_good[_ANYONE] = found, await self._pieces(found.item)

        await self._outage.ask(read)

    async def _trending(self, window: str, n: int) -> Scored:
        found = await self._recommender.trending(window, MOST)
        self._last_good[window] = found, await self._pieces(found.item)
        return Scored(found.item[:n], found.score[:n])

    async def _answer(
        self,
        find: Find,
        n: int,
        kept: str,
        left_out: U64 | None,
        user_id: str | None = None,
    ) -> bytes:
        answer_id = f"{self._prefix}{next(self._numbers):x}"
        try:
            found, pieces = await self._outage.ask(self._read, find)
        except StoreDown as down:
            found, pieces = self._kept(kept, n, left_out, down)
            metrics.DEGRADED.labels(down.cause).inc()
            return _encode(answer_id, found, pieces, b"true")
        if found.explored is not None and (piece := pieces.get(int(found.item[-1]))):
            item_id = orjson.loads(piece.removesuffix(b"," + _SCORE) + b"}")["item_id"]
            self._exposures.tell(answer_id, user_id, item_id, found.explored)
        return _encode(answer_id, found, pieces, b"false")

    async def _read(self, find: Find) -> tuple[Scored, Pieces]:
        found = await find()
        named = found.item
        if found.why:
            named = np.unique(np.concatenate([named, *(why.item for why in found.why)]))
        return found, await self._pieces(named)

    def _kept(
        self, kept: str, n: int, left_out: U64 | None, down: StoreDown
    ) -> tuple[Scored, Pieces]:
        order = (kept, _ANYONE, *WINDOWS)
        good = next((self._last_good[k] for k in order if k in self._last_good), None)
        if good is None:
            raise down
        found, pieces = good
        if left_out is not None:
            keep = ~np.isin(found.item, left_out)
            found = Scored(found.item[keep], found.score[keep])
        return Scored(found.item[:n], found.score[:n]), pieces

    async def _pieces(self, items: U64) -> Pieces:
        """JSON of each item up to its score; items without a name are left out."""
        now = time.monotonic()
        shown = self._shown
        pieces: Pieces = {}
        missing: list[int] = []
        for item in items.tolist():
            known = shown.get(item)
            if known is not None and known[0] > now:
                pieces[item] = known[1]
            else:
                missing.append(item)
        for item, piece in zip(missing, await self._read_together.get(missing), strict=True):
            if piece:
                pieces[item] = piece
        return pieces

    async def _read_pieces(self, items: list[int]) -> list[bytes]:
        """Read what items look like, and keep it for a while; empty for one without a name."""
        if len(self._shown) > _KEPT_TEXTS:
            self._shown.clear()
        until = time.monotonic() + _SHOWN_SECONDS
        texts = await self._reader.texts(np.array(items, np.uint64))
        pieces = [_piece(text) if text.item_id else b"" for text in texts]
        self._shown.update(
            (item, (until, piece)) for item, piece in zip(items, pieces, strict=True) if piece
        )
        return pieces


def _encode(answer_id: str, found: Scored, pieces: Pieces, degraded: bytes) -> bytes:
    scores = zip(found.item.tolist(), found.score.tolist(), strict=True)
    if found.why is None:
        items = [b"%b%.9g}" % (pieces[item], s) for item, s in scores if item in pieces]
    else:
        items = [
            b"%b%.9g,%b}" % (pieces[item], score, _explanation(why, pieces))
            for (item, score), why in zip(scores, found.why, strict=True)
            if item in pieces
        ]
    if found.explored is not None and int(found.item[-1]) in pieces:
        items[-1] = items[-1][:-1] + b',"explored":true}'
    return b'{"recommendation_id":"%b","items":[%b],"degraded":%b}' % (
        answer_id.encode(),
        b",".join(items),
        degraded,
    )


def _piece(text: ItemText) -> bytes:
    title = title_of(text)
    shown = {"item_id": text.item_id, "title": title} if title else {"item_id": text.item_id}
    return orjson.dumps(shown)[:-1] + b"," + _SCORE


def _explanation(why: Explanation, pieces: Pieces) -> bytes:
    """What stands behind a score, as a member of a JSON object."""
    parts = zip(why.item.tolist(), why.co_occurrence.tolist(), why.repeat.tolist(), strict=True)
    contributions = [
        b'%b"co_occurrence":%.9g,"repeat":%.9g}'
        % (pieces[item].removesuffix(_SCORE), co_occurrence, repeat)
        for item, co_occurrence, repeat in parts
        if (co_occurrence or repeat) and item in pieces
    ]
    return b'"explanation":{"contributions":[%b],"trending":%.9g,"factor":%.9g}' % (
        b",".join(contributions),
        why.trending,
        why.factor,
    )
