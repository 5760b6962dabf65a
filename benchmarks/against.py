"""Headwater against simpler ways to do the same, in alternating rounds of one run.

All count the same filled log into an empty Redis, with a core to themselves while Kafka and Redis
have the others:

    headwater       a worker, learning included
    counting        a worker that does not learn
    plain_loop      the same fold behind confluent-kafka's consumer, without Faust
    stock_faust     the same fold behind `stream.take(2000, within=…)`
    pair_commands   the plain loop with one Redis command for each increment of a pair

The last three do not learn either, and leave out what a worker does besides: dead letters, lag,
ways back after a failure. They are watched for some seconds, not until the log ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import structlog

from benchmarks.counted import Steady, steady, until_counted
from benchmarks.helper import wait_or_kill
from benchmarks.ingest import WARM_UP, count_log, filled_log
from benchmarks.processor import ProcessTimes, cores
from benchmarks.report import machine, spread, spreads
from benchmarks.setup import measuring_stack, pin_apart, services_of, wipe
from commands.stack import Stack, child_environment
from config.errors import ServiceError
from config.settings import Settings

__all__ = ["measure_against"]

log = structlog.get_logger("headwater.bench")

_LIMIT_SECONDS = 120
_OTHERS = {
    "plain_loop": ("benchmarks.plain_loop", "fold"),
    "stock_faust": ("benchmarks.stock_faust", "worker"),
    "pair_commands": ("benchmarks.plain_loop", "pair-commands"),
}


async def measure_against(
    settings: Settings, *, events: int, items: int, users: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Rounds of each, none watched for longer than `seconds` after its first commit."""
    shop = {"events": events, "items": items, "users": users}
    counting = settings.learn.model_copy(update={"share": 0.0})
    ours = {"headwater": settings.learn, "counting": counting}
    found: dict[str, list[Steady]] = {name: [] for name in (*ours, *_OTHERS)}
    async with measuring_stack(settings) as stack:
        await filled_log(stack.settings, **shop)
        for number in range(rounds):
            for name, some in found.items():
                if name in _OTHERS:
                    one = await _count(stack, _OTHERS[name], events, seconds)
                else:
                    stack.settings = stack.settings.model_copy(update={"learn": ours[name]})
                    one = await count_log(stack, events, 1, pinned=True)
                some.append(one)
                log.info("round", number=number + 1, of=name, events_per_second=round(one.rate))
    rates = {name: spread([one.rate for one in some]) for name, some in found.items()}
    rate = rates["headwater"]["median"]
    return {
        "events_per_second": rate,
        "times_as_fast_as": {name: round(rate / rates[name]["median"], 2) for name in rates},
        "spread": rates,
        "microseconds_per_event": {
            name: spreads([one.cpu for one in some]) for name, some in found.items()
        },
        "pinned": cores() is not None,
        "rounds": rounds,
        **shop,
        "machine": machine(),
    }


async def _count(stack: Stack, command: tuple[str, ...], events: int, seconds: float) -> Steady:
    """Run one of the others on the log until it has counted all, or for `seconds`."""
    await wipe(stack)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *command,
        env=child_environment(stack.settings),
        stdout=2,  # ours is for the result
    )
    try:
        pin_apart(stack, process.pid)
        redis, kafka = services_of(stack)
        times = ProcessTimes({"workers": [process.pid], "redis": [redis], "kafka": [kafka]})
        counting = asyncio.create_task(
            until_counted(stack.settings, events, _LIMIT_SECONDS, times, at_most=seconds)
        )
        ended = asyncio.create_task(process.wait())
        await asyncio.wait({counting, ended}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not counting.done():
            counting.cancel()
            raise ServiceError(f"{' '.join(command)} ended: what it says is above")
        seen = counting.result()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await wait_or_kill(process)
    return steady(seen, int(WARM_UP * seen[-1].events))
