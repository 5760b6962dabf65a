"""Brokers that are killed, frozen, lost out of three, and out of disk."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.chaos.run import Fault, Run
from tests.chaos.world import full_disk, full_world, three_brokers

__all__ = ["FAULTS"]

_ANSWER_SECONDS = 20.0


async def _kill(run: Run) -> None:
    for pause in (0.0, 4.0):
        await asyncio.sleep(4)
        await asyncio.to_thread(run.world.kafka.kill)
        run.injected()
        await asyncio.sleep(pause)
        await asyncio.to_thread(run.world.kafka.start)


async def _freeze(run: Run) -> None:
    os.kill(run.world.kafka.pid, signal.SIGSTOP)
    try:
        run.injected()
        await asyncio.sleep(12)
    finally:
        os.kill(run.world.kafka.pid, signal.SIGCONT)


async def _lose_one(run: Run) -> None:
    """The leader of a partition goes and stays away; then another one."""
    for _ in range(2):
        await asyncio.sleep(4)
        leader = await asyncio.to_thread(_leader_of, run)
        run.note(f"lost broker {leader}")
        broker = run.world.brokers[leader]
        await asyncio.to_thread(broker.kill)
        run.injected()
        await asyncio.sleep(7)
        await asyncio.to_thread(broker.start)


async def _lose_coordinator(run: Run) -> None:
    """The broker that keeps the workers' group goes and stays away."""
    coordinator = await asyncio.to_thread(_coordinator_of, run)
    broker = run.world.brokers[coordinator]
    await asyncio.to_thread(broker.kill)
    run.injected()
    await asyncio.sleep(8)
    run.workers[0].kill()
    run.deployment.stopped += 1
    moved = await asyncio.to_thread(_coordinator_of, run)
    run.require(moved != coordinator, "the group has the same coordinator still")
    await asyncio.sleep(4)
    await asyncio.to_thread(broker.start)


def _leader_of(run: Run) -> int:
    topic = run.deployment.settings.kafka.events_topic
    with AdminClient({"bootstrap.servers": run.world.bootstrap, "log_level": 0}) as admin:
        return int(admin.list_topics(topic, timeout=10).topics[topic].partitions[0].leader)


def _coordinator_of(run: Run) -> int:
    group = run.deployment.settings.kafka.group
    limit = time.monotonic() + _ANSWER_SECONDS
    with AdminClient({"bootstrap.servers": run.world.bootstrap, "log_level": 0}) as admin:
        while True:
            try:
                told = admin.describe_consumer_groups([group])[group].result(_ANSWER_SECONDS)
                return int(told.coordinator.id)
            except KafkaException:  # a group that has just got its coordinator
                if time.monotonic() > limit:
                    raise
            time.sleep(0.1)


async def _fill_disk(run: Run) -> None:
    """No byte can be written: the broker ends, and is started once there is room."""
    kafka = run.world.kafka
    with full_disk(kafka.folder.parent):
        run.injected()
        await run.until(lambda: not kafka.running, "the broker goes on with a full disk")
        await asyncio.sleep(2)
    await asyncio.to_thread(kafka.kill)
    await asyncio.to_thread(kafka.start)


FAULTS = [
    Fault("kafka-kill", "broker kill -9, started again at once and after 4 s", _kill),
    Fault("kafka-freeze", "broker SIGSTOP for 12 s, and back", _freeze),
    Fault(
        "kafka-one-of-three-lost",
        "three brokers, two of which must confirm; one at a time lost for 7 s",
        _lose_one,
        world=three_brokers,
        groups={"kafka": {"replication": 3}},
    ),
    Fault(
        "kafka-coordinator-lost",
        "the broker that keeps the workers' group lost for 12 s, and a worker killed meanwhile",
        _lose_coordinator,
        world=three_brokers,
        groups={"kafka": {"replication": 3}},
    ),
    Fault(
        "kafka-disk-full",
        "no byte can be written; started again once there is room",
        _fill_disk,
        world=partial(full_world, megabytes=200, kafka=True),
    ),
]
"""In the order of the table."""
