"""Workers whose group settles anew who reads what: nobody waits for it, and counts stay exact."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from random import Random

from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import (  # type: ignore[attr-defined] # not in its __all__
    AdminClient,
    ConsumerGroupDescription,
)

from benchmarks.rebalance import group_of, measure_rebalance, settled
from benchmarks.tables import TABLES
from commands.stack import Stack
from config.kafka_access import client_options
from config.services import Services
from config.settings import Settings, load_settings
from config.supervisor import Child
from store.commit import read_lowest_marks
from store.connect import connect
from store.keys import Keys
from tests.chaos.checking import ends_of
from tests.chaos.run import END_SECONDS
from tests.chaos.traffic import make_events
from tests.conftest import own_settings
from tests.live import eventually
from tests.test_recovery import check_everything, send_slowly

SEED = 23
PARTITIONS = 4
SESSION_SECONDS = 30.0
"""The group waits as long for a member that says nothing."""


async def test_who_is_waited_for_holds_up_nobody(services: Services, tmp_path: Path) -> None:
    """A group that cannot settle, as one of its workers is frozen: the others go on meanwhile."""
    print(f"seed {SEED}")
    settings = own_settings(
        services,
        tmp_path,
        partitions=PARTITIONS,
        worker={"session_timeout_seconds": SESSION_SECONDS},
    )
    events = make_events(Random(SEED), 4000, int(time.time() * 1000))
    async with Stack(settings, workers=2, processes=0, services=services) as stack:
        owners = await settled(stack.settings, 2)
        await send_slowly(stack.settings, events[:1000], 0)
        await check_everything(stack.settings)
        group = settings.kafka.group
        frozen, other = stack.workers
        frozen.send(signal.SIGSTOP)
        try:
            with AdminClient(client_options(settings.kafka)) as admin:
                stack.start_workers(1)
                await eventually(lambda: group_of(admin, group), _settling, 30)
                await eventually(lambda: _said(other, "because it is rebalancing"), bool, 30)
                await send_slowly(stack.settings, events[1000:3000], 0)
                ends = await asyncio.to_thread(ends_of, stack.settings)
                known = await eventually(
                    lambda: _contained(stack.settings),
                    lambda marks: sum(marks[one] == ends[one] - 1 for one in ends) >= 2,
                    SESSION_SECONDS / 3,
                )
                assert _settling(await group_of(admin, group))
                # What is the frozen one's stands still, and no more than that.
                behind = {one for one in ends if known[one] < ends[one] - 1}
                assert len({owners[one] for one in behind}) == 1
                assert len(behind) == PARTITIONS // 2
        finally:
            frozen.send(signal.SIGCONT)
        await send_slowly(stack.settings, events[3000:], 0)
        after = await settled(stack.settings, 3)
        await check_everything(stack.settings)
    # No more partitions move than have to.
    assert sum(owners[one] != after[one] for one in owners) <= 1
    said = "".join(worker.log.read_text() for worker in stack.workers)
    assert "the log lacks records" not in said


async def test_who_is_told_to_end_waits_for_nobody(services: Services, tmp_path: Path) -> None:
    """Not for a group that cannot settle either, nor for whoever is told to end with it."""
    settings = own_settings(
        services,
        tmp_path,
        partitions=PARTITIONS,
        worker={"session_timeout_seconds": SESSION_SECONDS},
    )
    async with Stack(settings, workers=2, processes=0, services=services) as stack:
        await settled(stack.settings, 2)
        frozen, other = stack.workers
        frozen.send(signal.SIGSTOP)
        before = len(other.log.read_text())
        try:
            stack.start_workers(1)
            await eventually(lambda: _said(other, "because it is rebalancing", before), bool, 30)
            began = time.monotonic()
            await asyncio.gather(other.stop(), stack.workers[2].stop())
            assert time.monotonic() - began < END_SECONDS
        finally:
            frozen.send(signal.SIGCONT)


async def test_workers_come_and_go_while_events_flow(tmp_path: Path) -> None:
    settings = load_settings(
        services={"data_dir": tmp_path}, worker={"session_timeout_seconds": 6.0}
    )
    told = await measure_rebalance(settings, rate=200, items=100, users=300, partitions=6)
    print(told)
    assert (told["lost"], told["doubled"]) == (0, 0)
    for change in told["changes"]:
        assert change["moved"] == 2  # of six: from three each to two each, and back
        assert change["moved_ms"]["max"] >= change["calm_ms"]["median"]
    killed = told["changes"][-1]
    # Whoever died is waited for; those that it had not are read meanwhile.
    assert killed["moved_ms"]["max"] > killed["stayed_ms"]["max"]
    assert TABLES["rebalance"](told).count("\n") == 6


def _settling(group: ConsumerGroupDescription) -> bool:
    return bool(group.state == ConsumerGroupState.PREPARING_REBALANCING)


async def _said(worker: Child, what: str, behind: int = 0) -> bool:
    return what in worker.log.read_text()[behind:]


async def _contained(settings: Settings) -> list[int]:
    redis = connect(settings)
    topic = settings.kafka.events_topic
    places = [(topic, partition) for partition in range(PARTITIONS)]
    try:
        return await read_lowest_marks(redis, Keys(settings.store), places, topic)
    finally:
        await redis.aclose()
