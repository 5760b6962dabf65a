"""Records that the log loses before anybody has read them."""

from __future__ import annotations

import asyncio
import re
import time

import aiohttp
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from store.writer import StoreWriter
from streams.topics import ensure_topics
from tests.chaos.checking import read_log
from tests.chaos.run import Fault, Run

__all__ = ["FAULTS"]

_GAP = re.compile(r"^headwater_log_gap_records_total\{[^}]*\} ([0-9.e+]+)", re.MULTILINE)
_TRIES = 10


async def _delete_unread(run: Run) -> None:
    """Retention passes us by while no worker runs: what it took is told, and the rest counted."""
    marks = await _stop_whole(run)
    await asyncio.sleep(4)
    settings = run.deployment.settings
    topic = settings.kafka.events_topic
    log = await asyncio.to_thread(read_log, settings)
    lost = 0
    befores: list[TopicPartition] = []
    for partition, records in log.records.items():
        first = records[-1].offset - 20
        befores.append(TopicPartition(topic, partition, first))
        run.deleted += [one for one in records if one.offset <= marks[partition]]
        lost += first - marks[partition] - 1
    run.gone |= log.ids

    def delete() -> None:
        with AdminClient({"bootstrap.servers": run.world.bootstrap}) as admin:
            for done in admin.delete_records(befores).values():
                done.result(20)

    await asyncio.to_thread(delete)
    run.injected(lost)
    for worker in run.workers:
        worker.start()
    await run.until(
        lambda: "the log lacks records" in run.deployment.said(), "the gap is not logged"
    )
    if not await run.contained():
        return
    counted = await _gap(run)
    run.require(counted == lost, f"headwater_log_gap_records_total is {counted:g}, not {lost}")
    run.note(f"{lost} records deleted before they were read, and counted as such")


async def _remake(run: Run) -> None:
    """The topic goes when everything in it is counted, and another one of its name is there."""
    settings = run.deployment.settings
    run.sender.flows.clear()
    run.asker.writes = False
    await asyncio.sleep(0.5)
    run.require(await run.contained(), "not everything was counted")
    log = await asyncio.to_thread(read_log, settings)
    run.deleted += log.all()
    run.gone |= log.ids
    await asyncio.to_thread(_make_again, run)
    run.injected()
    # A log that grows past the old one's offsets before anybody looks is not promised to be told
    # from the old one (docs/reliability.md), and the old one is a few seconds long here.
    await run.until(
        lambda: "the topic was deleted and made again" in run.deployment.said(),
        "that the topic is another one is not logged",
    )
    run.sender.flows.set()
    run.asker.writes = True


def _make_again(run: Run) -> None:
    settings = run.deployment.settings
    with AdminClient({"bootstrap.servers": run.world.bootstrap}) as admin:
        for done in admin.delete_topics([settings.kafka.events_topic]).values():
            done.result(20)
        limit = time.monotonic() + 20
        while settings.kafka.events_topic in admin.list_topics(timeout=10).topics:
            if time.monotonic() > limit:
                raise RuntimeError("the topic is still there")
            time.sleep(0.1)
    ensure_topics(settings)


async def _stop_whole(run: Run) -> dict[int, int]:
    """Stop the workers so that every shard contains the same; returns that, by partition."""
    settings = run.deployment.settings
    redis = run.deployment.redis()
    try:
        for _ in range(_TRIES):
            run.sender.flows.clear()
            await run.contained()
            await asyncio.gather(*(worker.stop() for worker in run.workers))
            writer = StoreWriter(redis, settings)
            run.sender.flows.set()
            found = {
                partition: await writer.read_marks(settings.kafka.events_topic, partition)
                for partition in range(settings.kafka.partitions)
            }
            if all(
                {*one.items.tolist(), *one.users.tolist(), one.totals} == {one.lowest}
                for one in found.values()
            ):
                return {partition: one.lowest for partition, one in found.items()}
            for worker in run.workers:
                worker.start()
            await asyncio.sleep(3)
    finally:
        await redis.aclose()
    raise RuntimeError("workers always end in the midst of a commit")


async def _gap(run: Run) -> float:
    async with (
        aiohttp.ClientSession(run.deployment.url) as http,
        http.get("/metrics") as answer,
    ):
        found = _GAP.search(await answer.text())
    return float(found[1]) if found else 0.0


FAULTS = [
    Fault(
        "log-deleted-unread",
        "records deleted before they were read: counted as a gap, and logged",
        _delete_unread,
    ),
    Fault(
        "log-topic-made-again",
        "the topic deleted and made again: counted from its beginning",
        _remake,
    ),
]
"""In the order of the table."""
