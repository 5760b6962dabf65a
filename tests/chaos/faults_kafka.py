"""Brokers that are killed and frozen."""

from __future__ import annotations

import asyncio
import os
import signal

from tests.chaos.run import Fault, Run

__all__ = ["FAULTS"]


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


FAULTS = [
    Fault("kafka-kill", "broker kill -9, started again at once and after 4 s", _kill),
    Fault("kafka-freeze", "broker SIGSTOP for 12 s, and back", _freeze),
]
"""In the order of the table."""
