"""The Faust app: agents that hand record batches to a pipeline, and timers around it.

Faust brings group membership, rebalancing and the reading of Kafka; what is true stands in the
store. An agent therefore never relies on an acknowledgement: a batch that the store cannot take in
order makes it read the partition again from where the store is.

One worker reads the topics of all tenants and keeps them apart: each has agents, a pipeline and
connections of its own (`following.py`). Which tenants there are is settled when it begins; where
that changes, it begins anew, which takes nothing from what was committed.

A worker follows the live generations: where another one becomes that, it reads on from where that
one stands. A builder (`building.py`) stays with the generation that it was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import faust
import structlog
from redis.exceptions import RedisError
from yarl import URL

from config.errors import StreamError
from config.settings import Settings
from processors import metrics
from processors.building import LateLetters, builders_group
from processors.following import Follower, Seat, follow_all
from processors.remade import TopicWatch
from processors.watchdog import PartitionState, Watchdog
from store.connect import connect
from store.forget import UserSweep
from store.generations import Generations
from streams.client import KeepsWaiting
from streams.connection import credentials
from streams.dead import DeadLetters
from streams.producer import RecordProducer
from streams.records import RecordBatch
from streams.topics import bootstrap_of
from streams.transport import BatchTransport

__all__ = ["make_app"]

log = structlog.get_logger("headwater.worker")

_BUFFERED_POLLS = 1
_LAG_SECONDS = 1.0
_CHECK_SECONDS = 2.0
_FOLLOW_SECONDS = 0.25
_FORGET_SECONDS = 1.0
_COMPACT_SECONDS = 0.1
_STALE_SECONDS = 0.5
_FETCH_BYTES = 1_048_576
_HEARTBEAT_SECONDS = 0.5
"""Until it is told that the group settles anew who reads what; what somebody left waits for it."""


def make_app(
    settings: Settings,
    seats: Sequence[Seat],
    *,
    builds: bool,
    stale: Callable[[], bool] = lambda: False,
) -> faust.App:
    """The Faust app of one worker, not started yet: it works for the tenants of its seats. It
    begins with their generations, and stays with the one of its only seat where it `builds` that.

    Once it is `stale` the process tells itself to stop. Raises SettingsError.
    """
    tenants = [tenant for tenant, _ in seats]
    app = _faust_app(settings, builders_group(tenants[0], seats[0][1].number) if builds else None)
    redis = connect(settings)
    producer = RecordProducer(settings.kafka, largest=2 * settings.kafka.max_record_bytes)
    closing: list[asyncio.Task[None]] = []
    watchdog = Watchdog(int(settings.worker.stuck_seconds / _LAG_SECONDS))
    topics = TopicWatch(redis, tenants)
    sweep = UserSweep(redis, *tenants)

    def failed(error: BaseException) -> None:
        log.error("this worker cannot go on", exc_info=error)
        closing.append(asyncio.get_running_loop().create_task(app.crash(error)))

    followers: list[Follower] = []
    of_topic: dict[str, Follower] = {}
    for seat in seats:
        tenant = seat[0]
        metrics.begin_at_zero(tenant.tenant)
        dead = (
            LateLetters(producer, redis, Generations(redis, tenant), tenant)
            if builds
            else DeadLetters(producer, tenant.kafka.dead_topic)
        )
        one = Follower(redis, seat, dead, topics, failed, builds=builds)
        one.applied = lambda *place: app.consumer.applied(*place)
        one.seek = lambda *place: app.consumer.seek_to(*place)
        one.share = lambda topic: app.consumer.share(topic)
        followers.append(one)
        of_topic |= dict.fromkeys([one.event_topic, *one.other_topics], one)
        _add_agents(app, one)

    async def position(topic: str, partition: int) -> int:
        return await of_topic[topic].position(topic, partition)

    app.transport.positions = position

    @app.timer(_FOLLOW_SECONDS)
    async def follow_the_live_generations() -> None:
        if builds:
            return
        for changed in await follow_all(followers):
            await app.consumer.seek_topics({changed.event_topic, *changed.other_topics})

    @app.timer(_LAG_SECONDS)
    async def report_lag() -> None:
        partitions = [PartitionState(*one) for one in app.consumer.lag()]
        metrics.show_lag(partitions, lambda topic: of_topic[topic].tenant.tenant)
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
        for one in followers:
            await one.now.report_new_items()

    @app.timer(_COMPACT_SECONDS)
    async def compact_grown_lists() -> None:
        for one in followers:
            await one.now.compact()

    @app.timer(_FORGET_SECONDS)
    async def forget_users() -> None:
        sweep.follow(*(one.now.settings for one in followers))
        with contextlib.suppress(RedisError):
            await sweep.step()

    @app.timer(_CHECK_SECONDS)
    async def find_lost_state() -> None:
        found: dict[str, list[tuple[str, int, int]]] = {}
        for place in app.consumer.contained():
            found.setdefault(of_topic[place[0]].tenant.tenant, []).append(place)
        for one in followers:
            if places := found.get(one.tenant.tenant):
                await one.find_lost(places)

    @app.timer(_STALE_SECONDS)
    async def end_once_stale() -> None:
        if stale():
            os.kill(os.getpid(), signal.SIGTERM)

    def gone(topic: str, partition: int) -> None:
        of_topic[topic].now.drop(topic, partition)

    app.transport.gone = gone

    @app.on_before_shutdown.connect
    async def close(*_: Any, **__: Any) -> None:
        await asyncio.gather(*(one.now.close() for one in followers))
        producer.close(seconds=5)
        await redis.aclose()

    return app


def _add_agents(app: faust.App, one: Follower) -> None:
    """An agent for each topic: one that has to wait holds up no other."""

    async def read(stream: Any) -> AsyncIterator[RecordBatch]:
        async for batches in stream:
            for batch in batches:
                if app.consumer.reads(batch.topic, batch.partition):
                    yield batch

    async def fold_events(stream: Any) -> None:
        async for batch in read(stream):
            await one.now.put_events(batch)

    async def apply_others(stream: Any) -> None:
        async for batch in read(stream):
            await one.now.apply(batch)

    for topic in (one.event_topic, *one.other_topics):
        work = fold_events if topic == one.event_topic else apply_others
        source = app.topic(topic, value_serializer="raw", key_serializer="raw")
        app.agent(source, name=f"read {topic}")(work)


def _faust_app(settings: Settings, group: str | None) -> faust.App:
    """An app without agents, in the workers' group unless another is given."""
    broker = [URL(f"kafka://{address}") for address in bootstrap_of(settings).split(",")]
    app = faust.App(
        group or settings.kafka.group,
        broker=broker,
        broker_credentials=credentials(settings.kafka),
        store="memory://",
        web_enabled=False,
        datadir=str(settings.services.data_dir / "faust"),
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=_FETCH_BYTES,
        broker_max_poll_records=settings.worker.max_poll_records,
        broker_session_timeout=settings.worker.session_timeout_seconds,
        broker_heartbeat_interval=_HEARTBEAT_SECONDS,
        stream_buffer_maxsize=_BUFFERED_POLLS,
        # State is committed batch by batch, so a worker may go at any moment.
        stream_wait_empty=False,
    )
    app.transport = BatchTransport(broker, app, loop=None)
    app.flow_control = KeepsWaiting()
    return app
