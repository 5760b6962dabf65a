"""What an event and a request cost as items, users and workers become more.

    items     10,000 to 1,000,000, with 100,000 users
    users     100,000 to 5,000,000, with 100,000 items
    workers   1, 2 and 4 on the same partitions

Each shop has a Redis of its own, all of them run at once, and every round measures one after the
other: what the machine does by itself meanwhile, it does to all. A shop holds the same crowd of old
customers, whose events make the lists, and as many quiet users as it is said to have, each with an
old session of three events. The log that a worker then counts has sessions of quiet users, and it
is these users who ask afterwards; so neither histories nor lists differ but by the numbers above.
Costs are processor time: worker and Redis for an event, server and Redis for a request. Worker and
server have a core to themselves. An event is measured in a backlog, whose batches of thousands meet
the same lists again and again where there are few, and at a steady rate, whose batches are small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import structlog

from benchmarks.counted import Steady, counted, until_counted
from benchmarks.fill import fill_store
from benchmarks.fold_step import OnlyUsers
from benchmarks.helper import Helper
from benchmarks.ingest import count_log, count_more, filled_log, sender_setup
from benchmarks.lead import let_lead
from benchmarks.processor import cores, microseconds_each
from benchmarks.report import machine, spread
from benchmarks.serve import ask_capacity, load_on
from benchmarks.setup import (
    measuring_stack,
    pin_apart,
    process_times,
    redis_apart,
    use_redis,
    use_topics,
)
from benchmarks.workload import make_workload
from commands.stack import Stack
from config.redis_server import RedisServer
from config.settings import Settings

__all__ = ["measure_growth"]

log = structlog.get_logger("headwater.bench")

_SEED = 23
_CROWD_FROM = 1 << 30
"""Numbers of old customers begin here, behind all others."""
_CROWD = 100_000
_NEW_FROM = 1 << 31
"""Numbers of those who come while they are measured."""
_HOUR = 3600
_LIVE_RATE = 10_000
"""Events a second."""
_LIMIT_SECONDS = 120.0
_WARM_UP_SECONDS = 6.0
"""Until lists that are asked for often have been parsed once."""
_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class _Shop:
    """So many items and users, in a Redis of their own."""

    items: int
    users: int
    redis: RedisServer
    counted: list[Steady] = field(default_factory=list)
    live: list[float] = field(default_factory=list)
    """Microseconds of an event at a steady rate."""
    asked: list[dict[str, Any]] = field(default_factory=list)

    def point(self) -> dict[str, Any]:
        """What the rounds came to."""
        event = spread([_cost(one.cpu, "workers") for one in self.counted], 2)
        live = spread(self.live, 2)
        request = spread([_cost(one["cpu"], "server") for one in self.asked], 2)
        return {
            "items": self.items,
            "users": self.users,
            "event_microseconds": event["median"],
            "events_per_second": spread([one.rate for one in self.counted])["median"],
            "live_event_microseconds": live["median"],
            "request_microseconds": request["median"],
            "requests_per_second": spread([one["requests_per_second"] for one in self.asked])[
                "median"
            ],
            "spread": {
                "event_microseconds": event,
                "live_event_microseconds": live,
                "request_microseconds": request,
            },
        }


async def measure_growth(
    settings: Settings,
    *,
    items: list[int],
    users: list[int],
    workers: list[int],
    filled: int,
    events: int,
    rounds: int,
    seconds: float,
) -> dict[str, Any]:
    """`filled` events make the lists; `events` of each log, and `seconds` of requests, a round.

    Users grow with the middle one of `items`, items with the least of `users`.
    """
    usual, fewest = sorted(items)[len(items) // 2], min(users)
    sizes = dict.fromkeys(
        [*((count, fewest) for count in sorted(items)), *((usual, some) for some in sorted(users))]
    )
    async with measuring_stack(settings) as stack:
        shared = await _with_workers(stack, usual, fewest, 3 * events, rounds, workers)
        async with AsyncExitStack() as stores:
            shops = [
                _Shop(*size, await stores.enter_async_context(redis_apart(stack))) for size in sizes
            ]
            for shop in shops:
                with use_redis(stack, shop.redis):
                    await _fill(stack, shop, filled)
            for number in range(rounds):
                for shop in shops:
                    with use_redis(stack, shop.redis):
                        await _round(stack, shop, number, rounds, events, seconds)
    points = [shop.point() for shop in shops]
    by_items = [point for point in points if point["users"] == fewest]
    by_users = [point for point in points if point["items"] == usual]
    return {
        "by_items": by_items,
        "by_users": by_users,
        "by_workers": shared,
        "greatest_by_least": _ratios({"items": by_items, "users": by_users, "workers": shared}),
        "filled": filled,
        "events": events,
        "rounds": rounds,
        "seconds": seconds,
        "pinned": cores() is not None,
        "machine": machine(),
    }


async def _fill(stack: Stack, shop: _Shop, filled: int) -> None:
    """Old customers' events, and three old events for each quiet user."""
    crowd = make_workload(
        filled,
        shop.items,
        _CROWD,
        _SEED,
        session_length=5,
        age_seconds=48 * _HOUR,
        first_user=_CROWD_FROM,
    )
    await fill_store(stack.settings, crowd, "crowd")
    quiet = make_workload(
        3 * shop.users,
        shop.items,
        shop.users,
        _SEED + 1,
        session_length=3,
        age_seconds=24 * _HOUR,
    )
    await fill_store(stack.settings, quiet, "quiet", OnlyUsers)


