"""Events as a shop's look: Zipf items in groups that are visited together, short sessions,
many users at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson

__all__ = ["Workload", "make_workload", "records", "span_seconds"]

_GROUP = 50
_STAY = 0.8
_MEAN_LENGTH = 5.5
_SECONDS_BETWEEN_CLICKS = 20
_CONCURRENT = 2000
_TICK_MS = _SECONDS_BETWEEN_CLICKS * 1000 // _CONCURRENT


@dataclass(frozen=True, slots=True)
class Workload:
    """n events in the order in which they are sent."""

    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    """Milliseconds since 1970."""


def make_workload(
    events: int,
    items: int,
    users: int,
    seed: int,
    *,
    session_length: int | None = None,
    skew: float = 1.0,
    age_seconds: int = 0,
    first_user: int = 0,
) -> Workload:
    """Sessions of geometric length, 5.5 on average, `_CONCURRENT` of them open at a time; or all of
    `session_length`, and every user with equally many where the numbers allow.

    An item is drawn by a Zipf law with exponent `skew`; the next one of the session is, four times
    in five, of the same group of items, so that there is something to learn. The last event is
    `age_seconds` old. Users' numbers begin with `first_user`.
    """
    rng = np.random.default_rng(seed)
    weight = 1.0 / np.arange(1, items + 1) ** skew
    cumulated = np.cumsum(weight / weight.sum())

    def draw(count: int) -> npt.NDArray[np.int64]:
        ranks = np.searchsorted(cumulated, rng.random(count))
        return np.minimum(ranks, items - 1).astype(np.int64)

    if session_length is None:
        lengths = rng.geometric(1 / _MEAN_LENGTH, events)
    else:
        lengths = np.full(events // session_length + 1, session_length)
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), events)) + 1]
    session = np.repeat(np.arange(len(lengths)), lengths)[:events]
    step = np.arange(events) - np.concatenate([[0], np.cumsum(lengths)])[session]
    anchor = draw(len(lengths))[session]
    near = anchor // _GROUP * _GROUP + np.minimum(rng.zipf(1.5, events) - 1, _GROUP - 1)
    item = np.where(rng.random(events) < _STAY, np.minimum(near, items - 1), draw(events))
    item = np.where(step == 0, anchor, item)
    # Sessions begin one after the other and overlap: each click waits its turn among the open ones.
    turn = (session + step * rng.integers(_CONCURRENT // 2, _CONCURRENT, events)).argsort(
        kind="stable"
    )
    used = int(session[-1]) + 1
    user = first_user + rng.permutation(max(users, used))[:used] % users
    ticks = np.arange(events) * _TICK_MS
    last = int((time.time() - age_seconds) * 1000)
    return Workload(user[session][turn], item[turn], last - int(ticks[-1]) + ticks)


def span_seconds(events: int) -> int:
    """How long a workload of so many events is, by their timestamps; rounded up."""
    return -(-events * _TICK_MS // 1000)


def records(load: Workload, first_id: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each event as they go to Kafka."""
    for number, (user, item, at) in enumerate(
        zip(load.user.tolist(), load.item.tolist(), load.time.tolist(), strict=True), first_id
    ):
        name = f"user-{user}"
        yield (
            name.encode(),
            orjson.dumps(
                {
                    "user_id": name,
                    "item_id": f"item-{item}",
                    "type": "view",
                    "timestamp": at,
                    "event_id": f"{number:x}",
                }
            ),
        )
