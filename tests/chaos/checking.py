"""The log read slowly, how far the store contains it, and what the store holds against it."""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from redis.asyncio import Redis
from redis.exceptions import RedisError

from config.settings import Settings
from store.commit import Target
from store.keys import FIRST_GENERATION, Keys
from store.layout import unpack_statistics
from store.writer import StoreWriter
from streams.columns import hash_id
from streams.topics import bootstrap_of
from tests.oracle import Click, Forget, Oracle
from tests.test_fold import rows_of
from tests.test_store import assert_store_is, hashes

__all__ = [
    "POISON",
    "Difference",
    "Log",
    "buried",
    "compare",
    "ends_of",
    "read_log",
    "until_contained",
]

POISON = "poison"
"""Header of records that were made to be refused."""
_ANSWER_SECONDS = 10.0
_T = TypeVar("_T")


@contextmanager
def _consumer(settings: Settings) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_of(settings),
            "group.id": f"reader-{secrets.token_hex(4)}",
            "enable.auto.commit": False,
            # A log may end with markers of transactions, which are no records.
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def ends_of(settings: Settings) -> dict[int, int]:
    """By partition of the events' topic: the offset of the next record.

    Raises KafkaException where Kafka does not say it, after many tries: a broker that has just come
    back answers before it leads its partitions.
    """
    topic = settings.kafka.events_topic
    limit = time.monotonic() + 3 * _ANSWER_SECONDS
    while True:
        try:
            with _consumer(settings) as consumer:
                return {
                    partition: consumer.get_watermark_offsets(
                        TopicPartition(topic, partition), timeout=_ANSWER_SECONDS
                    )[1]
                    for partition in range(settings.kafka.partitions)
                }
        except KafkaException:
            if time.monotonic() > limit:
                raise
            time.sleep(0.1)


@dataclass(slots=True)
class Log:
    """The events' topic as the broker has it."""

    records: dict[int, list[Click | Forget]] = field(default_factory=dict)
    """By partition: every event that must be counted, and every user who must be forgotten."""
    ids: set[str] = field(default_factory=set)
    """Of all events, those that must be refused included."""
    refused: int = 0
    """Records that must be refused: made for that, or of times that the settings forbid."""

    def all(self) -> list[Click | Forget]:
        """One partition after the other: users are in one of them each."""
        return [record for partition in sorted(self.records) for record in self.records[partition]]


def read_log(settings: Settings) -> Log:
    """Every record of the topic."""
    found = Log()
    with _consumer(settings) as consumer:
        for partition in range(settings.kafka.partitions):
            records = found.records[partition] = []
            for message in _records(consumer, settings.kafka.events_topic, partition):
                if POISON in _headers(message):
                    found.refused += 1
                    continue
                if message.value() is None:
                    records.append(Forget(message.offset() or 0, (message.key() or b"").decode()))
                    continue
                click = _click_of(message)
                found.ids.add(click.event_id)
                ahead = click.time - message.timestamp()[1]
                if ahead > settings.events.future_seconds * 1000:
                    found.refused += 1
                else:
                    records.append(click)
    return found


def buried(settings: Settings) -> set[tuple[bytes, bytes]]:
    """(partition, offset) of each record that stands among the dead letters."""
    found: set[tuple[bytes, bytes]] = set()
    with _consumer(settings) as consumer:
        for partition in range(settings.kafka.partitions):
            for message in _records(consumer, settings.kafka.dead_topic, partition):
                headers = _headers(message)
                found.add((headers["source.partition"], headers["source.offset"]))
    return found


def _records(consumer: Consumer, topic: str, partition: int) -> Iterator[Message]:
    """All records of a partition, up to where it ends now."""
    at = TopicPartition(topic, partition)
    position, end = consumer.get_watermark_offsets(at, timeout=_ANSWER_SECONDS)
    at.offset = position
    consumer.assign([at])
    while position < end:
        message = consumer.poll(_ANSWER_SECONDS)
        if message is None:
            raise RuntimeError(f"{topic} cannot be read: Kafka is silent")
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its only name
                return
            raise RuntimeError(f"{topic} cannot be read: {error}")
        position = (message.offset() or 0) + 1
        yield message


def _headers(message: Message) -> dict[str, bytes]:
    return dict(cast("list[tuple[str, bytes]]", message.headers() or []))


