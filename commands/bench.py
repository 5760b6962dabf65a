"""`headwater bench`: how fast it is here, measured on services started for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import uvloop
from cyclopts import App, Parameter
from cyclopts.validators import Number

from benchmarks.against import measure_against
from benchmarks.freshness import measure_freshness
from benchmarks.growth import measure_growth
from benchmarks.ingest import measure_ingest
from benchmarks.learning import measure_learning
from benchmarks.memory import measure_memory
from benchmarks.overload import measure_overload
from benchmarks.rebalance import measure_rebalance
from benchmarks.regions import measure_regions
from benchmarks.replay import measure_replay
from benchmarks.serve import measure_serve
from benchmarks.spike import measure_spike
from commands.process import Json, print_json, say
from config.settings import Settings, load_settings
from planning.costs_file import costs_path, write_costs

__all__ = ["bench"]

Positive = Annotated[int, Parameter(validator=Number(gte=1))]
Rate = Annotated[float, Parameter(validator=Number(gt=0))]

bench = App(
    name="bench",
    help="How fast it is here, measured on services that are started for it.",
    version_flags=[],
)


@bench.command
def ingest(
    *,
    events: Positive = 600_000,
    items: Positive = 20_000,
    users: Positive = 100_000,
    rounds: Positive = 5,
    workers: Positive = 1,
    json: Json = False,
) -> None:
    """Events a second from Kafka to committed: by a worker on a core of its own, and by all
    together on all cores.

    Parameters
    ----------
    events
        Events of a round, the first quarter of which warms up.
    items
        Items of the shop.
    users
        Users of the shop.
    rounds
        Rounds of which the median counts.
    workers
        Workers; more than one are not kept to one core.
    """
    _run(
        "ingest",
        lambda settings: measure_ingest(
            settings, events=events, items=items, users=users, rounds=rounds, workers=workers
        ),
        json,
    )


@bench.command
def serve(
    *,
    events: Positive | None = None,
    items: Positive = 100_000,
    users: Positive = 1_000_000,
    rounds: Positive = 5,
    seconds: Rate = 8,
    connections: Positive = 32,
    processes: Positive = 1,
    overload: bool = False,
    json: Json = False,
) -> None:
    """Recommendation requests a second, and how long one takes.

    Parameters
    ----------
    events
        Events that the store is filled with; 5.5 of each user by default.
    items
        Items of the shop.
    users
        Users of the shop.
    rounds
        Rounds of which the median counts.
    seconds
        Length of each part of a round.
    connections
        Connections of the closed loop that finds the capacity.
    processes
        Server processes; more than one are not kept to one core.
    overload
        Ask one process for more than it can answer, instead: what it still answers, and how soon.
    """
    if overload:
        _run(
            "serve",
            lambda settings: measure_overload(
                settings,
                events=events or int(5.5 * users),
                items=items,
                users=users,
                rounds=rounds,
                seconds=seconds,
                connections=connections,
            ),
            json,
        )
        return
    _run(
        "serve",
        lambda settings: measure_serve(
            settings,
            events=events or int(5.5 * users),
            items=items,
            users=users,
            rounds=rounds,
            seconds=seconds,
            connections=connections,
            processes=processes,
        ),
        json,
    )


@bench.command
def freshness(
    *,
    rate: Rate = 10_000,
    requests: Annotated[float, Parameter(validator=Number(gte=0))] = 1000,
    items: Positive = 20_000,
    users: Positive = 100_000,
    probes: Positive = 200,
    json: Json = False,
) -> None:
    """How long from an event to an answer that knows it, while other events and requests flow.

    Parameters
    ----------
    rate
        Events a second beside the probes.
    requests
        Requests a second beside the probes.
    items
        Items of the shop.
    users
        Users of the shop.
    probes
        Events whose way is timed.
    """
    _run(
        "freshness",
        lambda settings: measure_freshness(
            settings, rate=rate, requests=requests, items=items, users=users, probes=probes
        ),
        json,
    )


@bench.command
def replay(
    *,
    events: Positive = 1_000_000,
    items: Positive = 20_000,
    users: Positive = 100_000,
    rounds: Positive = 3,
    workers: tuple[Positive, ...] = (1, 2),
    json: Json = False,
) -> None:
    """Events a second when everything is rebuilt from the log.

    Parameters
    ----------
    events
        Events in the log.
    items
        Items of the shop.
    users
        Users of the shop.
    rounds
        Rounds of which the median counts.
    workers
        Numbers of workers to measure with.
    """
    _run(
        "replay",
        lambda settings: measure_replay(
            settings,
            events=events,
            items=items,
            users=users,
            rounds=rounds,
            workers=list(workers),
        ),
        json,
    )


@bench.command
def against(
    *,
    events: Positive = 600_000,
    items: Positive = 20_000,
    users: Positive = 100_000,
    rounds: Positive = 3,
    seconds: Rate = 12,
    json: Json = False,
) -> None:
    """The same work done in simpler ways: stock Faust, a plain loop, a Redis command for each pair.

    Parameters
    ----------
    events
        Events in the log.
    items
        Items of the shop.
    users
        Users of the shop.
    rounds
        Rounds of which the median counts.
    seconds
        For how long each of the others is watched in a round.
    """
    _run(
        "against",
        lambda settings: measure_against(
            settings, events=events, items=items, users=users, rounds=rounds, seconds=seconds
        ),
        json,
    )


@bench.command
def memory(*, items: Positive = 2_500, users: Positive = 50_000, json: Json = False) -> None:
    """Bytes in Redis of a user with 20 events, and of an item with 100 neighbours.

    Parameters
    ----------
    items
        Items of the shop: with 400 events each, lists are full.
    users
        Users of the shop; each has 20 events.
    """
    _run("memory", lambda settings: measure_memory(settings, items=items, users=users), json)


@bench.command
def growth(
    *,
    items: tuple[Positive, ...] = (10_000, 100_000, 1_000_000),
    users: tuple[Positive, ...] = (100_000, 1_000_000, 5_000_000),
    workers: tuple[Positive, ...] = (1, 2, 4),
    filled: Positive = 2_000_000,
    events: Positive = 150_000,
    rounds: Positive = 3,
    seconds: Rate = 4,
    json: Json = False,
) -> None:
    """What an event and a request cost as items, users and workers become more.

    Parameters
    ----------
    items
        Numbers of items.
    users
        Numbers of users.
    workers
        Numbers of workers.
    filled
        Events that make the lists beforehand.
    events
        Events that are counted in a round.
    rounds
        Rounds of which the median counts.
    seconds
        Length of a round of requests.
    """
    _run(
        "growth",
        lambda settings: measure_growth(
            settings,
            items=list(items),
            users=list(users),
            workers=list(workers),
            filled=filled,
            events=events,
            rounds=rounds,
            seconds=seconds,
        ),
        json,
    )


@bench.command
def learning(
    *,
    events: Positive = 300_000,
    items: Positive = 20_000,
    users: Positive = 50_000,
    rounds: Positive = 3,
    seconds: Rate = 8,
    json: Json = False,
) -> None:
    """What the learned ranking costs: at a request, and while counting.

    Parameters
    ----------
    events
        Events of the shop.
    items
        Items of the shop.
    users
        Users of the shop.
    rounds
        Rounds of which the median counts.
    seconds
        Length of a round of requests.
    """
    _run(
        "learning",
        lambda settings: measure_learning(
            settings, events=events, items=items, users=users, rounds=rounds, seconds=seconds
        ),
        json,
    )


@bench.command
def spike(
    *,
    rate: Rate = 1_000,
    requests: Rate = 300,
    times: Rate = 10,
    items: Positive = 20_000,
    users: Positive = 100_000,
    calm: Rate = 30,
    rush: Rate = 120,
    after: Rate = 90,
    json: Json = False,
) -> None:
    """What becomes of events and requests that are ten times as many from one second to the next.

    Parameters
    ----------
    rate
        Events a second, before and after.
    requests
        Requests a second, before and after.
    times
        Times as many of both in the rush.
    items
        Items of the shop.
    users
        Users of the shop.
    calm
        Seconds before the rush.
    rush
        Seconds of the rush.
    after
        Seconds that are watched after it.
    """
    _run(
        "spike",
        lambda settings: measure_spike(
            settings,
            rate=rate,
            requests=requests,
            times=times,
            items=items,
            users=users,
            calm=calm,
            rush=rush,
            after=after,
        ),
        json,
    )


@bench.command
def regions(
    *,
    rate: Rate = 500,
    requests: Rate = 50,
    items: Positive = 2_000,
    users: Positive = 10_000,
    seconds: Rate = 60,
    json: Json = False,
) -> None:
    """What one of two regions knows and answers when the other one is lost, and when both agree.

    Parameters
    ----------
    rate
        Events a second in each region.
    requests
        Requests a second in each region.
    items
        Items of the shop.
    users
        Users of each region.
    seconds
        Seconds of events and requests; after half of them a region is lost.
    """
    _run(
        "regions",
        lambda settings: measure_regions(
            settings, rate=rate, requests=requests, items=items, users=users, seconds=seconds
        ),
        json,
    )


@bench.command
def rebalance(
    *,
    rate: Rate = 1_000,
    items: Positive = 2_000,
    users: Positive = 10_000,
    partitions: Positive = 12,
    json: Json = False,
) -> None:
    """How long partitions stand still when a worker joins, ends or is killed.

    Parameters
    ----------
    rate
        Events a second.
    items
        Items of the shop.
    users
        Users of the shop.
    partitions
        Partitions of the topic of events.
    """
    _run(
        "rebalance",
        lambda settings: measure_rebalance(
            settings, rate=rate, items=items, users=users, partitions=partitions
        ),
        json,
    )


def _run(name: str, measure: Callable[[Settings], Awaitable[dict[str, Any]]], json: bool) -> None:
    settings = load_settings()

    async def measured() -> dict[str, Any]:
        return await measure(settings)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(measured())
    path = costs_path(settings)
    if costs := write_costs(path, name, result, datetime.now(UTC)):
        say(f"unit costs for `headwater plan` are in {path}: {', '.join(costs)}")
    if json:
        print_json(result)
        return
    for name, value in result.items():
        print(f"{name:32} {value}")
