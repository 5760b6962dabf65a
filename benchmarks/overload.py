"""What becomes of a server that is asked more than it can answer: an open loop at multiples of its
capacity, each between two closed loops that find the capacity anew, for that of a shared machine
changes from minute to minute.

Goodput is what is answered 200; the latencies are of these alone. The server has a core to itself,
as in `serve.py`; the load may need all of another, and says how much it did.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import structlog

from benchmarks.fill import fill_store
from benchmarks.lead import let_lead
from benchmarks.processor import shares_of_a_core
from benchmarks.report import machine, spread
from benchmarks.serve import ask_capacity, load_on
from benchmarks.setup import measuring_stack, pin_apart, process_times
from benchmarks.workload import make_workload
from config.settings import Settings

__all__ = ["measure_overload"]

log = structlog.get_logger("headwater.bench")

_SEED = 11
_WARM_UP_SECONDS = 4.0
_CONNECTIONS = 1024
_TIMES = (1.5, 3.0)


async def measure_overload(
    settings: Settings,
    *,
    events: int,
    items: int,
    users: int,
    rounds: int,
    seconds: float,
    connections: int,
) -> dict[str, Any]:
    """Rounds of `seconds` at each multiple of what one process can answer."""
    load = make_workload(events, items, users, _SEED)
    best: list[float] = []
    found: dict[float, list[dict[str, Any]]] = {times: [] for times in _TIMES}
    async with measuring_stack(settings) as stack:
        await fill_store(stack.settings, load)
        await let_lead(stack.settings, learned=True)
        await stack.start_server(1)
        async with load_on(stack, load) as asking:
            if stack.server is not None:
                pin_apart(stack, stack.server.pid, asking.pid)
            times = process_times(stack)
            await ask_capacity(asking, times, connections, _WARM_UP_SECONDS)
            for number in range(rounds):
                before = await ask_capacity(asking, times, connections, seconds)
                for multiple in _TIMES:
                    order = {
                        "connections": _CONNECTIONS,
                        "rate": multiple * before["requests_per_second"],
                        "seconds": seconds,
                    }
                    spent = times()
                    over = await asking.ask(order)
                    took = over["requests"] / over["requests_per_second"]
                    used = {
                        f"{name}_share_of_a_core": share
                        for name, share in shares_of_a_core(spent, times(), took).items()
                    }
                    after = await ask_capacity(asking, times, connections, seconds)
                    capacity = (before["requests_per_second"] + after["requests_per_second"]) / 2
                    best.append(capacity)
                    before = after
                    found[multiple].append({**over, **used, "share": over["goodput"] / capacity})
                    log.info(
                        "round",
                        number=number + 1,
                        times=multiple,
                        capacity=round(capacity),
                        offered=round(over["requests_per_second"]),
                        goodput=round(over["goodput"]),
                        p99_ms=over["p99_ms"],
                    )
    told = {str(multiple): _told(rounds_of) for multiple, rounds_of in found.items()}
    worst = told[str(_TIMES[-1])]
    return {
        "requests_per_second": spread(best)["median"],
        "goodput_share": worst["goodput_share"]["median"],
        "p50_ms": worst["p50_ms"]["median"],
        "p99_ms": worst["p99_ms"]["median"],
        "times_capacity": told,
        "rounds": rounds,
        "seconds": seconds,
        "connections": _CONNECTIONS,
        "events": events,
        "items": items,
        "users": users,
        "users_known": len(np.unique(load.user)),
        "machine": machine(),
    }


def _told(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    names = {
        "goodput_share": "share",
        "goodput_per_second": "goodput",
        "offered_per_second": "requests_per_second",
        "p50_ms": "p50_ms",
        "p99_ms": "p99_ms",
        "max_ms": "max_ms",
    }
    shares = {name: name for name in rounds[0] if name.endswith("_share_of_a_core")}
    return {
        told: spread([one[name] for one in rounds], 3) for told, name in {**names, **shares}.items()
    }