def _click_of(message: Message) -> Click:
    value = orjson.loads(message.value() or b"")
    return Click(
        message.offset() or 0,
        value["user_id"],
        value["item_id"],
        value["type"],
        value["timestamp"],
        value.get("event_id") or "",
        value.get("session_id") or "",
    )


async def until_contained(
    redis: Redis,
    settings: Settings,
    ends: Mapping[int, int],
    seconds: float,
    generation: int = FIRST_GENERATION,
) -> list[tuple[int, int, int]]:
    """Wait until every shard contains every partition to its end, or the time is over.

    Returns (partition, contained, end) of those that are behind then.
    """
    writer = StoreWriter(redis, settings, generation)
    limit = time.monotonic() + seconds
    topic = settings.kafka.events_topic
    behind = [(partition, -1, end) for partition, end in ends.items()]
    while behind and time.monotonic() < limit:
        try:
            behind = [
                (partition, marks.lowest, end)
                for partition, end in ends.items()
                if (marks := await writer.read_marks(topic, partition)).lowest < end - 1
            ]
        except RedisError:
            pass  # it may still be coming back
        if behind:
            await asyncio.sleep(0.05)
    return behind


@dataclass(frozen=True, slots=True)
class Difference:
    """What the store has of a log, against what it must have."""

    lost: int
    doubled: int
    wrong: str
    """Where anything else differs; empty where nothing does."""
    events: int
    """Events that must be counted."""


async def compare(
    redis: Redis,
    settings: Settings,
    log: Sequence[Click | Forget],
    missing: int = 0,
    generation: int = FIRST_GENERATION,
) -> Difference:
    """Events of `log` against what is counted for items and kept of users, then everything that
    is stored of a generation. `missing` are lost already, since the log lacks them.
    """
    oracle = await asyncio.to_thread(lambda: Oracle(settings).learn(log))
    lost, doubled = _against(
        {hash_id(item): n for item, n in oracle.events_of.items()},
        await _counted(
            redis, Keys(settings.store, generation), [hash_id(item) for item in oracle.events_of]
        ),
    )
    users_lost, users_doubled, wrong = await _histories(redis, settings, oracle, generation)
    try:
        await assert_store_is(oracle, redis, settings, generation=generation)
    except AssertionError as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        wrong += f"{at.name}:{at.lineno} {at.line}"
    return Difference(
        missing + max(lost, users_lost), max(doubled, users_doubled), wrong, oracle.events
    )


async def _counted(redis: Redis, keys: Keys, items: list[int]) -> dict[int, int]:
    """How many events the statistics count, by item."""
    if not items:
        return {}
    values: Any = await redis.mget(keys.statistics(np.array(items, np.uint64)))
    events = unpack_statistics(values)["events"].tolist()
    return dict(zip(items, map(int, events), strict=True))


async def _histories(
    redis: Redis, settings: Settings, oracle: Oracle, generation: int
) -> tuple[int, int, str]:
    """Rows of users' histories that lack, rows too many, and some of both."""
    target = Target(settings.kafka.events_topic, 0, 0)
    users = hashes(list(oracle.histories))
    if not len(users):
        return 0, 0, ""
    table, _ = await StoreWriter(redis, settings, generation).read_sessions([target], users)
    kinds = list(settings.events.weights)
    kept = rows_of(table)
    wanted: Counter[tuple[object, ...]] = Counter()
    found: Counter[tuple[object, ...]] = Counter()
    for user in oracle.histories:
        name = hash_id(user)
        wanted.update([(name, *row) for row in oracle.rows(user)])
        found.update([(name, t, i, e, g, kinds[k]) for t, i, e, g, k in kept.get(name, [])])
    example = ""
    if wanted != found:
        lacks, more = wanted - found, found - wanted
        example = (
            f"lacks {[*lacks][:2]}, has {[*more][:2]} (user, ms, item, event, session, type); "
        )
    return *_against(wanted, found), example


def _against(wanted: Mapping[_T, int], found: Mapping[_T, int]) -> tuple[int, int]:
    """How much lacks, and how much there is too much of."""
    keys = wanted.keys() | found.keys()
    more = [found.get(key, 0) - wanted.get(key, 0) for key in keys]
    return sum(-n for n in more if n < 0), sum(n for n in more if n > 0)
