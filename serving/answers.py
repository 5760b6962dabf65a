"""Recommendation answers as bytes, with titles.

    {"recommendation_id": …, "items": [{"item_id", "title"?, "score"}, …], "degraded": false}

What is answered where the store does not answer in time, with `"degraded": true`, is in
`fallback.py`.

Where a filter left too few, the answer also has

    "filled": {"trending": k, "outside_filter": m}

of which k items fit the filter and are only trending, and the last m do not fit it, each of which
says `"outside_filter": true`.

The last item may have `"explored": true`: a new one, there to be tried (`recommend.py`).

An answer that belongs to an experiment says which one, and which variant made it:

    "experiment": {"name": …, "variant": …}

One that is degraded belongs to none: it says nothing of the variant.

Where a request asked why, each item also has

    "explanation": {"contributions": [{"item_id", "title"?, "co_occurrence", "repeat"}, …],
                    "trending", "factor"}

with score = factor · Σ (co_occurrence + repeat) + trending, to seven digits of nine for who adds
them up.

Requests of the same moment are answered together, from the first read to the bytes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from config.traces import here, span
from serving.experiments import Assigned
from serving.explain import Explanation
from serving.exposures import Exposures
from serving.fallback import MOST, Display, Fallback, Pieces, displays
from serving.outage import Outage, StoreDown
from serving.recommend import TOGETHER, Recommender, Relation, Scored
from serving.shown import SCORE
from serving.wanted import Choice
from store.shared import Batched

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

__all__ = ["MOST", "Answers"]

_AT_ONCE = 2
Find = Callable[[], Awaitable[Scored]]


class _Request(NamedTuple):
    choice: Choice
    user_id: str | None
    came: float
    """Time of the loop's clock."""
    assigned: Assigned | None
    trace: SpanContext | None
    """Its span, while traces are on."""


