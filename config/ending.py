"""Ends tasks of the event loop, and is sure of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["end_tasks"]

_SECONDS = 0.2


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until all of them have ended.

    Once may not be enough: redis-py waits by means of `asyncio.wait_for`, which in Python 3.11
    forgets that it was cancelled where what it waits for has just come.
    """
    left = set(tasks)
    while left := {task for task in left if not task.done()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_SECONDS)
