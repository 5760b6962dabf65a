"""The HTTP application of one process: what the handlers share, and the routes.

Next: `front.py` for what requests pass first, `routes_*.py` for the handlers, `answers.py` for the
hot path, `processes.py` for how it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import structlog
from aiohttp import web

from config.ending import end_tasks
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
from serving.backlog import Backlog
from serving.bodies import BatchBody, Decoder, ItemBody, RecommendBody
from serving.context import CONTEXT, Context
from serving.exploration import Exposures
from serving.outage import Outage, StoreDown
from serving.publishing import Publisher
from serving.status import Status
from serving.view import LiveView
from store.connect import connect
from store.generations import Generations
from streams.ends import LogEnds
from streams.producer import RecordProducer
from streams.topics import bootstrap_of

__all__ = ["make_app"]

log = structlog.get_logger("headwater.http")

_REMEMBER_SECONDS = 2.0
_METRICS_SECONDS = 1.0
_FLUSH_SECONDS = 2.0


def make_app(settings: Settings) -> web.Application:
    """The application; it connects when it starts. Raises SettingsError for missing addresses."""
    bootstrap_of(settings)
    app = web.Application(client_max_size=settings.http.max_body_bytes)
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


@contextlib.asynccontextmanager
async def _context(settings: Settings) -> AsyncIterator[Context]:
    redis = connect(settings)
    producer = RecordProducer(bootstrap_of(settings), largest=settings.kafka.max_record_bytes)

    async def ping() -> None:
        await live.now.reader.ping()

    outage = Outage(ping, settings.redis.timeout_seconds)
    publisher = Publisher(producer)
    exposures = Exposures(publisher, settings.kafka.recommendations_topic)
    live = LiveView(settings, Generations(redis, settings), outage, exposures)
    with contextlib.suppress(StoreDown):
        await live.look()
    topic = settings.kafka.events_topic

    async def contained(partitions: Sequence[int]) -> list[int]:
        return await outage.ask(live.now.reader.contained, topic, partitions)

    backlog = Backlog(LogEnds(bootstrap_of(settings), topic), contained)
    context = Context(
        settings=settings,
        live=live,
        outage=outage,
        publisher=publisher,
        backlog=backlog,
        status=Status(backlog.seconds),
        recommend_body=Decoder(RecommendBody),
        batch_body=Decoder(BatchBody),
        item_body=Decoder(ItemBody),
    )
    tasks = [
        asyncio.create_task(context.status.run()),
        asyncio.create_task(backlog.run()),
        asyncio.create_task(live.run()),
        asyncio.create_task(_remember(context)),
        asyncio.create_task(_flush_metrics()),
    ]
    try:
        yield context
    finally:
        await end_tasks(tasks)
        metrics.flush()
        await exposures.close()
        outage.close()
        try:
            await asyncio.to_thread(producer.close, _FLUSH_SECONDS)
        except StreamError as error:
            log.warning("left unconfirmed", error=str(error))
        await live.close()
        await redis.aclose()


async def _remember(context: Context) -> None:
    """Keep at hand what is answered while the store is down."""
    while True:
        with contextlib.suppress(StoreDown):
            await context.answers.remember()
        await asyncio.sleep(_REMEMBER_SECONDS)


async def _flush_metrics() -> None:
    while True:
        await asyncio.sleep(_METRICS_SECONDS)
        metrics.flush()
