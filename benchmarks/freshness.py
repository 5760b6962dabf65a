"""How long from sending an event to an answer that knows it, while other events and requests flow.

Each probe has two items of its own that were once viewed together. A new user views the first; the
event is visible when that user's recommendations hold the second, which nobody else would be shown.
Probes are due at a fixed pace and overlap; their time counts from when they were due. The events
and the requests beside them come from processes of their own, at their own fixed rates; everything
shares all cores.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from benchmarks.counted import until_counted
from benchmarks.fill import fill_store
from benchmarks.helper import Helper
from benchmarks.ingest import sender_setup
from benchmarks.latency import latency_report
from benchmarks.report import machine
from benchmarks.serve import load_on
from benchmarks.setup import measuring_stack, process_times, produce
from benchmarks.workload import make_workload, span_seconds
from commands.stack import Stack
from config.errors import ServiceError
from config.settings import Settings

__all__ = ["measure_freshness"]

_SEED = 13
_FILLED = 300_000
_LIMIT_SECONDS = 120
_PAUSE_SECONDS = 7200
_LEAD_SECONDS = 25.0
"""What flows beside the probes does so before the first one."""
_PROBES_A_SECOND = 5.0
_PROBE_SECONDS = 10.0
_POLL_SECONDS = 0.003
_CONNECTIONS = 256


async def measure_freshness(
    settings: Settings, *, rate: float, requests: float, items: int, users: int, probes: int
) -> dict[str, Any]:
    """Probes while `rate` events and `requests` requests a second flow; 0 requests for none."""
    seconds = _LEAD_SECONDS + probes / _PROBES_A_SECOND + 1
    sent = int(rate * seconds)
    # The past ends long before the events begin that are sent: else late ones would be the rule,
    # and sessions of the past would go on.
    age = span_seconds(sent) + _PAUSE_SECONDS
    filled = make_workload(_FILLED, items, users, _SEED, age_seconds=age)
    async with measuring_stack(settings, workers=1) as stack:
        await fill_store(stack.settings, filled)
        taught = [record for number in range(probes) for record in _teach(number)]
        await asyncio.to_thread(produce, stack.settings, taught)
        await until_counted(stack.settings, _FILLED + len(taught), _LIMIT_SECONDS)
        await stack.start_server(1)
        shop = {"events": sent, "items": items, "users": users, "seed": _SEED + 1}
        setup = sender_setup(stack.settings, first_id=1 << 40, **shop)
        async with Helper("benchmarks.sender", setup) as sender, load_on(stack, filled) as asking:
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
        "share_of_a_core": {
            name: round((after[name] - before[name]) / passed, 2) for name in after
        },
        "items": items,
        "users": users,
        "machine": machine(),
    }


async def _ask(asking: Helper, requests: float, seconds: float) -> dict[str, Any]:
    if not requests:
        return {}
    return await asking.ask({"connections": _CONNECTIONS, "rate": requests, "seconds": seconds})


def _teach(probe: int) -> list[tuple[bytes, bytes]]:
    """A user who viewed both items of the probe."""
    now = int(time.time() * 1000)
    pair = [f"probe-{probe}-first", f"probe-{probe}-second"]
    name = f"teacher-{probe}"
    return [
        (name.encode(), _event(name, item, now - 60_000 + step).encode())
        for step, item in enumerate(pair)
    ]


def _event(user: str, item: str, timestamp: int) -> str:
    return f'{{"user_id":"{user}","item_id":"{item}","type":"view","timestamp":{timestamp}}}'


async def _probe_all(stack: Stack, probes: int) -> list[float]:
    begin = time.perf_counter() + _LEAD_SECONDS
    async with aiohttp.ClientSession(stack.http_url) as session:
        return await asyncio.gather(
            *(
                _probe(session, number, begin + number / _PROBES_A_SECOND)
                for number in range(probes)
            )
        )


async def _probe(session: aiohttp.ClientSession, probe: int, due: float) -> float:
    """Seconds from when the event was due to be sent to the answer that knows it."""
    await asyncio.sleep(due - time.perf_counter())
    user = f"prober-{probe}"
    wanted = f"probe-{probe}-second"
    async with session.post(
        "/v1/events",
        data=_event(user, f"probe-{probe}-first", int(time.time() * 1000)),
        headers={"Content-Type": "application/json"},
    ) as answer:
        if answer.status != 202:
            raise ServiceError(f"POST /v1/events answered {answer.status}: {await answer.text()}")
    while (waited := time.perf_counter() - due) < _PROBE_SECONDS:
        async with session.get(f"/v1/recommendations/{user}?n=10") as answer:
            body = await answer.read()
        if wanted.encode() in body:
            return time.perf_counter() - due
        # Asking without a pause would measure how busy the asking keeps the machine.
        await asyncio.sleep(_POLL_SECONDS)
    raise ServiceError(f"an event is not visible after {waited:.0f} s: see the logs")
