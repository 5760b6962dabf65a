"""What to show: recommendations, similar items, trending."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import get_args

import numpy as np
from aiohttp import web

from config.errors import BadInput
from config.settings import ScenarioSettings
from processors.popularity import WINDOWS
from serving.bodies import RecommendBody, chosen, parameters, path_id, query_body
from serving.context import CONTEXT, json_response
from serving.recommend import Relation
from serving.wanted import Choice
from streams.columns import U64, hash_id

__all__ = ["FOR_USER", "routes"]

FOR_USER = "/v1/recommendations/{user_id}"
"""As metrics name the route that is asked for most."""

_RELATIONS: dict[str, Relation] = {relation: relation for relation in get_args(Relation)}
_PLAIN = ScenarioSettings()


async def for_user(request: web.Request) -> web.Response:
    """GET /v1/recommendations/{user_id}?n=20&scenario=news&diversity=0.5&explain=true.

    The plainest of these do not come here: see `front.py`.
    """
    context = request.app[CONTEXT]
    user_id = path_id(request, "user_id")
    choice = _choice(query_body(request, user_id), context.settings.scenarios)
    return json_response(await context.answers.recommend(choice, user_id))


async def for_body(request: web.Request) -> web.Response:
    """POST /v1/recommendations."""
    context = request.app[CONTEXT]
    parameters(request, set())
    body = context.recommend_body.read(await request.read())
    choice = _choice(body, context.settings.scenarios)
    return json_response(await context.answers.recommend(choice, body.user_id))


async def for_batch(request: web.Request) -> web.Response:
    """POST /v1/recommendations/batch: an array of bodies, an array of answers in their order."""
    context = request.app[CONTEXT]
    parameters(request, set())
    bodies = context.batch_body.read(await request.read())
    scenarios = context.settings.scenarios
    choices = [_choice(body, scenarios, f"[{at}].") for at, body in enumerate(bodies)]
    asked = zip(choices, bodies, strict=True)
    answers = await asyncio.gather(
        *(context.answers.recommend(choice, body.user_id) for choice, body in asked)
    )
    return json_response(b"[" + b",".join(answers) + b"]")


async def similar(request: web.Request) -> web.Response:
    """GET /v1/items/{item_id}/similar?n=20&relation=viewed."""
    item = hash_id(path_id(request, "item_id"))
    query = parameters(request, {"n", "relation"})
    asked = query.get("relation", "viewed")
    if asked not in _RELATIONS:
        known = " or ".join(_RELATIONS)
        raise BadInput(f"relation must be {known}, not {asked[:40]!r}", "relation")
    answers = request.app[CONTEXT].answers
    return json_response(await answers.similar(item, chosen(query), _RELATIONS[asked]))


async def trending(request: web.Request) -> web.Response:
    """GET /v1/trending?n=20&window=1h."""
    query = parameters(request, {"n", "window"})
    window = query.get("window", "1h")
    if window not in WINDOWS:
        raise BadInput(f"window must be one of {', '.join(WINDOWS)}, not {window[:40]!r}", "window")
    return json_response(await request.app[CONTEXT].answers.trending(window, chosen(query)))


def _choice(
    body: RecommendBody, scenarios: Mapping[str, ScenarioSettings], place: str = ""
) -> Choice:
    """What a body says goes over its scenario; without one, nothing more is asked for."""
    scenario = None
    if body.scenario is not None:
        scenario = scenarios.get(body.scenario)
        if scenario is None:
            raise BadInput(
                f"unknown scenario {body.scenario[:40]!r}; known: {', '.join(scenarios)}",
                f"{place}scenario",
            )
    asked = scenario or _PLAIN
    return Choice(
        body.n,
        None if body.user_id is None else hash_id(body.user_id),
        _hashed(body.session),
        _hashed(body.exclude),
        asked.exclude_seen if body.exclude_seen is None else body.exclude_seen,
        diversity=asked.diversity if body.diversity is None else body.diversity,
        explain=body.explain,
        window=None if scenario is None else scenario.window,
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
