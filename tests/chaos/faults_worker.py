"""Workers that are killed, frozen, replaced, and too many."""

from __future__ import annotations

import asyncio
import signal
import time
from functools import partial

from redis.asyncio import Redis

from config.errors import ServiceError
from config.supervisor import Child
from store.scripts import Scripts
from tests.chaos.deployment import SESSION_TIMEOUT
from tests.chaos.proxy import ScriptTrap
from tests.chaos.run import END_SECONDS, Fault, Inject, Run

__all__ = ["FAULTS"]

_TRIES = 3


def _digest(name: str) -> str:
    return Scripts(Redis()).digest(name)


def _kill_at(script: str, count: int, *, answer: bool = False) -> Inject:
    """Kill the worker when the count-th call of a script has been sent, or has been done."""

    async def inject(run: Run) -> None:
        for number in range(_TRIES):
            which = number % len(run.workers)
            await asyncio.sleep(2.0)
            proxy, worker = run.deployment.redis_of_worker[which], run.workers[which]
            trap = proxy.trap = ScriptTrap(_digest(script), count, answer=answer)
            try:
                async with asyncio.timeout(30):
                    await trap.sprung.wait()
            except TimeoutError:
                run.require(False, f"worker {which + 1} called {script} not {count} times")
            await asyncio.sleep(0.1)  # what went through is done, and its answer held back
            worker.kill()
            run.deployment.stopped += 1
            run.injected()
            proxy.heal()

    return inject


async def _kill_at_random(run: Run) -> None:
    limit = time.monotonic() + 12
    while time.monotonic() < limit:
        await asyncio.sleep(run.rng.uniform(0.8, 2.0))
        worker = run.rng.choice(run.workers)
        if worker.running:
            worker.kill()
            run.deployment.stopped += 1
            run.injected()


async def _freeze(run: Run) -> None:
    """Each in turn, long enough that its partitions have another owner when it comes back."""
    for worker in run.workers:
        await asyncio.sleep(1)
        worker.send(signal.SIGSTOP)
        run.injected()
        await asyncio.sleep(SESSION_TIMEOUT + 3)
        worker.send(signal.SIGCONT)


async def _roll(run: Run) -> None:
    for _ in range(2):
        for worker in run.workers:
            await _stop_in_time(run, worker)
            before = _assignments(worker)
            worker.start()
            run.injected()
            await run.until(partial(_assigned, worker, before), "a new worker reads nothing")


def _assignments(worker: Child) -> int:
    return worker.log.read_text(errors="replace").count("partition assigned")


def _assigned(worker: Child, before: int) -> bool:
    return _assignments(worker) > before


async def _stop_in_time(run: Run, worker: Child) -> None:
    began = time.monotonic()
    await worker.stop()
    took = time.monotonic() - began
    run.require(took < END_SECONDS, f"SIGTERM took {took:.1f} s")
    run.note(f"SIGTERM took {took:.1f} s")


async def _too_many(run: Run) -> None:
    """Six workers for four partitions; then those that work are killed."""
    await run.deployment.start_workers(4)
    run.injected(4)
    await asyncio.sleep(6)
    for worker in run.workers[:3]:
        worker.kill()
        run.deployment.stopped += 1
        run.injected()


async def _storm(run: Run) -> None:
    """Members come and go faster than the group settles."""
    await run.deployment.start_workers(2)
    limit = time.monotonic() + 14
    while time.monotonic() < limit:
        worker = run.workers[2 + run.rng.randrange(2)]
        try:
            if run.rng.random() < 0.5:
                worker.kill()
                run.deployment.stopped += 1
            else:
                await worker.restart()
        except ServiceError:
            pass  # it has just been killed
        else:
            run.injected()
        await asyncio.sleep(run.rng.uniform(0.2, 1.5))


async def _term_under_load(run: Run) -> None:
    """All at once while events come; and then all anew."""
    for _ in range(2):
        await asyncio.sleep(4)
        await asyncio.gather(*(_stop_in_time(run, worker) for worker in run.workers))
        run.injected(len(run.workers))
        await asyncio.sleep(1)
        for worker in run.workers:
            worker.start()


FAULTS = [
    Fault(
        "worker-kill-before-commit",
        "kill -9 with a commit's first script sent and not done",
        _kill_at("commit_items", 1),
    ),
    Fault(
        "worker-kill-between-shards",
        "kill -9 when one item shard has the batch and the other has not",
        _kill_at("commit_items", 2),
    ),
    Fault(
        "worker-kill-items-totals",
        "kill -9 when all item shards have the batch and the totals have not",
        _kill_at("commit_totals", 1),
    ),
    Fault(
        "worker-kill-items-users",
        "kill -9 when items and totals have the batch and no user shard has",
        _kill_at("commit_users", 1),
    ),
    Fault(
        "worker-kill-between-users",
        "kill -9 when one user shard has the batch and the other has not",
        _kill_at("commit_users", 2),
    ),
    Fault(
        "worker-kill-after-commit",
        "kill -9 when everything has the batch and the worker does not know",
        _kill_at("commit_users", 2, answer=True),
    ),
    Fault("worker-kill-random", "kill -9 at any moment, again and again", _kill_at_random),
    Fault("worker-freeze", "SIGSTOP past the session timeout, and back", _freeze),
    Fault("worker-rolling-restart", "each worker stopped and started, twice", _roll),
    Fault("worker-too-many", "six workers for four partitions, three of them killed", _too_many),
    Fault("worker-rebalance-storm", "two workers more that come and go all the time", _storm),
    Fault("worker-term", "SIGTERM to all under load, each must end within 10 s", _term_under_load),
]
"""In the order of the table."""
