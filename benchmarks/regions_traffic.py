"""What flows in two regions: events and requests of each one's users, who move to the other region
when theirs does not answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import aiohttp
import msgspec

from commands.regions import OneRegion
from config.errors import StoreError
from streams.event import Event
from streams.producer import EventProducer
from streams.topics import bootstrap_of

__all__ = ["Asked", "Sent", "ask", "make_views", "send"]

_SEED = 23
_LIMIT_SECONDS = 120.0
_REQUEST_SECONDS = 5.0
_LOOK_SECONDS = 0.05


@dataclass(slots=True)
class Sent:
    """What became of one event."""

    event: Event
    at: float
    """When, of time.monotonic."""
    confirmed: set[str] = field(default_factory=set)
    """The regions whose Kafka said that it has it."""
    again: bool = False
    """Whether it was sent again, to the region that is left."""

    @property
    def name(self) -> str:
        """Its `event_id`."""
        return self.event.event_id or ""


@dataclass(slots=True)
class Asked:
    """Requests of one region's users."""

    answered: int = 0
    degraded: int = 0
    moved: int = 0
    """Those that the other region answered, since their own did not."""
    failed: int = 0
    """Those that neither answered."""
    first_moved: float | None = None
    """When the first one of them was answered, of time.monotonic."""


def make_views(name: str, rate: float, seconds: float, items: int, users: int) -> list[Event]:
    """Views of a region's users, each of whom looks at neighbouring items."""
    rng = Random(f"{_SEED} {name}")
    return [
        Event(
            f"{name}-{(user := rng.randrange(users))}",
            f"item-{(user * 7 + rng.randrange(20)) % items}",
            "view",
            0,
            event_id=f"{name}-{number}",
        )
        for number in range(int(rate * seconds))
    ]


async def send(
    own: OneRegion,
    other: OneRegion,
    sent: list[Sent],
    gone: asyncio.Event,
    events: Sequence[Event],
    rate: float,
) -> None:
    """Send to the users' own region, and once that is gone to the other one: first what was not
    confirmed. Returns once everything is.
    """
    topic = own.settings.kafka.events_topic
    begin = time.monotonic()

    def begin_to_send(producer: EventProducer, one: Sent, name: str) -> None:
        def report(error: str | None) -> None:
            if error is None:
                one.confirmed.add(name)

        producer.send(one.event, report)

    producers = {
        one.name: EventProducer(bootstrap_of(one.settings), topic, linger_ms=1)
        for one in (own, other)
    }
    moved = False
    for number, event in enumerate(events):
        await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
        now = time.time_ns() // 1_000_000
        sent.append(Sent(msgspec.structs.replace(event, timestamp=now), time.monotonic()))
        if own is not other and gone.is_set() and not moved:
            moved = True
            for one in sent[:-1]:
                if not one.confirmed:
                    one.again = True
                    begin_to_send(producers[other.name], one, other.name)
        where = other.name if moved else own.name
        begin_to_send(producers[where], sent[-1], where)
    limit = time.monotonic() + _LIMIT_SECONDS
    while not all(one.confirmed for one in sent):
        if time.monotonic() > limit:
            raise StoreError(f"Kafka of {other.name} did not confirm all events: see its log")
        await asyncio.sleep(_LOOK_SECONDS)
    # That of the lost region still has what it could not send, which went to the other one.
    for name, producer in producers.items():
        if not (moved and name == own.name):
            await asyncio.to_thread(producer.close)


async def ask(
    own: OneRegion,
    other: OneRegion,
    asked: Asked,
    rate: float,
    seconds: float,
    users: int,
) -> None:
    """An open loop of requests to the users' own region, each sent to the other one where that
    does not answer.
    """
    timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
    rng = Random(f"{_SEED} {own.name} asks")
    begin = time.monotonic()
    async with aiohttp.ClientSession(timeout=timeout) as http:

        async def get(region: OneRegion, user: int) -> bool:
            path = f"/v1/recommendations/{own.name}-{user}"
            try:
                async with http.get(region.stack.http_url + path) as answer:
                    body = await answer.json()
            except (aiohttp.ClientError, TimeoutError):
                return False
            asked.degraded += bool(answer.status == 200 and body["degraded"])
            return answer.status == 200

        async def ask_one(user: int) -> None:
            if await get(own, user):
                asked.answered += 1
            elif own is not other and await get(other, user):
                asked.moved += 1
                if asked.first_moved is None:
                    asked.first_moved = time.monotonic()
            else:
                asked.failed += 1

        async with asyncio.TaskGroup() as asking:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
                asking.create_task(ask_one(rng.randrange(users)))
