"""/health/live, /health/ready and /metrics."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from config.settings import DEFAULT_TENANT
from serving import metrics
from serving.context import CONTEXT, json_response
from serving.outage import StoreDown
from serving.problems import RETRY_SECONDS, problem

__all__ = ["routes"]


async def live(_request: web.Request) -> web.Response:
    """The process answers."""
    return json_response(b'{"live":true}')


async def ready(request: web.Request) -> web.Response:
    """The store answers, and it is not too far behind the log: see `backlog.py`.

    While Kafka does not answer, what is known of the lag goes on to grow where something was
    missing, and `log_seen_seconds` tells how long ago the log was seen last: requests can be
    answered without Kafka. A server that has never seen the log claims nothing.
    """
    context = request.app[CONTEXT]
    lag, unseen = context.backlog.seconds(), context.backlog.unseen()
    most = context.settings.http.max_lag_seconds
    retry = {"Retry-After": RETRY_SECONDS}
    try:
        totals = await context.outage.ask(context.reader.totals)
    except StoreDown as down:
        return problem(503, str(down), headers=retry, cause=down.cause)
    if lag is None:
        said = "how far the store is behind the log is not known yet: is Kafka up?"
        return problem(503, said, headers=retry, cause="lag_unknown")
    if lag > most:
        return problem(
            503,
            f"the store is {lag:.0f} s behind the log, {most:.0f} s are allowed "
            "(http.max_lag_seconds): do workers run, and keep up?",
            headers=retry,
            cause="lag",
            lag_seconds=lag,
        )
    told = {"lag_seconds": lag, "log_seen_seconds": unseen, "events": totals.get("events", 0)}
    return json_response(orjson.dumps({"ready": True, **told}))


async def scrape(request: web.Request) -> web.Response:
    """What Prometheus reads, of all tenants, or what a named one may read of its own; of other
    processes' requests, those up to a second ago.
    """
    metrics.flush()
    context = request.app[CONTEXT]
    outcomes = await context.outcomes.last_known()
    tenant = context.settings.tenant
    own = None if tenant == DEFAULT_TENANT else tenant
    text = await asyncio.to_thread(metrics.exposition, context.readings.evaluations, outcomes, own)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


routes = [
    web.get("/health/live", live),
    web.get("/health/ready", ready),
    web.get("/metrics", scrape),
]
