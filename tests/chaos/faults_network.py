"""What a network does between every pair of processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tests.chaos.proxy import Proxy
from tests.chaos.run import Fault, Inject, Run
from tests.chaos.world import SERVER, WORKER

__all__ = ["FAULTS"]

_DELAY_SECONDS = 0.15
_HELD_SECONDS = 9.0
"""Longer than a deadline on an answer, and than a worker's session."""

Links = Callable[[Run], list[Proxy]]
PAIRS: dict[str, Links] = {
    "worker-kafka": lambda run: [run.world.links[WORKER]],
    "worker-redis": lambda run: run.deployment.redis_of_worker,
    "server-kafka": lambda run: [run.world.links[SERVER]],
    "server-redis": lambda run: [run.deployment.redis_of_server],
}
"""By name: what stands between the two."""


def _late(links: Links) -> Inject:
    """Every byte comes late, both ways."""

    async def inject(run: Run) -> None:
        for link in links(run):
            link.delay(_DELAY_SECONDS)
            run.injected()
        await asyncio.sleep(8)
        for link in links(run):
            link.heal()

    return inject


def _reset(links: Links) -> Inject:
    """Connections break again and again, on both sides at once."""

    async def inject(run: Run) -> None:
        limit = time.monotonic() + 8
        while time.monotonic() < limit:
            await asyncio.sleep(run.rng.uniform(0.05, 0.6))
            run.injected(sum(link.reset() for link in links(run)))

    return inject


def _hold(links: Links) -> Inject:
    """Half-open: both sides believe in connections on which nothing comes any more."""

    async def inject(run: Run) -> None:
        for link in links(run):
            run.injected(link.connections)
            link.hold()
        await asyncio.sleep(_HELD_SECONDS)
        for link in links(run):
            link.heal()

    return inject


def _deaf(links: Links) -> Inject:
    """One way only: what is said arrives, and no answer comes back."""

    async def inject(run: Run) -> None:
        for link in links(run):
            run.injected(link.connections)
            link.down.flows.clear()
        await asyncio.sleep(_HELD_SECONDS)
        for link in links(run):
            link.heal()

    return inject


def _faults() -> list[Fault]:
    found: list[Fault] = []
    for pair, links in PAIRS.items():
        between = pair.replace("-", " and ")
        found += [
            Fault(
                f"net-{pair}-late",
                f"{between}: every byte {1000 * _DELAY_SECONDS:.0f} ms late, each way",
                _late(links),
            ),
            Fault(f"net-{pair}-reset", f"{between}: connections reset all the time", _reset(links)),
            Fault(
                f"net-{pair}-half-open",
                f"{between}: half-open for {_HELD_SECONDS:.0f} s, nothing comes and nobody is told",
                _hold(links),
            ),
        ]
    found += [
        Fault(
            f"net-{pair}-one-way",
            f"{pair.replace('-', ' and ')}: answers lost for {_HELD_SECONDS:.0f} s, "
            "what is said arrives",
            _deaf(PAIRS[pair]),
        )
        for pair in ("worker-redis", "worker-kafka")
    ]
    return found


FAULTS = _faults()
"""In the order of the table."""
