"""The Faust app: agents that hand record batches to a pipeline, and timers around it.

Faust brings group membership, rebalancing and the reading of Kafka; what is true stands in the
store. An agent therefore never relies on an acknowledgement: a batch that the store cannot take in
order makes it read the partition again from where the store is.

A worker follows the live generation: where another one becomes that, it reads on from where that
one stands. A builder (`building.py`) stays with the generation that it was given.
"""

from __future__ import annotations

import asyncio
from typing import Any

import faust
import structlog
from faust.types import TP
from redis.exceptions import RedisError
from yarl import URL

from config.errors import StreamError
from config.settings import Settings
from processors import metrics
from processors.apply import ReadAgain
from processors.building import LateLetters, builders_group
from processors.pipeline import Pipeline
from processors.remade import TopicWatch
from processors.watchdog import PartitionState, Watchdog
from store.connect import connect
from store.generations import Generation, Generations, begin_at
from streams.dead import DeadLetters
from streams.producer import RecordProducer
from streams.topics import bootstrap_of
from streams.transport import BatchTransport, RecordBatch

__all__ = ["make_app"]

log = structlog.get_logger("headwater.worker")

_BUFFERED_BATCHES = 4
_LAG_SECONDS = 1.0
_CHECK_SECONDS = 2.0
_FOLLOW_SECONDS = 0.25
_FORGET_SECONDS = 1.0
_COMPACT_SECONDS = 0.1
_FETCH_BYTES = 1_048_576


def make_app(settings: Settings, generation: Generation, *, builds: bool) -> faust.App:
    """The Faust app of one worker, not started yet. It begins with `generation`, and stays with it
    where it `builds` that. Raises SettingsError.
    """
    app = _faust_app(settings, builders_group(settings, generation.number) if builds else None)
    kafka = settings.kafka
    redis = connect(settings)
    generations = Generations(redis, settings)
    producer = RecordProducer(bootstrap_of(settings), largest=2 * kafka.max_record_bytes)
    dead = (
        LateLetters(producer, redis, generations, settings)
        if builds
        else DeadLetters(producer, kafka.dead_topic)
    )
    closing: list[asyncio.Task[None]] = []
    watchdog = Watchdog(int(settings.worker.stuck_seconds / _LAG_SECONDS))

    def failed(error: BaseException) -> None:
        log.error("this worker cannot go on", exc_info=error)
        closing.append(asyncio.get_running_loop().create_task(app.crash(error)))

    def pipeline_of(one: Generation) -> Pipeline:
        async def applied(batch: RecordBatch, result: ReadAgain | int) -> None:
            # What was still under way when another generation became live says nothing of that.
            if current is not made:
                return
            if isinstance(result, ReadAgain):
                log.warning(
                    "reading again",
                    topic=batch.topic,
                    partition=batch.partition,
                    batch=batch.start,
                    offset=result.offset,
                )
                await app.consumer.seek_to(batch.topic, batch.partition, result.offset)
            else:
                app.consumer.applied(batch.topic, batch.partition, result)

        made = Pipeline(settings, one, dead, applied, failed, builds=builds)
        return made

    current = pipeline_of(generation)

    topics = TopicWatch(redis, settings)

    async def position(topic: str, partition: int) -> int:
        while True:
            try:
                await topics.follow(current.generation)
                return await current.position(topic, partition)
            except RedisError as error:
                log.warning("positions cannot be read yet", error=str(error))
                await asyncio.sleep(_FOLLOW_SECONDS)

    app.transport.positions = position

    @app.agent(app.topic(kafka.events_topic, value_serializer="raw", key_serializer="raw"))
    async def fold_events(stream: Any) -> None:
        async for batch in stream:
            await current.put_events(batch)

    @app.agent(app.topic(kafka.items_topic, value_serializer="raw", key_serializer="raw"))
    async def keep_catalogue(stream: Any) -> None:
        async for batch in stream:
            await current.apply(batch)

    @app.agent(app.topic(kafka.recommendations_topic, value_serializer="raw", key_serializer="raw"))
    async def count_exposures(stream: Any) -> None:
        async for batch in stream:
            await current.apply(batch)

    @app.timer(_FOLLOW_SECONDS)
    async def follow_the_live_generation() -> None:
        nonlocal current
        if builds:
            return
        try:
            live, lost = await generations.ensure_live(current.generation)
            if lost:
                await begin_at(redis, settings, live)
        except RedisError:
            return
        if live.number == current.generation.number:
            return
        log.info("another generation is live", before=current.generation.number, now=live.number)
        before, current = current, pipeline_of(live)
        await before.close()
        await app.consumer.perform_seek()

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
    async def follow_topics() -> None:
        if remade := await topics.remade():
            failed(
                StreamError(
                    f"deleted and made again: {', '.join(remade)}; this worker ends, and the next "
                    "one reads on from the beginning"
                )
            )

    looks: set[asyncio.Task[None]] = set()

    def cut(topic: str, partition: int) -> None:
        if not looks:
            log.error("the log ends before what was read of it", topic=topic, partition=partition)
            look = asyncio.get_running_loop().create_task(follow_topics())
            looks.add(look)
            look.add_done_callback(looks.discard)

    app.transport.cut = cut

    @app.timer(_CHECK_SECONDS)
    async def report_new_items() -> None:
        await current.report_new_items()

    @app.timer(_COMPACT_SECONDS)
    async def compact_grown_lists() -> None:
        await current.compact()

    @app.timer(_FORGET_SECONDS)
    async def forget_users() -> None:
        await current.forget()

    @app.timer(_CHECK_SECONDS)
    async def find_lost_state() -> None:
        """A Redis that came back without its end is behind what was applied: read again."""
        looking = current
        for topic, partition, applied in app.consumer.contained():
            try:
                lost = await looking.contained(topic, partition) < applied
            except RedisError:
                return  # the next batch waits for Redis anyway
            if looking is not current:
                return
            if lost:
                offset = await looking.position(topic, partition)
                log.warning("the store lost its end", topic=topic, partition=partition)
                app.consumer.applied(topic, partition, offset - 1)
                await app.consumer.seek_to(topic, partition, offset)

    @app.on_partitions_revoked.connect
    async def drop_lanes(_sender: Any, revoked: set[TP], **_: Any) -> None:
        for tp in revoked:
            current.drop(tp.topic, tp.partition)

    @app.on_before_shutdown.connect
    async def close(*_: Any, **__: Any) -> None:
        await current.close()
        producer.close(seconds=5)
        await redis.aclose()

    return app


def _faust_app(settings: Settings, group: str | None) -> faust.App:
    """An app without agents, in the workers' group unless another is given."""
    broker = [URL(f"kafka://{address}") for address in bootstrap_of(settings).split(",")]
    app = faust.App(
        group or settings.kafka.group,
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
    app.transport = BatchTransport(broker, app, loop=None)
    return app
