"""`headwater bench`: how fast it is here, measured on services started for it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import uvloop
from cyclopts import Parameter
from cyclopts.validators import Number

from benchmarks.freshness import measure_freshness
from benchmarks.ingest import measure_ingest
from benchmarks.learning import measure_learning
from benchmarks.memory import measure_memory
from benchmarks.serve import measure_serve
from commands.process import Json, print_json
from config.settings import load_settings

__all__ = ["bench"]

Count = Annotated[int, Parameter(validator=Number(gte=1))]
Rate = Annotated[float, Parameter(validator=Number(gt=0))]


def bench(
    what: Literal["ingest", "serve", "freshness", "memory", "learning"],
    *,
    events: Count = 300_000,
    items: Count = 20_000,
    users: Count = 50_000,
    rate: Rate = 2000,
    rounds: Count = 3,
    seconds: Rate = 8,
    probes: Count = 200,
    workers: Count = 1,
    processes: Count = 1,
    json: Json = False,
) -> None:
    """Measure one thing: ingest (Kafka to committed), serve, freshness, memory, or learning (what
    the learned ranking costs).

    Parameters
    ----------
    events
        Events of the made-up shop that are folded before or while it is measured.
    items
        Items of the shop.
    users
        Users of the shop.
    rate
        Events a second in the background (freshness).
    rounds
        Rounds of which the median counts (ingest, serve, learning).
    seconds
        Length of a round (serve, learning).
    probes
        Events whose way is timed (freshness).
    workers
        Workers (ingest).
    processes
        Server processes (serve).
    """
    settings = load_settings()
    shop = {"items": items, "users": users}

    async def measure() -> dict[str, Any]:
        match what:
            case "ingest":
                return await measure_ingest(
                    settings, events=events, rounds=rounds, workers=workers, **shop
                )
            case "serve":
                return await measure_serve(
                    settings,
                    events=events,
                    rounds=rounds,
                    seconds=seconds,
                    processes=processes,
                    **shop,
                )
            case "freshness":
                return await measure_freshness(settings, rate=rate, probes=probes, **shop)
            case "memory":
                return await measure_memory(settings, events=events, **shop)
            case "learning":
                return await measure_learning(
                    settings, events=events, rounds=rounds, seconds=seconds, **shop
                )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(measure())
    if json:
        print_json(result)
        return
    for name, value in result.items():
        print(f"{name:32} {value}")
