"""Recommendation requests a second, and how long one takes, for known users."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import structlog
from yarl import URL

from benchmarks.http_load import closed_loop, get_request, open_loop
from benchmarks.report import machine, spread
from benchmarks.setup import measuring_stack, produce, until_counted
from benchmarks.workload import make_workload, records
from config.settings import Settings

__all__ = ["measure_serve"]

log = structlog.get_logger("headwater.bench")

_LIMIT_SECONDS = 600
_SEED = 11
_CONNECTIONS = 32
_WARM_UP_SECONDS = 3.0
_SHARE_OF_CAPACITY = 0.7
_REQUESTS = 50_000


async def measure_serve(
    settings: Settings,
    *,
    events: int,
    items: int,
    users: int,
    rounds: int,
    seconds: float,
    processes: int,
) -> dict[str, Any]:
    """Capacity by a closed loop; latency by an open loop at 70 % of it, and on one connection.

    Users ask in random order, as often as they have events. The load runs in this process, beside
    the server and Redis.
    """
    load = make_workload(events, items, users, _SEED)
    rng = np.random.default_rng(_SEED)
    asking = [
        get_request(f"/v1/recommendations/user-{user}?n=20")
        for user in rng.choice(load.user, _REQUESTS).tolist()
    ]
    async with measuring_stack(settings, workers=1, processes=processes) as stack:
        await asyncio.to_thread(produce, stack.settings, records(load))
        await until_counted(stack.settings, events, _LIMIT_SECONDS)
        await stack.stop_workers()
        url = URL(stack.http_url)
        at = url.host or "", url.port or 0
        await closed_loop(*at, asking, _CONNECTIONS, _WARM_UP_SECONDS)
        capacity, p50, p99, single = [], [], [], []
        errors = 0
        for number in range(rounds):
            full = await closed_loop(*at, asking, _CONNECTIONS, seconds)
            steady = await open_loop(
                *at, asking, _CONNECTIONS, full.rate * _SHARE_OF_CAPACITY, seconds
            )
            alone = await closed_loop(*at, asking, 1, seconds / 2)
            capacity.append(full.rate)
            p50.append(steady.percentile_ms(50))
            p99.append(steady.percentile_ms(99))
            single.append(alone.percentile_ms(50))
            errors += full.errors + steady.errors + alone.errors
            log.info("round", number=number + 1, requests_per_second=round(full.rate))
    result = spread(capacity)
    return {
        "requests_per_second": result["median"],
        "spread": result,
        "p50_ms": spread(p50, 2)["median"],
        "p99_ms": spread(p99, 2)["median"],
        "p50_one_connection_ms": spread(single, 2)["median"],
        "errors": errors,
        "rounds": rounds,
        "events": events,
        "items": items,
        "users": users,
        "processes": processes,
        "machine": machine(),
    }
