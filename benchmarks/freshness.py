"""How long from sending an event to an answer that knows it, while other events flow.

Each probe has two items of its own that were once viewed together. A new user views the first; the
event is visible when that user's recommendations hold the second, which nobody else would be shown.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import aiohttp
import numpy as np
import structlog

from benchmarks.counted import until_counted
from benchmarks.report import machine
from benchmarks.setup import measuring_stack, produce
from benchmarks.workload import Workload, make_workload, records
from config.errors import ServiceError
from config.settings import Settings
from streams.producer import RecordProducer
from streams.topics import bootstrap_of

__all__ = ["measure_freshness"]

log = structlog.get_logger("headwater.bench")

_SEED = 13
_LIMIT_SECONDS = 120
_PROBE_SECONDS = 10.0
_PAUSE_SECONDS = 0.05
_POLL_SECONDS = 0.003
_WARM_UP_PROBES = 10


async def measure_freshness(
    settings: Settings, *, rate: float, items: int, users: int, probes: int
) -> dict[str, Any]:
    """Probes one after the other while `rate` events a second are sent."""
    probes += _WARM_UP_PROBES
    warm = make_workload(20_000, items, users, _SEED)
    async with measuring_stack(settings, workers=1, processes=1) as stack:
        taught = [record for k in range(probes) for record in _teach(k)]
        await asyncio.to_thread(produce, stack.settings, [*records(warm), *taught])
        await until_counted(stack.settings, len(warm.user) + len(taught), _LIMIT_SECONDS)
        background = make_workload(int(rate * 600), items, users, _SEED + 1)
        stop = threading.Event()
        sender = asyncio.create_task(
            asyncio.to_thread(_send_steadily, stack.settings, background, rate, stop)
        )
        try:
            async with aiohttp.ClientSession(stack.http_url) as session:
                took = [await _probe(session, k) for k in range(probes)][_WARM_UP_PROBES:]
        finally:
            stop.set()
            sent, seconds = await sender
    return {
        "p50_ms": round(float(np.percentile(took, 50)) * 1000, 1),
        "p99_ms": round(float(np.percentile(took, 99)) * 1000, 1),
        "max_ms": round(max(took) * 1000, 1),
        "probes": len(took),
        "background_events_per_second": round(sent / seconds),
        "machine": machine(),
    }


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


async def _probe(session: aiohttp.ClientSession, probe: int) -> float:
    """Seconds from sending the event to the answer that knows it."""
    user = f"prober-{probe}"
    wanted = f"probe-{probe}-second"
    begin = time.perf_counter()
    async with session.post(
        "/v1/events",
        data=_event(user, f"probe-{probe}-first", int(time.time() * 1000)),
        headers={"Content-Type": "application/json"},
    ) as answer:
        if answer.status != 202:
            raise ServiceError(f"POST /v1/events answered {answer.status}: {await answer.text()}")
    while (waited := time.perf_counter() - begin) < _PROBE_SECONDS:
        async with session.get(f"/v1/recommendations/{user}?n=10") as answer:
            body = await answer.json()
        if any(item["item_id"] == wanted for item in body["items"]):
            waited = time.perf_counter() - begin
            await asyncio.sleep(_PAUSE_SECONDS)
            return waited
        # Asking without a pause would measure how busy the asking keeps the machine.
        await asyncio.sleep(_POLL_SECONDS)
    raise ServiceError(f"an event is not visible after {_PROBE_SECONDS:.0f} s: see the logs")


def _send_steadily(
    settings: Settings, load: Workload, rate: float, stop: threading.Event
) -> tuple[int, float]:
    """Send events at a rate until told to stop; returns how many, in how many seconds."""
    begin = time.monotonic()
    sent = 0
    with RecordProducer(bootstrap_of(settings)) as producer:
        for key, value in records(load, first_id=1 << 40):
            while (ahead := sent / rate - (time.monotonic() - begin)) > 0:
                if stop.wait(min(ahead, 0.01)):
                    return sent, time.monotonic() - begin
            producer.publish(settings.kafka.events_topic, key, value)
            sent += 1
    raise ServiceError("the background load ended before the probes did: ask for fewer probes")
