"""Recommendation requests a second, how long one takes, and what it costs each process.

The server has a core to itself; the load, Redis and Kafka share the others. Capacity is found by a
closed loop; latency by an open loop at 70 % of it, and by one connection that asks and waits. The
store is filled by `fill.py`; users ask in random order, as often as they have events, and are
answered by the learned ranking.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import structlog
from yarl import URL

from benchmarks.fill import fill_store
from benchmarks.helper import Helper
from benchmarks.lead import let_lead
from benchmarks.processor import ProcessTimes, cores, microseconds_each, pin
from benchmarks.report import machine, spread, spreads
from benchmarks.setup import measuring_stack, pin_apart, process_times
from benchmarks.workload import Workload, make_workload
from commands.stack import Stack
from config.errors import ServiceError
from config.settings import Settings

__all__ = ["ask_capacity", "load_on", "measure_serve"]

log = structlog.get_logger("headwater.bench")

_SEED = 11
_WARM_UP_SECONDS = 4.0
_SHARE_OF_CAPACITY = 0.7
_OPEN_CONNECTIONS = 256
_PATHS = 50_000
_CEILING_SECONDS = 2.0


async def measure_serve(
    settings: Settings,
    *,
    events: int,
    items: int,
    users: int,
    rounds: int,
    seconds: float,
    connections: int,
    processes: int,
) -> dict[str, Any]:
    """Rounds of `seconds` of each kind of load on the same server."""
    load = make_workload(events, items, users, _SEED)
    full: list[dict[str, Any]] = []
    steady: list[dict[str, Any]] = []
    single: list[dict[str, Any]] = []
    async with measuring_stack(settings) as stack:
        await fill_store(stack.settings, load)
        await let_lead(stack.settings, learned=True)
        ceiling = await _ceiling(connections)
        await stack.start_server(processes)
        async with load_on(stack, load) as asking:
            if processes == 1 and stack.server is not None:
                pin_apart(stack, stack.server.pid, asking.pid)
            times = process_times(stack)
            await ask_capacity(asking, times, connections, _WARM_UP_SECONDS)
            for number in range(rounds):
                full.append(await ask_capacity(asking, times, connections, seconds))
                rate = _SHARE_OF_CAPACITY * full[-1]["requests_per_second"]
                order = {"connections": _OPEN_CONNECTIONS, "rate": rate, "seconds": seconds}
                steady.append(await asking.ask(order))
                single.append(await asking.ask({"connections": 1, "seconds": seconds / 2}))
                log.info(
                    "round",
                    number=number + 1,
                    requests_per_second=round(full[-1]["requests_per_second"]),
                    p99_ms=steady[-1]["p99_ms"],
                    one_connection_p50_ms=single[-1]["p50_ms"],
                )
    rates = spread([one["requests_per_second"] for one in full])
    waits = spreads([_percentiles(one) for one in steady])
    return {
        "requests_per_second": rates["median"],
        **{name: found["median"] for name, found in waits.items()},
        "p50_one_connection_ms": spread([one["p50_ms"] for one in single], 3)["median"],
        "spread": {
            "requests_per_second": rates,
            "open_loop_ms": waits,
            "one_connection_ms": spreads([_percentiles(one) for one in single], 3),
        },
        "microseconds_per_request": spreads([one["cpu"] for one in full]),
        "load": {
            "share_of_a_core": spread([one["load_share_of_a_core"] for one in full], 2)["median"],
            "ceiling_requests_per_second": round(ceiling),
        },
        "errors": sum(one["errors"] for one in (*full, *steady, *single)),
        "pinned": processes == 1 and cores() is not None,
        "connections": connections,
        "rounds": rounds,
        "seconds": seconds,
        "events": events,
        "items": items,
        "users": users,
        "users_known": len(np.unique(load.user)),
        "processes": processes,
        "machine": machine(),
    }


def load_on(stack: Stack, load: Workload) -> Helper:
    """A load that asks a stack's server for recommendations to the users of a workload."""
    url = URL(stack.http_url)
    asking = np.random.default_rng(_SEED).choice(load.user, _PATHS).tolist()
    paths = [f"/v1/recommendations/user-{user}?n=20" for user in asking]
    return Helper("benchmarks.http_load", {"host": url.host, "port": url.port, "paths": paths})


async def ask_capacity(
    asking: Helper, times: ProcessTimes, connections: int, seconds: float
) -> dict[str, Any]:
    """A closed loop; `cpu` has what a request cost each process, in microseconds.

    Raises ServiceError where requests fail.
    """
    before = times()
    found = await asking.ask({"connections": connections, "seconds": seconds})
    if found["errors"]:
        raise ServiceError(f"{found['errors']} requests were not answered 200: see the server")
    return {**found, "cpu": microseconds_each(before, times(), found["requests"])}


async def _ceiling(connections: int) -> float:
    """What the load asks of a server that always says the same."""
    with _constant_server() as (pid, url):
        setup = {"host": url.host, "port": url.port, "paths": ["/"]}
        async with Helper("benchmarks.http_load", setup) as asking:
            shared_out = cores()
            if shared_out is not None:
                pin(pid, shared_out.subject)
                pin(asking.pid, shared_out.others)
            found = await asking.ask({"connections": connections, "seconds": _CEILING_SECONDS})
    return float(found["requests_per_second"])


@contextmanager
def _constant_server() -> Iterator[tuple[int, URL]]:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.constant"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        if server.stdout is None or server.stdin is None:
            raise ServiceError("the constant server has no pipes")
        yield server.pid, URL(server.stdout.readline().strip())
        server.stdin.close()


def _percentiles(found: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in found.items() if name.endswith("_ms")}
