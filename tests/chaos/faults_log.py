"""Records that the log loses before anybody has read them."""

from __future__ import annotations

import asyncio
import re

import aiohttp
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from store.writer import StoreWriter
from tests.chaos.checking import read_log
from tests.chaos.run import Fault, Run

__all__ = ["FAULTS"]

_GAP = re.compile(r"^headwater_log_gap_records_total ([0-9.e+]+)", re.MULTILINE)
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
        admin = AdminClient({"bootstrap.servers": run.world.bootstrap})
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
]
"""In the order of the table."""
