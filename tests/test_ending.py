"""Tasks end, be it that they have not heard it the first time."""

from __future__ import annotations

import asyncio

from config.ending import end_tasks


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
