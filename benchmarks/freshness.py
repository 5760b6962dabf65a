"""How long from sending an event to an answer that knows it, while other events and requests flow.

Probes (`probes.py`) are due at a fixed pace and overlap. The events and the requests beside them
come from processes of their own, at their own fixed rates; everything shares all cores.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from benchmarks.helper import Helper
from benchmarks.latency import latency_report
from benchmarks.probes import probe, probed_shop
from benchmarks.processor import shares_of_a_core
from benchmarks.report import machine
from benchmarks.setup import process_times
from commands.stack import Stack
from config.settings import Settings

__all__ = ["measure_freshness"]

_SEED = 13
_LEAD_SECONDS = 25.0
"""What flows beside the probes does so before the first one."""
_PROBES_A_SECOND = 5.0
_CONNECTIONS = 256


async def measure_freshness(
    settings: Settings, *, rate: float, requests: float, items: int, users: int, probes: int
) -> dict[str, Any]:
    """Probes while `rate` events and `requests` requests a second flow; 0 requests for none."""
    seconds = _LEAD_SECONDS + probes / _PROBES_A_SECOND + 1
    sent = int(rate * seconds)
    async with probed_shop(
        settings, sent=sent, items=items, users=users, probes=probes, seed=_SEED
    ) as (stack, sender, asking, _):
        times = process_times(stack)
        before = times()
        begin = time.monotonic()
        told, answered, took = await asyncio.gather(
            sender.ask({"events": sent, "rate": rate}),
            _ask(asking, requests, seconds),
            _probe_all(stack, probes),
        )
        passed = time.monotonic() - begin
        after = times()
    found = latency_report(took)
    return {
        **{name: round(value, 1) for name, value in found.items()},
        "probes": len(took),
        "background": {
            "events_per_second": round(told["events"] / (told["end"] - told["begin"])),
            "requests_per_second": round(answered.get("requests_per_second", 0)),
            "requests": {name: one for name, one in answered.items() if name.endswith("_ms")},
            "errors": answered.get("errors", 0),
        },
        "share_of_a_core": shares_of_a_core(before, after, passed),
        "items": items,
        "users": users,
        "machine": machine(),
    }


async def _ask(asking: Helper, requests: float, seconds: float) -> dict[str, Any]:
    if not requests:
        return {}
    return await asking.ask({"connections": _CONNECTIONS, "rate": requests, "seconds": seconds})


async def _probe_all(stack: Stack, probes: int) -> list[float]:
    begin = time.perf_counter() + _LEAD_SECONDS
    async with aiohttp.ClientSession(stack.http_url) as session:
        return await asyncio.gather(
            *(probe(session, number, begin + number / _PROBES_A_SECOND) for number in range(probes))
        )
