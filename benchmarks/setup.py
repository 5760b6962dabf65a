"""Services for one measurement, in a folder that goes with it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from commands.stack import Stack
from config.errors import StoreError
from config.settings import Settings
from store.connect import connect
from store.reader import StoreReader
from streams.producer import RecordProducer
from streams.topics import bootstrap_of

__all__ = ["measuring_stack", "produce", "until_counted"]

log = structlog.get_logger("headwater.bench")

_POLL_SECONDS = 0.02


@asynccontextmanager
async def measuring_stack(
    settings: Settings, *, workers: int, processes: int
) -> AsyncIterator[Stack]:
    """A stack with a data directory and a port of its own."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        own = settings.model_copy(
            update={
                "services": settings.services.model_copy(update={"data_dir": Path(folder)}),
                "http": settings.http.model_copy(update={"port": 0}),
            }
        )
        async with Stack(own, workers=workers, processes=processes) as stack:
            yield stack


def produce(settings: Settings, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Send (key, value) records to the topic of events and wait until Kafka has them."""
    with RecordProducer(bootstrap_of(settings), linger_ms=20) as producer:
        for key, value in records:
            producer.publish(settings.kafka.events_topic, key, value)


async def until_counted(settings: Settings, events: int, seconds: float) -> list[tuple[float, int]]:
    """Wait until the totals say that many events; returns (time, events) as they rose.

    Raises StoreError when they do not get there in time.
    """
    redis = connect(settings)
    reader = StoreReader(redis, settings)
    limit = time.monotonic() + seconds
    seen: list[tuple[float, int]] = []
    try:
        while True:
            count = (await reader.totals()).get("events", 0)
            now = time.monotonic()
            if count and (not seen or count != seen[-1][1]):
                seen.append((now, count))
            if count >= events:
                return seen
            if now > limit:
                raise StoreError(
                    f"{count} of {events} events are counted after {seconds:.0f} s: "
                    "see the worker's log"
                )
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        await redis.aclose()
