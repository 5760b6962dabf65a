"""Recommendation answers as bytes, with titles; and what is answered while the store is down.

    {"recommendation_id": …, "items": [{"item_id", "title"?, "score"}, …], "degraded": false}

The last item may have `"explored": true`: a new one, there to be tried (`exploration.py`).

Where a request asked why, each item also has

    "explanation": {"contributions": [{"item_id", "title"?, "co_occurrence", "repeat"}, …],
                    "trending", "factor"}

with score = factor · Σ (co_occurrence + repeat) + trending, to seven digits of nine for who adds
them up.

Requests of the same moment are answered together, from the first read to the bytes.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count

import numpy as np
import orjson

from processors.popularity import WINDOWS
from serving import metrics
from serving.explain import Explanation
from serving.exploration import Exposures
from serving.outage import Outage, StoreDown
from serving.recommend import TOGETHER, Recommender, Relation, Scored
from serving.shown import SCORE
from serving.wanted import Choice
from store.shared import Batched
from streams.columns import U64

__all__ = ["MOST", "Answers"]

MOST = 100
"""Items in one answer, at most."""

_AT_ONCE = 2
_ANYONE = "anyone"
Find = Callable[[], Awaitable[Scored]]
Pieces = dict[int, bytes]
"""JSON of items up to the score, by their hashes."""


@dataclass(slots=True)
class _Shown:
    """An answer and what its items look like."""

    found: Scored
    pieces: list[bytes | None]
    """Of each item; None where nobody knows its name."""
    named: Pieces
    """Those of the items that explain it, among others."""


class Answers:
    """Encodes what a recommender finds; keeps the last good trending for when it finds nothing."""

    def __init__(self, recommender: Recommender, outage: Outage, exposures: Exposures) -> None:
        self._recommender = recommender
        self._outage = outage
        self._exposures = exposures
        self._together = Batched(self._recommend_all, TOGETHER, _AT_ONCE)
        self._last_good: dict[str, tuple[Scored, Pieces]] = {}
        # Unique across processes and restarts without asking anyone.
        self._prefix = secrets.token_hex(5)
        self._numbers = count()

    async def recommend(self, choice: Choice, user_id: str | None = None) -> bytes:
        """For a user or a session. Raises StoreDown when there is nothing to fall back to.

        `user_id` is what `choice.user` is the hash of.
        """
        return await self._together.get((choice, user_id))

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
                await self._keep(_ANYONE, found)

        await self._outage.ask(read)

    async def _trending(self, window: str, n: int) -> Scored:
        found = await self._recommender.trending(window, MOST)
        await self._keep(window, found)
        return Scored(found.item[:n], found.score[:n])

    async def _keep(self, kept: str, found: Scored) -> None:
        items = found.item.tolist()
        pieces = await self._recommender.shown.pieces([items])
        self._last_good[kept] = found, _by_item([items], pieces)

    async def _recommend_all(self, asked: list[tuple[Choice, str | None]]) -> list[bytes]:
        """Answers to requests of one moment, in order."""
        try:
            shown = await self._outage.ask(self._read_all, [choice for choice, _ in asked])
        except StoreDown as down:
            return [self._degraded(_ANYONE, one.n, one.exclude, down) for one, _ in asked]
        return [self._encoded(one, user_id) for one, (_, user_id) in zip(shown, asked, strict=True)]

    async def _read_all(self, choices: Sequence[Choice]) -> list[_Shown]:
        return await self._shown(await self._recommender.recommend_all(choices))

    async def _answer(self, find: Find, n: int, kept: str, left_out: U64 | None) -> bytes:
        async def read() -> list[_Shown]:
            return await self._shown([await find()])

        try:
            return self._encoded((await self._outage.ask(read))[0], None)
        except StoreDown as down:
            return self._degraded(kept, n, left_out, down)

    async def _shown(self, found: Sequence[Scored]) -> list[_Shown]:
        items = [one.item.tolist() for one in found]
        named = [why.item.tolist() for one in found for why in one.why or ()]
        pieces = await self._recommender.shown.pieces(items + named)
        names = _by_item(named, pieces[len(items) :])
        return [_Shown(one, some, names) for one, some in zip(found, pieces, strict=False)]

    def _encoded(self, shown: _Shown, user_id: str | None) -> bytes:
        answer_id = self._new_id()
        cost = shown.found.explored
        if cost is not None and (piece := shown.pieces[-1]):
            item_id = orjson.loads(piece.removesuffix(b"," + SCORE) + b"}")["item_id"]
            self._exposures.tell(answer_id, user_id, item_id, cost)
        return _encode(answer_id, shown, b"false")

    def _degraded(self, kept: str, n: int, left_out: U64 | None, down: StoreDown) -> bytes:
        """From what was kept. Raises `down` where nothing was."""
        order = (kept, _ANYONE, *WINDOWS)
        good = next((self._last_good[k] for k in order if k in self._last_good), None)
        if good is None:
            raise down
        metrics.DEGRADED.labels(down.cause).inc()
        found, pieces = good
        if left_out is not None:
            keep = ~np.isin(found.item, left_out)
            found = Scored(found.item[keep], found.score[keep])
        some = Scored(found.item[:n], found.score[:n])
        shown = _Shown(some, [pieces.get(item) for item in some.item.tolist()], pieces)
        return _encode(self._new_id(), shown, b"true")

    def _new_id(self) -> str:
        return f"{self._prefix}{next(self._numbers):x}"


def _by_item(items: Sequence[list[int]], pieces: Sequence[list[bytes | None]]) -> Pieces:
    """Those that have a piece."""
    both = zip(chain.from_iterable(items), chain.from_iterable(pieces), strict=True)
    return {item: piece for item, piece in both if piece}


def _encode(answer_id: str, shown: _Shown, degraded: bytes) -> bytes:
    """The answer. Items without a name are left out."""
    found, pieces = shown.found, shown.pieces
    scored = zip(pieces, _numbers(found), strict=True)
    if found.why is None:
        items = [piece + score for piece, score in scored if piece]
    else:
        items = [
            b"%b%b,%b" % (piece, score, _explanation(why, shown.named))
            for (piece, score), why in zip(scored, found.why, strict=True)
            if piece
        ]
    if found.explored is not None and pieces[-1]:
        items[-1] += b',"explored":true'
    return b'{"recommendation_id":"%b","items":[%b],"degraded":%b}' % (
        answer_id.encode(),
        b"%b}" % b"},".join(items) if items else b"",
        degraded,
    )


def _numbers(found: Scored) -> list[bytes]:
    """Scores as JSON, in those nine digits or less that tell a 32-bit number from others."""
    if not len(found.score):
        return []
    told = orjson.dumps(found.score.astype(np.float32), option=orjson.OPT_SERIALIZE_NUMPY)
    return told[1:-1].split(b",")


def _explanation(why: Explanation, pieces: Pieces) -> bytes:
    """What stands behind a score, as a member of a JSON object."""
    parts = zip(why.item.tolist(), why.co_occurrence.tolist(), why.repeat.tolist(), strict=True)
    contributions = [
        b'%b"co_occurrence":%.9g,"repeat":%.9g}'
        % (pieces[item].removesuffix(SCORE), co_occurrence, repeat)
        for item, co_occurrence, repeat in parts
        if (co_occurrence or repeat) and item in pieces
    ]
    return b'"explanation":{"contributions":[%b],"trending":%.9g,"factor":%.9g}' % (
        b",".join(contributions),
        why.trending,
        why.factor,
    )