class Answers:
    """Encodes what a recommender finds, or what its fallback does."""

    def __init__(
        self,
        recommender: Recommender,
        outage: Outage,
        exposures: Exposures,
        fallback: Fallback | None = None,
    ) -> None:
        self._recommender = recommender
        self.fallback = fallback or Fallback(recommender)
        """Answers while the store does not; answers of several kinds may share it."""
        self._outage = outage
        self._exposures = exposures
        self._together = Batched(self._recommend_all, TOGETHER, _AT_ONCE)
        # Unique across processes and restarts without asking anyone.
        self._prefix = secrets.token_hex(5)
        self._numbers = count()

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """What is under way by itself, to be ended before the store's connection is closed."""
        return {*self._together.tasks, *self._recommender.tasks}

    async def recommend(
        self, choice: Choice, user_id: str | None = None, assigned: Assigned | None = None
    ) -> bytes:
        """For a user or a session. Raises StoreDown when there is nothing to fall back to.

        `user_id` is what `choice.user` is the hash of; `assigned` is the variant that these
        answers are of.
        """
        came = asyncio.get_running_loop().time()
        return await self._together.get(_Request(choice, user_id, came, assigned, here()))

    def soon(
        self, choice: Choice, user_id: str | None, assigned: Assigned | None
    ) -> asyncio.Future[bytes]:
        """The same, for who has no task to wait in."""
        came = asyncio.get_running_loop().time()
        return self._together.put(_Request(choice, user_id, came, assigned, here()))

    async def similar(self, item: int, n: int, relation: Relation, skip: int = 0) -> bytes:
        """For an item (a hash): n in all, of which `skip` are left out. Raises StoreDown as
        `recommend` does.
        """
        try:
            return await self._answer(lambda: self._recommender.similar(item, n, relation), skip)
        except StoreDown as down:
            shown = await self.fallback.similar(item, n, relation, down)
            return self._degraded(shown.behind(skip))

    async def trending(self, window: str, n: int, skip: int = 0) -> bytes:
        """For a window of `processors.popularity.WINDOWS`, as `similar`."""

        async def find() -> Scored:
            found = await self._recommender.trending(window, MOST)
            await self.fallback.keep(found, window)
            return Scored(found.item[:n], found.score[:n])

        try:
            return await self._answer(find, skip)
        except StoreDown as down:
            return self._degraded((await self.fallback.trending(n, window, down)).behind(skip))

    async def remember(self) -> None:
        """Read what everybody is shown while the store is down. Raises StoreDown."""
        await self._outage.ask(self.fallback.remember)

    async def _recommend_all(self, asked: list[_Request]) -> list[bytes]:
        """Answers to requests of one moment, in the order in which they came."""
        links = [one.trace for one in asked if one.trace is not None]
        attributes = {"headwater.requests": len(asked)}
        with span("answer", attributes=attributes, links=links if len(asked) > 1 else ()):
            return await self._recommend_traced(asked)

    async def _recommend_traced(self, asked: list[_Request]) -> list[bytes]:
        late = 0
        while late < len(asked) and self._outage.is_late(asked[late].came):
            late += 1
        answers = await self._fall_back(asked[:late], StoreDown("late")) if late else []
        if late < len(asked):
            answers += await self._in_time(asked[late:])
        return answers

    async def _in_time(self, asked: list[_Request]) -> list[bytes]:
        choices = [one.choice for one in asked]
        try:
            shown = await self._outage.ask_since(asked[0].came, self._read_all, choices)
        except StoreDown as down:
            return await self._fall_back(asked, down)
        return [
            self._encoded(one.behind(who.choice.skip), who.user_id, who.assigned)
            for one, who in zip(shown, asked, strict=True)
        ]

    async def _fall_back(self, asked: list[_Request], down: StoreDown) -> list[bytes]:
        shown = await self.fallback.recommend_all([one.choice for one in asked], down)
        both = zip(shown, asked, strict=True)
        return [self._degraded(one.behind(who.choice.skip), who.user_id) for one, who in both]

    async def _read_all(self, choices: Sequence[Choice]) -> list[Display]:
        return await self._displays(await self._recommender.recommend_all(choices))

    async def _answer(self, find: Find, skip: int) -> bytes:
        async def read() -> list[Display]:
            return await self._displays([await find()])

        return self._encoded((await self._outage.ask(read))[0].behind(skip), None)

    async def _displays(self, found: list[Scored]) -> list[Display]:
        """Raises StoreDown where the store has lost what it knew: it answers, but says nothing."""
        if not all(len(one.item) for one in found) and await self.fallback.knows_better():
            raise StoreDown("store_empty")
        return await displays(self._recommender, found)

    def _encoded(
        self, shown: Display, user_id: str | None, assigned: Assigned | None = None
    ) -> bytes:
        answer_id = self._new_id()
        cost = shown.found.explored if shown.pieces and shown.pieces[-1] else None
        exposures = self._exposures
        if assigned is not None or cost is not None or exposures.everything:
            exposures.tell(answer_id, user_id, _ids(shown), assigned=assigned, cost=cost)
        return _encode(answer_id, shown, b"false", b"" if assigned is None else assigned.told)

    def _degraded(self, shown: Display, user_id: str | None = None) -> bytes:
        answer_id = self._new_id()
        if self._exposures.everything:
            self._exposures.tell(answer_id, user_id, _ids(shown), degraded=True)
        return _encode(answer_id, shown, b"true")

    def _new_id(self) -> str:
        return f"{self._prefix}{next(self._numbers):x}"


def _ids(shown: Display) -> list[str]:
    """Of the items that have a name."""
    pieces = [piece for piece in shown.pieces if piece]
    # Each piece is an object up to its score; one text is parsed quicker than many.
    items = orjson.loads(b"[%b0}]" % b"0},".join(pieces)) if pieces else []
    return [item["item_id"] for item in items]


def _encode(answer_id: str, shown: Display, degraded: bytes, experiment: bytes = b"") -> bytes:
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
    filled = b""
    if found.filled is not None and (found.filled.trending or found.filled.outside):
        outside = sum(piece is not None for piece in pieces[len(pieces) - found.filled.outside :])
        for place in range(len(items) - outside, len(items)):
            items[place] += b',"outside_filter":true'
        filled = b',"filled":{"trending":%d,"outside_filter":%d}' % (
            found.filled.trending,
            outside,
        )
    return b'{"recommendation_id":"%b","items":[%b]%b%b,"degraded":%b}' % (
        answer_id.encode(),
        b"%b}" % b"},".join(items) if items else b"",
        filled,
        experiment,
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
