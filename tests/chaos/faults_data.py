"""Events as they should not be: of wrong clocks, poison, repeated, too much of one thing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import msgspec

from streams.event import Event
from streams.producer import RecordProducer
from tests.chaos.checking import POISON
from tests.chaos.run import Fault, Run
from tests.chaos.traffic import MINUTE, make_events
from tests.test_poison import BAD

__all__ = ["FAULTS"]

_DAY = 24 * 60 * MINUTE


async def _flow(run: Run) -> None:
    """The events themselves are the fault; one worker is killed in their midst."""
    await asyncio.sleep(4)
    run.injected(run.sender.sent)
    run.rng.choice(run.workers).kill()
    run.deployment.stopped += 1
    await asyncio.sleep(4)


async def _poison(run: Run) -> None:
    """Every kind of bad record, in random order between the good ones."""
    topic = run.deployment.settings.kafka.events_topic
    producer = RecordProducer(run.world.bootstrap)
    try:
        for _ in range(4):
            kinds = [sent for sent, _ in BAD.values()]
            run.rng.shuffle(kinds)
            for key, value in kinds:
                producer.publish(topic, key, value, [(POISON, "")])
                run.injected()
                await asyncio.sleep(0.03)
            run.rng.choice(run.workers).kill()
            run.deployment.stopped += 1
    finally:
        await asyncio.to_thread(producer.close)


def _changed(event: Event, **values: object) -> Event:
    return msgspec.structs.replace(event, **values)


def _wrong_clocks(rng: Random, count: int, now: int) -> list[Event]:
    """A day behind, a day ahead (which is refused), jumping between them, and a little ahead."""
    wrong = [-_DAY, _DAY, 0, 4 * MINUTE]
    return [
        _changed(
            event,
            timestamp=now + wrong[hash_of(event.user_id) % 4]
            if hash_of(event.user_id) % 5
            else now + rng.choice(wrong),
        )
        for event in make_events(rng, count, now)
    ]


def hash_of(user: str) -> int:
    """A number that is the same in every run."""
    return int(user.rsplit("-", 1)[1])


def _repeated(rng: Random, count: int, now: int) -> list[Event]:
    """Each event three times, the copies among the next hundred."""

    def copies() -> Iterator[tuple[int, Event]]:
        for place, event in enumerate(make_events(rng, count // 3, now)):
            for _ in range(3):
                yield place + rng.randrange(100), event

    return [event for _, event in sorted(copies(), key=lambda one: one[0])]


def _disordered(rng: Random, count: int, now: int) -> list[Event]:
    """Events come up to two hundred places too late."""
    events = make_events(rng, count, now)
    return [
        event
        for _, event in sorted(
            ((place + rng.randrange(200), event) for place, event in enumerate(events)),
            key=lambda one: one[0],
        )
    ]


def _endless_sessions(rng: Random, count: int, now: int) -> list[Event]:
    """Eight users who never pause: sessions of hundreds of events."""
    return [
        _changed(
            event,
            user_id=f"user-{number % 8}",
            session_id=None,
            timestamp=now - (count - number) * 2,
        )
        for number, event in enumerate(make_events(rng, count, now))
    ]


def _one_user(rng: Random, count: int, now: int) -> list[Event]:
    """Every tenth event is of the same user."""
    return [
        _changed(event, user_id="user-0", timestamp=now - (count - number))
        if number % 10 == 0
        else event
        for number, event in enumerate(make_events(rng, count, now))
    ]


def _one_item(rng: Random, count: int, now: int) -> list[Event]:
    """Every second event is of the same item: it is in every session."""
    return [
        _changed(event, item_id="item-0") if number % 2 else event
        for number, event in enumerate(make_events(rng, count, now))
    ]


FAULTS = [
    Fault(
        "data-clocks",
        "producers' clocks a day behind, a day ahead, jumping; a worker killed",
        _flow,
        make_events=_wrong_clocks,
    ),
    Fault("data-poison", "every kind of bad record between good ones; workers killed", _poison),
    Fault(
        "data-repeats",
        "every event sent three times; a worker killed",
        _flow,
        make_events=_repeated,
    ),
    Fault(
        "data-disorder",
        "events up to 200 places too late; a worker killed",
        _flow,
        make_events=_disordered,
    ),
    Fault(
        "data-endless-sessions",
        "eight users who never pause; a worker killed",
        _flow,
        make_events=_endless_sessions,
    ),
    Fault(
        "data-one-user",
        "every tenth event is one user's; a worker killed",
        _flow,
        make_events=_one_user,
    ),
    Fault(
        "data-one-item",
        "one item is in every session; a worker killed",
        _flow,
        make_events=_one_item,
    ),
]
"""In the order of the table."""
