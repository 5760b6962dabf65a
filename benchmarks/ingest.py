"""Events a second from Kafka to committed, and what an event costs each process.

*Alone*: the worker has a core to itself, Kafka and Redis have the others, and the log is filled
before the worker starts. *Together*: producer, Kafka, Redis and workers share all cores, and the
clock runs from the first event that is sent to the last one that is committed.

Each round begins with an empty Redis. Its first part warms up (caches, lists that grow until they
are compacted) and does not count.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from benchmarks.counted import Sample, Steady, steady, until_counted
from benchmarks.helper import Helper
from benchmarks.processor import cores
from benchmarks.report import machine, spread, spreads
from benchmarks.setup import (
    measuring_stack,
    pin_apart,
    process_times,
    spread_out,
    use_topics,
    wipe,
)
from commands.stack import Stack
from config.errors import ServiceError
from config.settings import Settings
from streams.topics import bootstrap_of

__all__ = [
    "WARM_UP",
    "count_live",
    "count_log",
    "count_more",
    "filled_log",
    "measure_ingest",
    "sender_setup",
]

log = structlog.get_logger("headwater.bench")

WARM_UP = 0.25
"""Share of a round's events that does not count."""
_LIMIT_SECONDS = 600
_SEED = 7


async def measure_ingest(
    settings: Settings, *, events: int, items: int, users: int, rounds: int, workers: int
) -> dict[str, Any]:
    """Rounds of both kinds on the same services; more than one worker is not pinned."""
    shop = {"events": events, "items": items, "users": users}
    alone: list[Steady] = []
    together: list[Steady] = []
    producer: list[float] = []
    async with measuring_stack(settings) as stack:
        await filled_log(stack.settings, **shop)
        log_bytes = _log_bytes(stack)
        for number in range(rounds):
            alone.append(await count_log(stack, events, workers, pinned=workers == 1))
            log.info("alone", round=number + 1, events_per_second=round(alone[-1].rate))
        for number in range(rounds):
            found, cost = await count_live(stack, f"live-{number}", workers, **shop)
            together.append(found)
            producer.append(cost)
            log.info("together", round=number + 1, events_per_second=round(found.rate))
    own_core = spread([one.rate for one in alone])
    shared = spread([one.rate for one in together])
    return {
        "events_per_second": own_core["median"],
        "events_per_second_together": shared["median"],
        "spread": {"alone": own_core, "together": shared},
        "microseconds_per_event": {
            "alone": spreads([one.cpu for one in alone]),
            "together": spreads([one.cpu for one in together]) | {"producer": spread(producer, 2)},
        },
        "log_bytes_per_event": round(log_bytes / events, 1),
        "pinned": workers == 1 and cores() is not None,
        "rounds": rounds,
        **shop,
        "workers": workers,
        "machine": machine(),
    }


def _log_bytes(stack: Stack) -> int:
    """Of the topic of events in Kafka's data folder; its indexes are made in advance."""
    if stack.services.kafka is None:
        raise ServiceError("only services that were started here can be measured")
    segments = f"data/{stack.settings.kafka.events_topic}-*/*.log"
    return sum(path.stat().st_size for path in stack.services.kafka.folder.glob(segments))


def sender_setup(settings: Settings, first_id: int = 0, **load: Any) -> dict[str, Any]:
    """What `benchmarks.sender` has to know: `load` are the arguments of `make_workload`, and the
    event_ids count from `first_id` on.
    """
    return {
        "bootstrap": bootstrap_of(settings),
        "topic": settings.kafka.events_topic,
        "first_id": first_id,
        "load": load,
    }


async def filled_log(settings: Settings, *, events: int, first_id: int = 0, **load: Any) -> None:
    """Put a workload into the topic of events, as fast as Kafka takes it."""
    setup = sender_setup(settings, first_id, events=events, **{"seed": _SEED, **load})
    async with Helper("benchmarks.sender", setup) as sender:
        await sender.ask({"events": events})


async def count_log(
    stack: Stack, events: int, workers: int, *, pinned: bool, warm_up: float = WARM_UP
) -> Steady:
    """Let new workers count the log of so many events into an empty Redis, then stop them."""
    await wipe(stack)
    return await count_more(stack, events, workers, pinned=pinned, warm_up=warm_up)


async def count_more(
    stack: Stack, events: int, workers: int, *, pinned: bool, warm_up: float = WARM_UP
) -> Steady:
    """Let new workers count the log of so many events into what Redis holds, then stop them."""
    (start,) = [one.events for one in await until_counted(stack.settings, 0, _LIMIT_SECONDS)]
    stack.start_workers(workers)
    if pinned:
        pin_apart(stack, stack.workers[-1].pid)
    else:
        spread_out(stack)
    times = process_times(stack)
    seen = await until_counted(stack.settings, start + events, _LIMIT_SECONDS, times)
    await stack.stop_workers()
    return steady(seen, start + max(1, int(warm_up * events)))


async def count_live(
    stack: Stack, name: str, workers: int, *, events: int, items: int, users: int
) -> tuple[Steady, float]:
    """Send events to a topic of their own while workers count them into an empty Redis.

    Returns what was counted from the first event sent after the warm-up, and the microseconds that
    an event cost the producer.
    """
    spread_out(stack)
    await wipe(stack)
    await use_topics(stack, name)
    warm_up = int(WARM_UP * events)
    setup = sender_setup(stack.settings, events=events, items=items, users=users, seed=_SEED)
    async with Helper("benchmarks.sender", setup) as sender:
        stack.start_workers(workers)
        await sender.ask({"events": warm_up})
        await until_counted(stack.settings, warm_up, _LIMIT_SECONDS)
        times = process_times(stack)
        before = times()
        sent, seen = await asyncio.gather(
            sender.ask({"events": events - warm_up}),
            until_counted(stack.settings, events, _LIMIT_SECONDS, times),
        )
    await stack.stop_workers()
    found = steady([Sample(sent["begin"], warm_up, before), seen[-1]])
    return found, 1e6 * sent["cpu_seconds"] / sent["events"]
