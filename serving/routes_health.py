"""/health/live, /health/ready and /metrics."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from serving import metrics
from serving.context import CONTEXT, json_response
from serving.outage import StoreDown
from serving.problems import RETRY_SECONDS, problem

__all__ = ["routes"]


async def live(_request: web.Request) -> web.Response:
    """The process answers."""
    return json_response(b'{"live":true}')


async def ready(request: web.Request) -> web.Response:
    """The store answers and the workers are not too far behind, as far as their metrics tell."""
    context = request.app[CONTEXT]
    lag = context.status.lag_seconds()
    most = context.settings.http.max_lag_seconds
    retry = {"Retry-After": RETRY_SECONDS}
    try:
        totals = await context.outage.ask(context.reader.totals)
    except StoreDown as down:
        return problem(503, str(down), headers=retry, cause=down.cause)
    if lag is not None and lag > most:
        return problem(
            503,
            f"the workers are {lag:.0f} s behind, {most:.0f} s are allowed (http.max_lag_seconds)",
            headers=retry,
            cause="lag",
        )
    return json_response(
        orjson.dumps({"ready": True, "lag_seconds": lag, "events": totals.get("events", 0)})
    )


async def scrape(request: web.Request) -> web.Response:
    """What Prometheus reads; of other processes' requests, those up to a second ago."""
    metrics.flush()
    text = await asyncio.to_thread(metrics.exposition, request.app[CONTEXT].status.evaluation)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


routes = [
    web.get("/health/live", live),
    web.get("/health/ready", ready),
    web.get("/metrics", scrape),
]
