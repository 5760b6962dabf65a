"""What to show: recommendations, similar items, trending."""

from __future__ import annotations

import asyncio

import numpy as np
from aiohttp import web

from config.errors import BadInput
from processors.popularity import WINDOWS
from serving.bodies import RecommendBody, chosen, parameters, path_id, query_n
from serving.context import CONTEXT, json_response
from serving.recommend import Choice
from streams.columns import U64, hash_id

__all__ = ["routes"]


async def for_user(request: web.Request) -> web.Response:
    """GET /v1/recommendations/{user_id}?n=20."""
    choice = Choice(query_n(request), hash_id(path_id(request, "user_id")))
    return json_response(await request.app[CONTEXT].answers.recommend(choice))


async def for_body(request: web.Request) -> web.Response:
    """POST /v1/recommendations."""
    context = request.app[CONTEXT]
    parameters(request, set())
    body = context.recommend_body.read(await request.read())
    return json_response(await context.answers.recommend(_choice(body)))


async def for_batch(request: web.Request) -> web.Response:
    """POST /v1/recommendations/batch: an array of bodies, an array of answers in their order."""
    context = request.app[CONTEXT]
    parameters(request, set())
    bodies = context.batch_body.read(await request.read())
    answers = await asyncio.gather(*(context.answers.recommend(_choice(b)) for b in bodies))
    return json_response(b"[" + b",".join(answers) + b"]")


async def similar(request: web.Request) -> web.Response:
    """GET /v1/items/{item_id}/similar?n=20."""
    n, item = query_n(request), hash_id(path_id(request, "item_id"))
    return json_response(await request.app[CONTEXT].answers.similar(item, n))


async def trending(request: web.Request) -> web.Response:
    """GET /v1/trending?n=20&window=1h."""
    query = parameters(request, {"n", "window"})
    window = query.get("window", "1h")
    if window not in WINDOWS:
        raise BadInput(f"window must be one of {', '.join(WINDOWS)}, not {window[:40]!r}", "window")
    return json_response(await request.app[CONTEXT].answers.trending(window, chosen(query)))


def _choice(body: RecommendBody) -> Choice:
    return Choice(
        body.n,
        None if body.user_id is None else hash_id(body.user_id),
        _hashed(body.session),
        _hashed(body.exclude),
        body.exclude_seen,
    )


def _hashed(ids: list[str] | None) -> U64 | None:
    return None if ids is None else np.array([hash_id(i) for i in ids], np.uint64)


routes = [
    web.get("/v1/recommendations/{user_id:[^/]*}", for_user),
    web.post("/v1/recommendations", for_body),
    web.post("/v1/recommendations/batch", for_batch),
    web.get("/v1/items/{item_id:[^/]*}/similar", similar),
    web.get("/v1/trending", trending),
]
