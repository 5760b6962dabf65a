"""/v1/experiments: which there are, and what their variants have led to."""

from __future__ import annotations

import msgspec
from aiohttp import web

from serving.bodies import parameters, path_id
from serving.context import CONTEXT, json_response
from serving.experiment_report import Experiments
from serving.problems import problem

__all__ = ["routes"]

_encoder = msgspec.json.Encoder()


async def all_of_them(request: web.Request) -> web.Response:
    """GET /v1/experiments."""
    parameters(request, set())
    found = await request.app[CONTEXT].outcomes.reports()
    return json_response(_encoder.encode(Experiments(found)))


async def one_of_them(request: web.Request) -> web.Response:
    """GET /v1/experiments/{experiment}."""
    parameters(request, set())
    name = path_id(request, "experiment")
    found = await request.app[CONTEXT].outcomes.reports()
    for one in found:
        if one.experiment == name:
            return json_response(_encoder.encode(one))
    known = ", ".join(one.experiment for one in found) or "none yet"
    return problem(
        404, f"there is no experiment {name[:40]!r}: there are {known}", field="experiment"
    )


routes = [
    web.get("/v1/experiments", all_of_them),
    web.get("/v1/experiments/{experiment:[^/]*}", one_of_them),
]
