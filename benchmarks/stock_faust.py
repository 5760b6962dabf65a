"""Comparison: the same fold behind stock Faust, `stream.take(2000, within=…)` on its own transport.

What differs from a worker is how records come: one Faust message each, in batches that mix the
partitions. `take_events` is `take` with the records' offsets, which the commit needs.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import faust
import uvloop
from yarl import URL

from benchmarks.fold_step import FoldStep
from config.settings import Settings, load_settings
from store.connect import connect
from streams.records import Record, Records
from streams.topics import bootstrap_of

__all__ = ["make_app"]

_MOST = 2000
_WITHIN_SECONDS = 0.1


def make_app(settings: Settings) -> faust.App:
    """Stock Faust with one agent."""
    kafka = settings.kafka
    app = faust.App(
        f"{kafka.group}-stock-faust",
        broker=[URL(f"kafka://{address}") for address in bootstrap_of(settings).split(",")],
        store="memory://",
        web_enabled=False,
        datadir=str(settings.services.data_dir / "stock-faust"),
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    step = FoldStep(settings, connect(settings))

    async def fold_events(stream: Any) -> None:
        async for events in stream.take_events(_MOST, within=_WITHIN_SECONDS):
            by_partition: dict[int, list[Record]] = {}
            for event in events:
                message = event.message
                by_partition.setdefault(message.partition, []).append(
                    Record(
                        message.offset, round(message.timestamp * 1000), message.key, message.value
                    )
                )
            for partition, records in by_partition.items():
                decoded = step.decode(Records.of(records))
                await step.apply(kafka.events_topic, partition, decoded)

    topic = app.topic(kafka.events_topic, value_serializer="raw", key_serializer="raw")
    app.agent(topic)(fold_events)
    return app


def _main() -> None:
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    logging.getLogger().setLevel(logging.WARNING)
    settings = load_settings()
    settings.services.data_dir.mkdir(parents=True, exist_ok=True)
    faust.Worker(
        make_app(settings), loop=loop, override_logging=False, quiet=True, redirect_stdouts=False
    ).execute_from_commandline()


if __name__ == "__main__":
    _main()
