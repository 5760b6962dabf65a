"""What two regions have in the end: their logs, and how far their stores are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from confluent_kafka import Consumer, KafkaError, TopicPartition

from config.errors import StreamError
from config.kafka_access import client_options
from config.mirror import COPIED
from config.settings import Settings
from store.compare import Side, compare_sides
from store.connect import connect
from store.generations import Generations
from streams.topics import bootstrap_of

__all__ = ["Written", "agreement", "copy_times", "read_log"]

_LIMIT_SECONDS = 30.0
_EVERYTHING = 10_000_000


@dataclass(frozen=True, slots=True)
class Written:
    """One event as a log has it."""

    at: int
    """When the broker wrote it, in ms since 1970."""
    copied: bool
    """Whether it began in the other region."""


def read_log(settings: Settings) -> dict[str, list[Written]]:
    """All events of a region's log, by `event_id`. Raises StreamError."""
    found: dict[str, list[Written]] = {}
    options = {
        "group.id": "headwater-regions",  # asked for, but never joined
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
    consumer = Consumer(client_options(bootstrap_of(settings), options))
    try:
        topic, left = settings.kafka.events_topic, settings.kafka.partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in range(left)])
        while left:
            message = consumer.poll(_LIMIT_SECONDS)
            if message is None:
                raise StreamError(f"Kafka at {bootstrap_of(settings)} is silent: see its log")
            error = message.error()
            if error is None:
                copied = COPIED in dict(message.headers() or [])
                name = str(orjson.loads(message.value() or b"")["event_id"])
                found.setdefault(name, []).append(Written(message.timestamp()[1], copied))
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its only name
                left -= 1
            else:
                raise StreamError(f"the log cannot be read: {error}")
    finally:
        consumer.close()
    return found


def copy_times(
    logs: Sequence[dict[str, list[Written]]], ran: tuple[float, float]
) -> dict[str, float]:
    """Milliseconds from the log of the one region to that of the other, of events that were written
    while both were there (from and until, in ms since 1970).
    """
    took = [
        copy.at - first.at
        for here, there in (logs, tuple(reversed(logs)))
        for name, written in here.items()
        for first in written
        if not first.copied and ran[0] <= first.at < ran[1]
        for copy in there.get(name, [])
        if copy.copied
    ]
    return {f"p{part}": round(float(np.percentile(took, part)), 1) for part in (50, 99)}


async def agreement(one: Settings, other: Settings) -> dict[str, Any]:
    """How far the two stores are the same, of all items and users."""
    clients = [connect(one), connect(other)]
    try:
        sides = []
        for redis, settings in zip(clients, (one, other), strict=True):
            live = await Generations(redis, settings).live_or_first(settings)
            sides.append(Side.of(redis, settings, live))
        found = await compare_sides(sides[0], sides[1], _EVERYTHING)
    finally:
        for redis in clients:
            await redis.aclose()
    return {
        "totals": found.totals[0] == found.totals[1],
        "items": found.items.looked_at,
        "items_equal": found.items.equal,
        "users": found.users.looked_at,
        "users_equal": found.users.equal,
        "shared_top": round(found.shared_top, 4),
    }
