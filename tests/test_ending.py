"""Tasks end, be it that they have not heard it the first time, and processes without Kafka."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random

from commands.stack import Stack
from config.ending import end_tasks
from config.settings import load_settings
from tests.chaos.run import END_SECONDS
from tests.chaos.traffic import make_events
from tests.live import eventually
from tests.test_recovery import send_slowly

_IN_VAIN, _TRIES = "Group Coordinator Request failed", 40
"""A worker asks ten times a second and tells Kafka every three seconds how far it is."""


async def test_who_has_not_heard_it_is_told_again() -> None:
    heard = 0

    async def deaf() -> None:
        nonlocal heard
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                heard += 1
                if heard == 3:
                    raise

    async def done() -> None:
        return

    tasks = [asyncio.create_task(deaf()), asyncio.create_task(done())]
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await end_tasks(tasks)
    assert [task.cancelled() for task in tasks] == [True, False]
    assert heard == 3


async def test_who_is_told_to_end_waits_for_no_kafka(tmp_path: Path) -> None:
    """Workers have events counted that Kafka does not know of, and have begun to tell it."""
    settings = load_settings(services={"data_dir": tmp_path}, http={"port": 0})
    async with Stack(settings, workers=2, processes=2) as stack:
        assert stack.services.kafka is not None
        assert stack.server is not None
        events = make_events(Random(1), 2000, int(time.time() * 1000))
        await send_slowly(stack.settings, events, 1)
        await asyncio.to_thread(stack.services.kafka.kill)
        for worker in stack.workers:

            async def tries(log: Path = worker.log) -> int:
                return log.read_text().count(_IN_VAIN)  # noqa: ASYNC240 - a small file

            await eventually(tries, lambda count: count > _TRIES, 60)
        began = time.monotonic()
        await asyncio.gather(*(child.stop() for child in (*stack.workers, stack.server)))
        assert time.monotonic() - began < END_SECONDS
