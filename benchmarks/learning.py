"""What the learned ranking costs: at a request, and while counting. Both with it and without, in
alternating rounds of one run, so that whatever else the machine does meets both alike.

Requests are `Recommender.rank` in this process on a Redis that a worker has filled, one after the
other, over the same sessions. The learned ranking is put in the lead, and taken out of it, by the
value in Redis that workers write, here an untaught model: what it computes takes the same time. The
first pass of a new reader reads and parses every list that it meets (cold); the passes after it
find what `http.list_cache_ms` lets them (warm).

Counting is what `ingest.py` does alone on a core, with `learn.share` at 0, and as the settings
have it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import structlog
from redis.asyncio import Redis

from benchmarks.counted import until_counted
from benchmarks.ingest import count_log, filled_log
from benchmarks.lead import let_lead
from benchmarks.report import machine, spread
from benchmarks.setup import measuring_stack, produce
from benchmarks.workload import Workload, make_workload, records
from config.settings import Settings
from serving.candidates import SessionItems, session_items
from serving.recommend import Recommender
from store.connect import connect
from store.reader import StoreReader
from streams.columns import hash_id

__all__ = ["measure_learning"]

log = structlog.get_logger("headwater.bench")

_LIMIT_SECONDS = 600
_SEED = 19
_SESSIONS = 1000
_SHOWN = 20


async def measure_learning(
    settings: Settings, *, events: int, items: int, users: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Requests for `seconds` in each round, then `rounds` of ingest without and with learning."""
    counting = settings.model_copy(
        update={"learn": settings.learn.model_copy(update={"share": 0.0})}
    )
    asked = await _requests(counting, events, items, users, rounds, seconds)
    rates = await _counting(
        {"counting": counting, "learning": settings}, events, items, users, rounds
    )
    told = {name: spread(values, 1) for name, values in asked.items()}
    ingest = {name: spread(values) for name, values in rates.items()}
    rule, learned = told["rule"]["median"], told["learned"]["median"]
    without, with_it = ingest["counting"]["median"], ingest["learning"]["median"]
    return {
        "rule_microseconds": rule,
        "learned_microseconds": learned,
        "query_ratio": round(learned / rule, 2),
        "rule_cold_microseconds": told["rule_cold"]["median"],
        "learned_cold_microseconds": told["learned_cold"]["median"],
        "events_per_second_counting": without,
        "events_per_second_learning": with_it,
        "ingest_ratio": round(with_it / without, 3),
        "spread": {"microseconds": told, "events_per_second": ingest},
        "rounds": rounds,
        "events": events,
        "items": items,
        "users": users,
        "machine": machine(),
    }


async def _counting(
    chosen: dict[str, Settings], events: int, items: int, users: int, rounds: int
) -> dict[str, list[float]]:
    """Events a second of workers with each of these settings, one number a round."""
    rates: dict[str, list[float]] = {name: [] for name in chosen}
    async with measuring_stack(next(iter(chosen.values()))) as stack:
        await filled_log(stack.settings, events=events, items=items, users=users)
        for number in range(rounds):
            for name, settings in chosen.items():
                stack.settings = stack.settings.model_copy(update={"learn": settings.learn})
                found = await count_log(stack, events, 1, pinned=True)
                rates[name].append(found.rate)
                log.info("round", number=number + 1, of=name, events_per_second=round(found.rate))
    return rates


async def _requests(
    settings: Settings, events: int, items: int, users: int, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Microseconds a query of the rule and of the learned ranking, one number a round."""
    load = make_workload(events, items, users, _SEED)
    sessions = _latest_sessions(load, settings.rank.session_items)
    found: dict[str, list[float]] = {
        name: [] for name in ("rule", "learned", "rule_cold", "learned_cold")
    }
    async with measuring_stack(settings, workers=1, processes=0) as stack:
        await asyncio.to_thread(produce, stack.settings, records(load))
        await until_counted(stack.settings, events, _LIMIT_SECONDS)
        await stack.stop_workers()
        redis = connect(stack.settings)
        try:
            for number in range(rounds):
                for name in ("rule", "learned"):
                    await let_lead(stack.settings, learned=name == "learned")
                    cold, warm = await _ask(redis, stack.settings, sessions, seconds)
                    found[f"{name}_cold"].append(cold)
                    found[name].append(warm)
                    log.info("round", number=number + 1, of=name, microseconds=round(warm, 1))
        finally:
            await redis.aclose()
    return found


async def _ask(
    redis: Redis, settings: Settings, sessions: list[SessionItems], seconds: float
) -> tuple[float, float]:
    """Microseconds a query: of the first pass over the sessions, and of those after it."""
    recommender = Recommender(StoreReader(redis, settings), settings)
    begin = time.perf_counter()
    for session in sessions:
        await recommender.rank(session, _SHOWN)
    cold = time.perf_counter() - begin
    asked, begin = 0, time.perf_counter()
    while (passed := time.perf_counter() - begin) < seconds or not asked:
        for session in sessions:
            await recommender.rank(session, _SHOWN)
        asked += len(sessions)
    return 1e6 * cold / len(sessions), 1e6 * passed / asked


def _latest_sessions(load: Workload, most: int) -> list[SessionItems]:
    """The last events of users, who are drawn as often as they have events."""
    order = np.argsort(load.user, kind="stable")
    begin = np.searchsorted(load.user[order], np.arange(load.user.max() + 2))
    drawn = np.random.default_rng(_SEED).choice(load.user, _SESSIONS).tolist()
    found = []
    for user in drawn:
        numbers = load.item[order[begin[user] : begin[user + 1]]].tolist()
        items = np.array([hash_id(f"item-{number}") for number in numbers], np.uint64)
        found.append(session_items(items, len(items), most))
    return found