async def _round(
    stack: Stack, shop: _Shop, number: int, rounds: int, events: int, seconds: float
) -> None:
    """The users of a round's log are only of this round: their sessions do not meet."""
    share = shop.users // rounds
    await use_topics(stack, f"events-{shop.items}-{shop.users}-{number}")
    load = {
        "events": events,
        "items": shop.items,
        "users": share,
        "seed": _SEED + 10 + number,
        "first_user": number * share,
    }
    await filled_log(stack.settings, first_id=number * events, **load)
    shop.counted.append(await count_more(stack, events, 1, pinned=True))
    shop.live.append(await _count_live(stack, shop, number, seconds))
    shop.asked.append(await _ask(stack, load, seconds))
    log.info(
        "round",
        number=number + 1,
        items=shop.items,
        users=shop.users,
        event_microseconds=round(_cost(shop.counted[-1].cpu, "workers"), 2),
        live_event_microseconds=round(shop.live[-1], 2),
        request_microseconds=round(_cost(shop.asked[-1]["cpu"], "server"), 1),
    )


async def _count_live(stack: Stack, shop: _Shop, number: int, seconds: float) -> float:
    """Microseconds of worker and Redis an event, of new users' events that come at a steady rate;
    the first second does not count.
    """
    first, more = _LIVE_RATE, int(_LIVE_RATE * seconds)
    setup = sender_setup(
        stack.settings,
        events=first + more,
        items=shop.items,
        users=_CROWD,
        seed=_SEED + 50 + number,
        first_user=_NEW_FROM + number * _CROWD,
    )
    so_far = await counted(stack.settings)
    stack.start_workers(1)
    pin_apart(stack, stack.workers[-1].pid)
    times = process_times(stack)
    async with Helper("benchmarks.sender", setup) as sender:
        await sender.ask({"events": first, "rate": _LIVE_RATE})
        await until_counted(stack.settings, so_far + first, _LIMIT_SECONDS)
        before = times()
        await sender.ask({"events": more, "rate": _LIVE_RATE})
        await until_counted(stack.settings, so_far + first + more, _LIMIT_SECONDS)
        cost = microseconds_each(before, times(), more)
    await stack.stop_workers()
    return _cost(cost, "workers")


async def _ask(stack: Stack, load: dict[str, int], seconds: float) -> dict[str, Any]:
    """Requests of the users of a log, which was counted just now. The learned ranking answers: by
    itself it would in one shop, and not in another.
    """
    await let_lead(stack.settings, learned=True)
    await stack.start_server(1)
    async with load_on(stack, make_workload(**load)) as asking:
        if stack.server is not None:
            pin_apart(stack, stack.server.pid, asking.pid)
        times = process_times(stack)
        await ask_capacity(asking, times, _CONNECTIONS, _WARM_UP_SECONDS)
        found = await ask_capacity(asking, times, _CONNECTIONS, seconds)
    if stack.server is not None:
        await stack.server.stop()
    return found


async def _with_workers(
    stack: Stack, items: int, users: int, events: int, rounds: int, workers: list[int]
) -> list[dict[str, Any]]:
    """The same log, counted by one worker and by several, on all cores."""
    await use_topics(stack, "events-of-workers")
    await filled_log(stack.settings, events=events, items=items, users=users)
    found: dict[int, list[Steady]] = {count: [] for count in workers}
    for _ in range(rounds):
        for count, some in found.items():
            some.append(await count_log(stack, events, count, pinned=False))
    return [
        {
            "workers": count,
            "event_microseconds": spread([_cost(one.cpu, "workers") for one in some], 2)["median"],
            "events_per_second": spread([one.rate for one in some])["median"],
        }
        for count, some in found.items()
    ]


def _cost(cpu: Mapping[str, float], process: str) -> float:
    """Microseconds of a process and of Redis together; 0 where the system does not tell."""
    return cpu.get(process, 0.0) + cpu.get("redis", 0.0)


def _ratios(points: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Greatest cost by least, over the points of each axis."""
    found = {}
    for axis, some in points.items():
        for what in ("event", "live_event", "request"):
            costs = [one[f"{what}_microseconds"] for one in some if f"{what}_microseconds" in one]
            if costs and min(costs) > 0:
                found[f"{what}_by_{axis}"] = round(max(costs) / min(costs), 2)
    return found
