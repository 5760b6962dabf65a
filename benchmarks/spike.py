"""Ten times as much from one second to the next: events and requests at a calm pace, then at ten
times that for a while, then at the calm pace again, all of it an open loop.

Everything shares all cores, so that the rush is more than they can do. What is watched: requests
that are answered and refused in each second, and how long they took; how far the worker is behind
the log; how long until an event shows in answers (`probes.py`); and, once all is over, whether the
store has counted exactly what was sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import numpy as np
from redis.exceptions import RedisError

from benchmarks.counted import until_exactly
from benchmarks.helper import Helper
from benchmarks.probes import FILLED, probe, probed_shop
from benchmarks.processor import shares_of_a_core
from benchmarks.report import machine
from benchmarks.setup import process_times
from commands.stack import Stack
from config.errors import HeadwaterError
from config.settings import Settings
from store.connect import connect
from store.reader import StoreReader
from streams.ends import LogEnds

__all__ = ["measure_spike"]

_SEED = 17
_LIMIT_SECONDS = 600
_CONNECTIONS = 1024
_PROBES_A_SECOND = 1.0
_PROBE_SECONDS = 300.0
_SAMPLE_SECONDS = 0.5
_NORMAL_SECONDS = 5
"""What is normal again stays so for as long."""
_NORMAL_TIMES = 2.0
"""Times what it was before, at most."""
_NORMAL_LEAST_MS = 20.0


async def measure_spike(
    settings: Settings,
    *,
    rate: float,
    requests: float,
    times: float,
    items: int,
    users: int,
    calm: float,
    rush: float,
    after: float,
) -> dict[str, Any]:
    """`rate` events and `requests` requests a second for `calm` seconds, `times` as many for
    `rush` seconds, and as before for `after` seconds.

    Raises StoreError where not everything that was sent is counted, StreamError where more is.
    """
    stages = [(1.0, calm), (times, rush), (1.0, after)]
    sent = sum(int(factor * rate * seconds) for factor, seconds in stages)
    total = calm + rush + after
    probes = int(total * _PROBES_A_SECOND)
    async with probed_shop(
        settings, sent=sent, items=items, users=users, probes=probes, seed=_SEED
    ) as (stack, sender, asking, known):
        cpu = process_times(stack)
        before, begin = cpu(), time.perf_counter()
        order = {
            "connections": _CONNECTIONS,
            "stages": [(factor * requests, seconds) for factor, seconds in stages],
        }
        watching = asyncio.create_task(_backlog(stack, begin))
        try:
            told, asked, seen = await asyncio.gather(
                _send(sender, [(factor * rate, seconds) for factor, seconds in stages]),
                asking.ask(order),
                _probe_all(stack, probes, begin),
            )
            passed, spent = time.perf_counter() - begin, cpu()
            expected = known + sent + probes
            await until_exactly(stack.settings, expected, _LIMIT_SECONDS)
        finally:
            watching.cancel()
        backlog = await watching
    seconds = asked["by_second"]
    return {
        "stages": [
            {"factor": factor, "seconds": length, **one}
            for (factor, length), one in zip(
                stages, _by_stage(stages, seconds, seen, backlog), strict=True
            )
        ],
        "events": sent,
        "events_per_second": [round(one["events"] / (one["end"] - one["begin"])) for one in told],
        "lost": 0,
        "doubled": 0,
        "most_behind": max((behind for _, behind in backlog), default=0),
        "normal_after_seconds": _normal_after(stages, seconds, backlog, rate),
        "by_second": seconds,
        "backlog": [(round(at, 2), behind) for at, behind in backlog],
        "freshness": [(round(at, 2), round(1000 * took, 1)) for at, took in seen],
        "share_of_a_core": shares_of_a_core(before, spent, passed),
        "rate": rate,
        "requests": requests,
        "items": items,
        "users": users,
        "machine": machine(),
    }


async def _send(sender: Helper, stages: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    return [
        await sender.ask({"events": int(rate * seconds), "rate": rate}) for rate, seconds in stages
    ]


async def _probe_all(stack: Stack, probes: int, begin: float) -> list[tuple[float, float]]:
    """When each probe was due, and its seconds."""

    async def one(session: aiohttp.ClientSession, number: int) -> tuple[float, float]:
        at = (number + 0.5) / _PROBES_A_SECOND
        return at, await probe(session, number, begin + at, _PROBE_SECONDS, patient=True)

    async with aiohttp.ClientSession(stack.http_url) as session:
        return await asyncio.gather(*(one(session, number) for number in range(probes)))


async def _backlog(stack: Stack, begin: float) -> list[tuple[float, int]]:
    """How many events of the log are not counted yet, by seconds since `begin`, until cancelled."""
    settings = stack.settings
    ends = LogEnds(settings.kafka, settings.kafka.events_topic)
    redis = connect(settings)
    reader = StoreReader(redis, settings)
    seen: list[tuple[float, int]] = []
    try:
        while True:
            # Who is as busy as that may not answer in time; the next one will be.
            with suppress(HeadwaterError, RedisError):
                end = sum((await asyncio.to_thread(ends.ends)).values())
                behind = end - ((await reader.totals()).get("events", 0) - FILLED)
                seen.append((time.perf_counter() - begin, max(0, behind)))
            await asyncio.sleep(_SAMPLE_SECONDS)
    except asyncio.CancelledError:
        return seen
    finally:
        await redis.aclose()


def _by_stage(
    stages: Sequence[tuple[float, float]],
    seconds: dict[str, list[float]],
    seen: Sequence[tuple[float, float]],
    backlog: Sequence[tuple[float, int]],
) -> list[dict[str, Any]]:
    """What became of requests, events and probes that were due in each stage."""
    found = []
    begin = 0.0
    for _, length in stages:
        end = begin + length
        mine = {name: np.array(one[int(begin) : int(end)]) for name, one in seconds.items()}
        took = [1000 * wait for at, wait in seen if begin <= at < end]
        found.append(
            {
                **{
                    f"{name}_per_second": round(float(mine[name].sum()) / length, 1)
                    for name in ("answered", "failed", "degraded")
                },
                **{
                    # Of the seconds, of which each has one of its own.
                    name: round(float(np.median(mine[name])), 2) if len(mine[name]) else 0.0
                    for name in ("p50_ms", "p99_ms")
                },
                "freshness_p50_ms": round(float(np.median(took)), 1) if took else 0.0,
                "freshness_max_ms": round(max(took, default=0.0), 1),
                "most_behind": max((n for at, n in backlog if begin <= at < end), default=0),
            }
        )
        begin = end
    return found


def _normal_after(
    stages: Sequence[tuple[float, float]],
    seconds: dict[str, list[float]],
    backlog: Sequence[tuple[float, int]],
    rate: float,
) -> int | None:
    """Seconds after the rush until, for a while, no request fails or is degraded, p99 is near what
    it was before, and the worker is less than a second behind; None where that did not happen.
    """
    calm, over = int(stages[0][1]), int(stages[0][1] + stages[1][1])
    usual = max(_NORMAL_LEAST_MS, float(np.median(seconds["p99_ms"][:calm])))
    behind: dict[int, int] = {}
    for at, events in backlog:
        behind[int(at)] = max(events, behind.get(int(at), 0))

    def good(second: int) -> bool:
        return (
            not seconds["failed"][second]
            and not seconds["degraded"][second]
            and seconds["p99_ms"][second] <= _NORMAL_TIMES * usual
            and behind.get(second, 0) <= rate
        )

    last = len(seconds["answered"])
    for second in range(over, last - _NORMAL_SECONDS + 1):
        if all(good(one) for one in range(second, second + _NORMAL_SECONDS)):
            return second - over
    return None
