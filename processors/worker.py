"""The Faust app: agents that hand record batches to the appliers.

Faust brings group membership, rebalancing and the reading of Kafka; what is true stands in the
store. An agent therefore never relies on an acknowledgement: a batch that the store cannot take in
order makes it read the partition again from where the store is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import faust
import structlog
from faust.types import TP
from redis.exceptions import RedisError
from yarl import URL

from config.errors import StreamError
from config.settings import Settings
from processors import metrics
from processors.apply import EventApplier, ReadAgain
from processors.catalogue import CatalogueApplier
from processors.exposure import ExposureApplier
from processors.lanes import Lanes
from processors.learner import Learner
from processors.watchdog import PartitionState, Watchdog
from serving.recommend import Recommender
from store.connect import connect
from store.exposures import ExposureWriter
from store.forget import UserSweep
from store.reader import StoreReader
from store.writer import StoreWriter
from streams.dead import DeadLetters
from streams.producer import RecordProducer
from streams.topics import bootstrap_of
from streams.transport import BatchConsumer, BatchTransport, RecordBatch

__all__ = ["make_app"]

log = structlog.get_logger("headwater.worker")

_BUFFERED_BATCHES = 4
_LAG_SECONDS = 1.0
_CHECK_SECONDS = 2.0
_FORGET_SECONDS = 1.0
_COMPACT_SECONDS = 0.1
_FETCH_BYTES = 1_048_576


def make_app(settings: Settings) -> faust.App:
    """The Faust app of one worker, not started yet."""
    kafka = settings.kafka
    broker = [URL(f"kafka://{address}") for address in bootstrap_of(settings).split(",")]
    app = faust.App(
        kafka.group,
        broker=broker,
        store="memory://",
        web_enabled=False,
        datadir=str(settings.services.data_dir / "faust"),
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=_FETCH_BYTES,
        broker_max_poll_records=settings.worker.max_poll_records,
        broker_session_timeout=settings.worker.session_timeout_seconds,
        broker_heartbeat_interval=settings.worker.session_timeout_seconds / 5,
        stream_buffer_maxsize=_BUFFERED_BATCHES,
        # State is committed batch by batch, so a worker may go at any moment.
        stream_wait_empty=False,
    )
    redis = connect(settings)
    writer, sweep = StoreWriter(redis, settings), UserSweep(redis, settings)
    producer = RecordProducer(bootstrap_of(settings), largest=2 * kafka.max_record_bytes)
    dead = DeadLetters(producer, kafka.dead_topic)
    reader = StoreReader(redis, settings)
    learner = Learner(Recommender(reader, settings), reader, settings, settings.learn.per_second)
    events = EventApplier(settings, writer, dead, learner)
    catalogue = CatalogueApplier(writer, dead)
    exposures = ExposureApplier(ExposureWriter(redis, settings), dead)
    appliers: dict[str, EventApplier | CatalogueApplier | ExposureApplier] = {
        kafka.events_topic: events,
        kafka.items_topic: catalogue,
        kafka.recommendations_topic: exposures,
    }

    async def position(topic: str, partition: int) -> int:
        return await appliers[topic].position(topic, partition)

    app.transport = BatchTransport(broker, app, loop=None)
    app.transport.positions = position

    async def apply_events(batches: Sequence[RecordBatch]) -> None:
        for batch, result in zip(batches, await events.apply(batches), strict=True):
            await _applied(app.consumer, batch, result)

    def failed(error: BaseException) -> None:
        log.error("this worker cannot go on", exc_info=error)
        closing.append(asyncio.get_running_loop().create_task(app.crash(error)))

    closing: list[asyncio.Task[None]] = []
    watchdog = Watchdog(int(settings.worker.stuck_seconds / _LAG_SECONDS))
    lanes = Lanes(apply_events, failed, settings.worker.max_poll_records)

    @app.agent(app.topic(kafka.events_topic, value_serializer="raw", key_serializer="raw"))
    async def fold_events(stream: Any) -> None:
        async for batch in stream:
            await lanes.put(batch)

    @app.agent(app.topic(kafka.items_topic, value_serializer="raw", key_serializer="raw"))
    async def keep_catalogue(stream: Any) -> None:
        async for batch in stream:
            offset = await catalogue.apply(batch)
            app.consumer.applied(batch.topic, batch.partition, offset)

    @app.agent(app.topic(kafka.recommendations_topic, value_serializer="raw", key_serializer="raw"))
    async def count_exposures(stream: Any) -> None:
        async for batch in stream:
            await _applied(app.consumer, batch, await exposures.apply(batch))

    @app.timer(_LAG_SECONDS)
    async def report_lag() -> None:
        partitions = [PartitionState(*one) for one in app.consumer.lag()]
        for one in partitions:
            metrics.LAG.labels(one.topic, str(one.partition)).set(one.lag)
        if (stuck := watchdog.look(partitions)) is not None:
            failed(
                StreamError(
                    f"nothing of {stuck.topic}-{stuck.partition} was committed for "
                    f"{settings.worker.stuck_seconds} s, while its lag grew to {stuck.lag}: see "
                    "above what kept this worker, and whether Redis takes writes"
                )
            )

    @app.timer(_CHECK_SECONDS)
    async def report_new_items() -> None:
        with contextlib.suppress(RedisError):
            metrics.NEW_ITEMS.set((await reader.new_items()).count)

    @app.timer(_COMPACT_SECONDS)
    async def compact_grown_lists() -> None:
        with contextlib.suppress(RedisError):
            await events.compaction.some()

    @app.timer(_FORGET_SECONDS)
    async def forget_users() -> None:
        with contextlib.suppress(RedisError):
            await sweep.step()

    @app.timer(_CHECK_SECONDS)
    async def find_lost_state() -> None:
        """A Redis that came back without its end is behind what was applied: read again."""
        for topic, partition, applied in app.consumer.contained():
            try:
                lost = await appliers[topic].contained(topic, partition) < applied
            except RedisError:
                return  # the next batch waits for Redis anyway
            if lost:
                offset = await position(topic, partition)
                log.warning("the store lost its end", topic=topic, partition=partition)
                app.consumer.applied(topic, partition, offset - 1)
                await app.consumer.seek_to(topic, partition, offset)

    @app.on_partitions_revoked.connect
    async def drop_lanes(_sender: Any, revoked: set[TP], **_: Any) -> None:
        for tp in revoked:
            lanes.drop(tp.topic, tp.partition)

    @app.on_before_shutdown.connect
    async def close(*_: Any, **__: Any) -> None:
        lanes.close()
        producer.close(seconds=5)
        await redis.aclose()

    return app


async def _applied(consumer: BatchConsumer, batch: RecordBatch, result: ReadAgain | int) -> None:
    if isinstance(result, ReadAgain):
        log.warning(
            "reading again",
            topic=batch.topic,
            partition=batch.partition,
            batch=batch.start,
            offset=result.offset,
        )
        await consumer.seek_to(batch.topic, batch.partition, result.offset)
    else:
        consumer.applied(batch.topic, batch.partition, result)
