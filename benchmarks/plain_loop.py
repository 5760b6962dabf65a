"""Comparison: the same fold behind a plain loop over confluent-kafka's consumer, without Faust: no
group, no overlap of reading, folding and committing, no way back after a failure.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop
from confluent_kafka import Consumer, TopicPartition

from benchmarks.fold_step import FoldStep
from benchmarks.pair_commands import PairCommands
from config.settings import Settings, load_settings
from store.connect import connect
from streams.records import Record, Records
from streams.topics import bootstrap_of

__all__ = ["run"]

_AT_ONCE = 20_000
_WAIT_SECONDS = 0.1


async def run(settings: Settings, make_step: type[FoldStep]) -> None:
    """Count all partitions of the topic of events from their beginning, for ever."""
    topic = settings.kafka.events_topic
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_of(settings),
            "group.id": f"{settings.kafka.group}-plain",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": 4_194_304,
        }
    )
    partitions = range(len(consumer.list_topics(topic).topics[topic].partitions))
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    step = make_step(settings, connect(settings))
    while True:
        by_partition: dict[int, list[Record]] = {}
        for message in consumer.consume(_AT_ONCE, _WAIT_SECONDS):
            record = Record(
                message.offset() or 0, message.timestamp()[1], message.key(), message.value()
            )
            by_partition.setdefault(message.partition() or 0, []).append(record)
        for partition, records in by_partition.items():
            await step.apply(topic, partition, step.decode(Records.of(records)))


if __name__ == "__main__":
    steps = {"fold": FoldStep, "pair-commands": PairCommands}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(load_settings(), steps[sys.argv[1]]))
