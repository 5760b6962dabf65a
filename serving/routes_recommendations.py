"""What to show: recommendations, similar items, trending."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple, get_args

import numpy as np
from aiohttp import web

from config.errors import BadInput
from processors.popularity import WINDOWS
from serving.answers import MOST, Answers
from serving.bodies import RecommendBody, paged, parameters, path_id, query_body
from serving.context import CONTEXT, Context, json_response
from serving.experiments import Assigned
from serving.filters import Boost, filter_of
from serving.recommend import Relation
from serving.scenarios import PLAIN, Scenario
from serving.wanted import Choice
from streams.columns import U64, hash_id

__all__ = ["FOR_USER", "Asked", "plain_request", "routes"]

FOR_USER = "/v1/recommendations/{user_id}"
"""As metrics name the route that is asked for most."""

_RELATIONS: dict[str, Relation] = {relation: relation for relation in get_args(Relation)}


async def for_user(request: web.Request) -> web.Response:
    """GET /v1/recommendations/{user_id}?n=20&scenario=news&diversity=0.5&explain=true.

    The plainest of these do not come here: see `front.py`.
    """
    context = request.app[CONTEXT]
    user_id = path_id(request, "user_id")
    return json_response(await _asked(context, query_body(request, user_id)).answer())


async def for_body(request: web.Request) -> web.Response:
    """POST /v1/recommendations."""
    context = request.app[CONTEXT]
    parameters(request, set())
    body = context.recommend_body.read(await request.read())
    return json_response(await _asked(context, body).answer())


async def for_batch(request: web.Request) -> web.Response:
    """POST /v1/recommendations/batch: an array of bodies, an array of answers in their order."""
    context = request.app[CONTEXT]
    parameters(request, set())
    bodies = context.batch_body.read(await request.read())
    # All of them are looked at before any is answered.
    asked = [_asked(context, body, f"[{at}].") for at, body in enumerate(bodies)]
    answers = await asyncio.gather(*(one.answer() for one in asked))
    return json_response(b"[" + b",".join(answers) + b"]")


async def similar(request: web.Request) -> web.Response:
    """GET /v1/items/{item_id}/similar?n=20&relation=viewed."""
    item = hash_id(path_id(request, "item_id"))
    query = parameters(request, {"n", "offset", "relation"})
    asked = query.get("relation", "viewed")
    if asked not in _RELATIONS:
        known = " or ".join(_RELATIONS)
        raise BadInput(f"relation must be {known}, not {asked[:40]!r}", "relation")
    answers = request.app[CONTEXT].answers
    n, skip = paged(query)
    return json_response(await answers.similar(item, n, _RELATIONS[asked], skip))


async def trending(request: web.Request) -> web.Response:
    """GET /v1/trending?n=20&window=1h."""
    query = parameters(request, {"n", "offset", "window"})
    window = query.get("window", "1h")
    if window not in WINDOWS:
        raise BadInput(f"window must be one of {', '.join(WINDOWS)}, not {window[:40]!r}", "window")
    n, skip = paged(query)
    return json_response(await request.app[CONTEXT].answers.trending(window, n, skip))


class Asked(NamedTuple):
    """A request that was held against all rules, and who answers it."""

    answers: Answers
    choice: Choice
    user_id: str | None
    assigned: Assigned | None

    async def answer(self) -> bytes:
        """The answer. Raises StoreDown."""
        return await self.answers.recommend(self.choice, self.user_id, self.assigned)

    def soon(self) -> asyncio.Future[bytes]:
        """The same, for who has no task to wait in."""
        return self.answers.soon(self.choice, self.user_id, self.assigned)


def plain_request(context: Context, user_id: str, n: int) -> Asked:
    """A request that says no more than that."""
    assigned = context.experiments.of(user_id, None)
    if assigned is not None and assigned.changes_scenario:
        return _asked(context, RecommendBody(user_id=user_id, n=n))
    return _of_view(context, Choice(n, hash_id(user_id)), user_id, assigned)


def _asked(context: Context, body: RecommendBody, place: str = "") -> Asked:
    """What a body asks for. Raises BadInput."""
    assigned = context.experiments.of(body.user_id, body.scenario)
    choice = _choice(body, context.scenarios.known, place, assigned)
    return _of_view(context, choice, body.user_id, assigned)


def _of_view(
    context: Context, choice: Choice, user_id: str | None, assigned: Assigned | None
) -> Asked:
    view = context.view
    answers = view.answers if assigned is None else view.answers_with(assigned.overlay)
    return Asked(answers, choice, user_id, assigned)


def _choice(
    body: RecommendBody,
    scenarios: Mapping[str, Scenario],
    place: str,
    assigned: Assigned | None,
) -> Choice:
    """What a body says goes over its variant, and that over its scenario; without these, nothing
    more is asked for.
    """
    scenario = None
    if body.scenario is not None:
        scenario = scenarios.get(body.scenario)
        if scenario is None:
            raise BadInput(
                f"unknown scenario {body.scenario[:40]!r}; known: {', '.join(scenarios)}",
                f"{place}scenario",
            )
    preset = scenario or PLAIN
    if assigned is not None and assigned.changes_scenario:
        scenario = preset = assigned.over(preset, scenarios)
    asked = preset.settings
    wanted, boosts = preset.filter, preset.boosts
    if body.filter is not None:
        wanted = filter_of(body.filter, f"{place}filter")
    if body.boost is not None:
        boosts = tuple(
            Boost(filter_of(one.filter, f"{place}boost[{at}].filter"), one.factor)
            for at, one in enumerate(body.boost)
        )
    return Choice(
        min(body.n + body.offset, MOST),
        None if body.user_id is None else hash_id(body.user_id),
        _hashed(body.session),
        _hashed(body.exclude),
        asked.exclude_seen if body.exclude_seen is None else body.exclude_seen,
        diversity=asked.diversity if body.diversity is None else body.diversity,
        explain=body.explain,
        window=None if scenario is None else asked.window,
        filter=wanted,
        boosts=boosts,
        skip=body.offset,
        strict=asked.strict if body.strict is None else body.strict,
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
