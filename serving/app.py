"""The HTTP application of one process: what the handlers share, the routes, and one middleware.

Next: `routes_*.py` for the handlers, `answers.py` for the hot path, `processes.py` for how it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from aiohttp import web

from config.errors import StreamError
from config.settings import Settings
from serving import (
    metrics,
    routes_console,
    routes_events,
    routes_health,
    routes_items,
    routes_recommendations,
)
from serving.answers import Answers
from serving.bodies import BatchBody, Decoder, ItemBody, RecommendBody
from serving.context import CONTEXT, Context
from serving.exploration import Exposures
from serving.outage import Outage, StoreDown
from serving.problems import problem_of
from serving.publishing import Publisher
from serving.recommend import Recommender
from serving.status import Status
from store.connect import connect
from store.reader import StoreReader
from streams.event import EventRules
from streams.producer import RecordProducer
from streams.topics import bootstrap_of

__all__ = ["make_app"]

log = structlog.get_logger("headwater.http")

_REMEMBER_SECONDS = 2.0
_FLUSH_SECONDS = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(settings: Settings) -> web.Application:
    """The application; it connects when it starts. Raises SettingsError for missing addresses."""
    bootstrap_of(settings)
    app = web.Application(middlewares=[_boundary], client_max_size=settings.http.max_body_bytes)
    for routes in (
        routes_recommendations.routes,
        routes_events.routes,
        routes_items.routes,
        routes_health.routes,
        routes_console.routes,
    ):
        app.add_routes(routes)
    app.on_startup.append(routes_console.start_streams)
    app.on_shutdown.append(routes_console.end_streams)

    async def connected(app: web.Application) -> AsyncIterator[None]:
        async with _context(settings) as context:
            app[CONTEXT] = context
            yield

    app.cleanup_ctx.append(connected)
    return app


@web.middleware
async def _boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Exceptions become problems, and every request is counted."""
    started = time.perf_counter()
    try:
        response = await handler(request)
    except Exception as error:  # the one place where everything unexpected ends
        response = problem_of(error, request)
    resource = request.match_info.route.resource
    route = "none" if resource is None else resource.canonical
    if route != routes_console.STREAM:  # that one takes as long as somebody watches
        metrics.observe(route, response.status, time.perf_counter() - started)
    return response


@contextlib.asynccontextmanager
async def _context(settings: Settings) -> AsyncIterator[Context]:
    redis = connect(settings)
    producer = RecordProducer(bootstrap_of(settings), largest=settings.kafka.max_record_bytes)
    reader = StoreReader(redis, settings)
    outage = Outage(reader.ping, settings.redis.timeout_seconds)
    publisher = Publisher(producer)
    exposures = Exposures(publisher, settings.kafka.recommendations_topic)
    context = Context(
        settings=settings,
        reader=reader,
        answers=Answers(reader, Recommender(reader, settings), outage, exposures),
        outage=outage,
        publisher=publisher,
        rules=EventRules(settings.events),
        status=Status(),
        recommend_body=Decoder(RecommendBody),
        batch_body=Decoder(BatchBody),
        item_body=Decoder(ItemBody),
    )
    tasks = [
        asyncio.create_task(context.status.run()),
        asyncio.create_task(_remember(context.answers)),
    ]
    try:
        yield context
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await exposures.close()
        outage.close()
        try:
            await asyncio.to_thread(producer.close, _FLUSH_SECONDS)
        except StreamError as error:
            log.warning("left unconfirmed", error=str(error))
        await redis.aclose()


async def _remember(answers: Answers) -> None:
    """Keep at hand what is answered while the store is down."""
    while True:
        with contextlib.suppress(StoreDown):
            await answers.remember()
        await asyncio.sleep(_REMEMBER_SECONDS)
