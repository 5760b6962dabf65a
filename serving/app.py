"""The HTTP application of one process: what the handlers share, and the routes.

Next: `front.py` for what requests pass first, `routes_*.py` for the handlers, `answers.py` for the
hot path, `processes.py` for how it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import structlog
from aiohttp import web
from confluent_kafka.admin import AdminClient
from redis.asyncio import Redis

from config.ending import end_tasks
from config.errors import StreamError
from config.kafka_access import Refusals, client_options
from config.settings import DEFAULT_TENANT, Settings
from serving import (
    metrics,
    routes_admin,
    routes_console,
    routes_docs,
    routes_events,
    routes_experiments,
    routes_health,
    routes_items,
    routes_page_script,
    routes_recommendations,
    routes_search,
)
from serving.admission import ADMISSION, Admission
from serving.backlog import Backlog
from serving.bodies import BatchBody, Decoder, ItemBody, RecommendBody
from serving.context import CONTEXT, SETTINGS, Context
from serving.cors import allow_origins
from serving.desk import Desk
from serving.experiments import Experiments
from serving.exposures import Exposures
from serving.outage import Outage, StoreDown
from serving.outcomes import Outcomes
from serving.publishing import Publisher
from serving.scenarios import Scenarios
from serving.status import Readings, Status
from serving.tenants import TENANTS, Tenants
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
_LINGER_MS = 1
"""Events of one moment go to Kafka together; five of these had been a tenth of the way to answers
that know them."""
_OFTEN = 10
"""Of more tenants than that, each looks the rarer around for its generation, its log's end and what
everybody is shown: fifty that nobody asks cost as much as ten.
"""


def make_app(settings: Settings, shared: Shared | None = None) -> web.Application:
    """The application of a deployment, with those of its tenants behind it; or, with what they all
    share, that of one tenant. It connects when it starts. Raises SettingsError for missing
    addresses.
    """
    bootstrap_of(settings)
    scenarios = Scenarios(settings)
    experiments = Experiments(settings, lambda: scenarios.known)
    app = web.Application(client_max_size=settings.http.max_body_bytes)
    app[SETTINGS] = settings
    for routes in (
        routes_recommendations.routes,
        routes_events.routes,
        routes_items.routes,
        routes_search.routes,
        routes_experiments.routes,
        routes_health.routes,
        routes_console.routes,
        routes_admin.routes,
        routes_docs.routes,
        routes_page_script.routes,
    ):
        app.add_routes(routes)
    allow_origins(app, settings.http.cors_origins)
    app.on_startup.append(routes_console.start_streams)
    app.on_startup.append(routes_docs.prepare_description)
    app.on_shutdown.append(routes_console.end_streams)
    if shared is None:
        app.cleanup_ctx.append(_deployment(settings, scenarios, experiments))
    else:
        app.cleanup_ctx.append(_tenant(settings, scenarios, experiments, shared))
    return app


@dataclass(frozen=True)
class Shared:
    """What the applications of all tenants have in common."""

    redis: Redis
    producer: RecordProducer
    admin: AdminClient
    readings: Readings


Begin = Callable[[web.Application], AsyncIterator[None]]


def _deployment(settings: Settings, scenarios: Scenarios, experiments: Experiments) -> Begin:
    """Connects, then begins with the tenants. Raises SettingsError."""
    made: list[Shared] = []
    tenants = Tenants(settings, lambda one: make_app(one, made[0]))

    async def begin(app: web.Application) -> AsyncIterator[None]:
        async with (
            _shared(settings) as shared,
            _context(settings, scenarios, experiments, shared) as context,
        ):
            made.append(shared)
            app[CONTEXT] = context
            app[TENANTS] = tenants
            app[ADMISSION] = Admission(settings, shared.redis, tenants)
            await tenants.follow()
            tasks = [
                asyncio.create_task(shared.readings.run()),
                asyncio.create_task(app[ADMISSION].run()),
                asyncio.create_task(tenants.run()),
                asyncio.create_task(_flush_metrics()),
            ]
            try:
                yield
            finally:
                await end_tasks(tasks)
                await tenants.close()

    return begin


def _tenant(
    settings: Settings, scenarios: Scenarios, experiments: Experiments, shared: Shared
) -> Begin:
    async def begin(app: web.Application) -> AsyncIterator[None]:
        async with _context(settings, scenarios, experiments, shared) as context:
            app[CONTEXT] = context
            yield

    return begin


@contextlib.asynccontextmanager
async def _shared(settings: Settings) -> AsyncIterator[Shared]:
    kafka = settings.kafka
    # Whoever sends an event waits for the broker to have it.
    producer = RecordProducer(kafka, linger_ms=_LINGER_MS, largest=kafka.max_record_bytes)
    redis = connect(settings)
    admin = AdminClient(client_options(kafka, {"error_cb": Refusals(kafka)}))
    metrics.WORKERS.STARTS.labels("server").inc()
    try:
        yield Shared(redis, producer, admin, Readings())
    finally:
        metrics.flush()
        try:
            await asyncio.to_thread(producer.close, _FLUSH_SECONDS)
        except StreamError as error:
            log.warning("left unconfirmed", error=str(error))
        await redis.aclose()


@contextlib.asynccontextmanager
async def _context(
    settings: Settings, scenarios: Scenarios, experiments: Experiments, shared: Shared
) -> AsyncIterator[Context]:
    tenant = settings.tenant

    async def ping() -> None:
        await live.now.reader.ping()

    def rarer() -> float:
        few = tenant == DEFAULT_TENANT or len(shared.readings.statuses) <= _OFTEN
        return 1 if few else len(shared.readings.statuses) / _OFTEN

    metrics.begin_at_zero(tenant)
    outage = Outage(ping, settings.redis.timeout_seconds)
    publisher = Publisher(shared.producer)
    exposures = Exposures(
        shared.producer,
        settings.kafka.recommendations_topic,
        everything=settings.experiments.publish_all,
        tenant=tenant,
    )
    live = LiveView(settings, Generations(shared.redis, settings), outage, exposures)
    with contextlib.suppress(StoreDown):
        await live.look()
    topic = settings.kafka.events_topic

    async def contained(partitions: Sequence[int]) -> list[int]:
        return await outage.ask(live.now.reader.contained, topic, partitions)

    backlog = Backlog(LogEnds(settings.kafka, topic, shared.admin), contained)
    context = Context(
        settings=settings,
        live=live,
        outage=outage,
        publisher=publisher,
        backlog=backlog,
        scenarios=scenarios,
        experiments=experiments,
        outcomes=Outcomes(settings, shared.redis, live, outage, lambda: experiments.known),
        desk=Desk(settings, shared.redis, publisher),
        status=Status(backlog.seconds),
        readings=shared.readings,
        recommend_body=Decoder(RecommendBody),
        batch_body=Decoder(BatchBody),
        item_body=Decoder(ItemBody),
    )
    shared.readings.statuses[tenant] = context.status
    tasks = [
        asyncio.create_task(backlog.run(rarer)),
        asyncio.create_task(live.run(rarer)),
        asyncio.create_task(scenarios.run()),
        asyncio.create_task(experiments.run()),
        asyncio.create_task(_remember(context, rarer)),
    ]
    try:
        yield context
    finally:
        # With other settings, the same tenant may be served by another application by now.
        if shared.readings.statuses.get(tenant) is context.status:
            del shared.readings.statuses[tenant]
        await end_tasks(tasks)
        await context.desk.close()
        exposures.flush()
        outage.close()
        await live.close()


async def _remember(context: Context, rarer: Callable[[], float]) -> None:
    """Keep at hand what is answered while the store is down."""
    while True:
        with contextlib.suppress(StoreDown):
            await context.answers.remember()
        await asyncio.sleep(_REMEMBER_SECONDS * rarer())


async def _flush_metrics() -> None:
    while True:
        await asyncio.sleep(_METRICS_SECONDS)
        metrics.flush()
