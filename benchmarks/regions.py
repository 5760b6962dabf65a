"""A region is lost while events and requests flow in both, and comes back: what the other one knew
of its users at that moment, how they were served, and whether both agree in the end.

Users belong to a region and move over when it is gone. Whoever sends an event that is not confirmed
sends it again, to the region that is left; its `event_id` keeps it from counting twice.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.counted import counted, until_counted
from benchmarks.regions_logs import agreement, copy_times, read_log
from benchmarks.regions_traffic import Asked, Sent, ask, make_views, send
from benchmarks.report import machine
from commands.regions import OneRegion, two_regions
from config.errors import StoreError
from config.settings import Settings
from streams.event import Event
from streams.producer import EventProducer
from streams.topics import bootstrap_of

__all__ = ["lose_a_region", "measure_regions"]

_LIMIT_SECONDS = 120.0
_SETTLED_SECONDS = 1.0
"""Before the loss: what is written then may be copied only when the region is back."""
_WARM_SHARE = 0.25
"""Of the time: until then mirrors' machine code is compiled."""
_LOST_AFTER = 0.5
"""Of the time: first both are there, then one."""


async def measure_regions(
    settings: Settings, *, rate: float, requests: float, items: int, users: int, seconds: float
) -> dict[str, Any]:
    """Two regions with a worker and a server each, of which one is lost; see `lose_a_region`."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        async with two_regions(settings, Path(folder)) as both:
            told = await lose_a_region(
                both, rate=rate, requests=requests, items=items, users=users, seconds=seconds
            )
    return {
        **told,
        "rate": rate,
        "requests": requests,
        "items": items,
        "users": users,
        "seconds": seconds,
        "machine": machine(),
    }


async def lose_a_region(
    both: Sequence[OneRegion],
    *,
    rate: float,
    requests: float,
    items: int,
    users: int,
    seconds: float,
) -> dict[str, Any]:
    """`rate` events and `requests` requests a second in each region for `seconds`, with `users`
    users each; after half of it the second region is lost, and after all of it comes back.

    Raises StoreError where a region has not counted all that was sent within two minutes.
    """
    kept, lost = both
    names = [kept.name, lost.name]
    await _until_mirrored(both)
    begin, began = time.monotonic(), 1000 * time.time()
    sent: dict[str, list[Sent]] = {name: [] for name in names}
    asked = {name: Asked() for name in names}
    gone = asyncio.Event()
    views = {name: make_views(name, rate, seconds, items, users) for name in names}
    flowing = asyncio.gather(
        *(send(one, kept, sent[one.name], gone, views[one.name], rate) for one in both),
        *(ask(one, kept, asked[one.name], requests, seconds, users) for one in both),
    )
    try:
        await asyncio.sleep(_LOST_AFTER * seconds)
        killed = time.monotonic()
        warm = began + 1000 * _WARM_SHARE * seconds
        ran = warm, 1000 * (time.time() - _SETTLED_SECONDS)
        confirmed = [one for one in sent[lost.name] if lost.name in one.confirmed]
        await lost.lose()
        gone.set()
        here = await asyncio.to_thread(read_log, kept.settings)
        await flowing
    finally:
        flowing.cancel()
    behind = [one for one in confirmed if one.name not in here]
    back = time.monotonic()
    await lost.come_back()
    answers = time.monotonic()
    ids = {*names} | {one.name for name in names for one in sent[name]}
    await asyncio.gather(*(_until_known(one, ids) for one in both))
    agreed = time.monotonic()
    known = {one.name: await counted(one.settings) for one in both}
    first = asked[lost.name].first_moved
    logs = [await asyncio.to_thread(read_log, one.settings) for one in both]
    return {
        "events": len(ids),
        "lost": max(0, len(ids) - min(known.values())),
        "doubled": max(0, max(known.values()) - len(ids)),
        "mirror_ms": copy_times(logs, ran),
        "confirmed_when_lost": len(confirmed),
        "not_mirrored_when_lost": len(behind),
        "sent_again": sum(one.again for one in sent[lost.name]),
        "rpo_seconds": round(max((killed - one.at for one in behind), default=0.0), 3),
        "rto_seconds": None if first is None else round(first - killed, 3),
        "asked": {
            name: {
                "answered": one.answered,
                "degraded": one.degraded,
                "moved": one.moved,
                "failed": one.failed,
            }
            for name, one in asked.items()
        },
        "back_seconds": round(answers - back, 1),
        "agreed_seconds": round(agreed - answers, 1),
        "ran_seconds": round(agreed - begin, 1),
        "agreement": await agreement(kept.settings, lost.settings),
    }


async def _until_mirrored(both: Sequence[OneRegion]) -> None:
    """Mirrors take a while from their start to the first record."""
    for one in both:
        with EventProducer(bootstrap_of(one.settings), one.settings.kafka.events_topic) as producer:
            now = time.time_ns() // 1_000_000
            producer.send(Event(f"first-{one.name}", "first", "view", now, event_id=one.name))
    ids = {one.name for one in both}
    await asyncio.gather(*(_until_known(one, ids) for one in both))


async def _until_known(region: OneRegion, ids: set[str]) -> None:
    """Wait until a region has counted as many events."""
    try:
        await until_counted(region.settings, len(ids), _LIMIT_SECONDS)
    except StoreError as error:
        missing = ids - set(await asyncio.to_thread(read_log, region.settings))
        raise StoreError(
            f"{region.name}: {error}, and that of its mirror: its log lacks {len(missing)} of them"
        ) from None
