"""One event, and how long until an answer knows it.

Each probe has two items of its own that were once viewed together. A new user views the first; the
event is visible when that user's recommendations hold the second, which nobody else would be shown.
Its time counts from when it was due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from benchmarks.counted import until_counted
from benchmarks.fill import fill_store
from benchmarks.helper import Helper
from benchmarks.ingest import sender_setup
from benchmarks.serve import load_on
from benchmarks.setup import measuring_stack, produce
from benchmarks.workload import make_workload, span_seconds
from commands.stack import Stack
from config.errors import ServiceError
from config.settings import Settings

__all__ = ["FILLED", "probe", "probed_shop"]

FILLED = 300_000
"""Events of the past, which no log holds."""
_LIMIT_SECONDS = 120
_PAUSE_SECONDS = 7200
_PROBE_SECONDS = 10.0
_POLL_SECONDS = 0.003
_POLL_SHARE = 0.02
"""Of the time that was waited: whoever waits for long asks more rarely."""
_AGAIN_SECONDS = 0.2
_JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def probed_shop(
    settings: Settings, *, sent: int, items: int, users: int, probes: int, seed: int
) -> AsyncIterator[tuple[Stack, Helper, Helper, int]]:
    """A stack with a past, a worker, a server, and so many probes prepared; a sender that has
    `sent` events, a load that asks for recommendations, and how many events are counted so far.
    """
    # The past ends long before the events begin that are sent: else late ones would be the rule,
    # and sessions of the past would go on.
    age = span_seconds(sent) + _PAUSE_SECONDS
    filled = make_workload(FILLED, items, users, seed, age_seconds=age)
    async with measuring_stack(settings, workers=1) as stack:
        await fill_store(stack.settings, filled)
        taught = [record for number in range(probes) for record in _teach(number)]
        counted = FILLED + len(taught)
        await asyncio.to_thread(produce, stack.settings, taught)
        await until_counted(stack.settings, counted, _LIMIT_SECONDS)
        await stack.start_server(1)
        shop = {"events": sent, "items": items, "users": users, "seed": seed + 1}
        setup = sender_setup(stack.settings, first_id=1 << 40, **shop)
        async with Helper("benchmarks.sender", setup) as sender, load_on(stack, filled) as asking:
            yield stack, sender, asking, counted


def _teach(probe: int) -> list[tuple[bytes, bytes]]:
    """The records of a user who viewed both items of the probe."""
    now = int(time.time() * 1000)
    pair = [f"probe-{probe}-first", f"probe-{probe}-second"]
    name = f"teacher-{probe}"
    return [
        (name.encode(), _event(name, item, now - 60_000 + step).encode())
        for step, item in enumerate(pair)
    ]


def _event(user: str, item: str, timestamp: int) -> str:
    return f'{{"user_id":"{user}","item_id":"{item}","type":"view","timestamp":{timestamp}}}'


async def probe(
    session: aiohttp.ClientSession,
    probe: int,
    due: float,
    seconds: float = _PROBE_SECONDS,
    *,
    patient: bool = False,
) -> float:
    """Seconds from `due`, of time.perf_counter, when the event was to be sent, to the answer that
    knows it.

    Whoever is patient asks again where the server has too much to do. Raises ServiceError when it
    is not visible after `seconds`, and when the event is refused.
    """
    await asyncio.sleep(due - time.perf_counter())
    user, wanted = f"prober-{probe}", f"probe-{probe}-second".encode()
    while True:
        event = _event(user, f"probe-{probe}-first", int(time.time() * 1000))
        async with session.post("/v1/events", data=event, headers=_JSON) as answer:
            if answer.status == 202:
                break
            if not patient or answer.status != 503:
                raise ServiceError(
                    f"POST /v1/events answered {answer.status}: {await answer.text()}"
                )
        await asyncio.sleep(_AGAIN_SECONDS)
    while (waited := time.perf_counter() - due) < seconds:
        async with session.get(f"/v1/recommendations/{user}?n=10") as answer:
            body = await answer.read()
        if wanted in body:
            return time.perf_counter() - due
        # Asking without a pause would measure how busy the asking keeps the machine.
        await asyncio.sleep(max(_POLL_SECONDS, _POLL_SHARE * waited))
    raise ServiceError(f"an event is not visible after {waited:.0f} s: see the logs")
