"""Generations: several views of the one log side by side, of which one is live.

Answers come from the live one, and workers keep it up to date. `headwater replay` builds another
from the log, with a group of workers of its own, until it is made the live one; the one before
stays as it is, to go back to, until it is dropped.

One hash holds all that is known of them: the field `live` is the live one's number, `last` the
highest number that was given, and the field of each number a record in JSON.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from redis.asyncio import Redis

from config.errors import StoreError
from config.overlay import Overlay, overlaid, recorded
from config.settings import Settings
from store.keys import FIRST_GENERATION, Keys
from store.scripts import Call, Scripts

__all__ = ["Generation", "Generations", "begin_at", "first_generation"]

State = Literal["loading", "building", "ready", "dropping"]
_LIVE, _LAST = b"live", b"last"


class Generation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one."""

    number: int
    state: State
    """`loading` from a snapshot, `building` from the log, `ready`: it was live, or may be,
    `dropping`: its keys are being deleted."""
    created: int
    """Milliseconds since 1970."""
    origin: str
    """Where in the log it began, as it was asked for."""
    settings: Overlay = {}
    """What it is counted with."""
    starts: dict[str, list[int]] = {}
    """Offsets, by topic and partition, from which it was counted; from 0 where none are given."""

    def overlaid(self, settings: Settings) -> Settings:
        """Settings to work on it with. Raises SettingsError."""
        return overlaid(settings, self.settings)


def first_generation(settings: Settings) -> Generation:
    """The one that begins where nothing is."""
    return Generation(
        FIRST_GENERATION, "ready", time.time_ns() // 1_000_000, "earliest", recorded(settings)
    )


class Generations:
    """Reads and changes what is known of them. Raises redis.RedisError as redis-py does."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self.key = f"{settings.store.namespace}{{c}}".encode()
        self._scripts = Scripts(redis)
        self._encoder = msgspec.json.Encoder(order="deterministic")
        self._decoder = msgspec.json.Decoder(Generation)

    async def read(self) -> tuple[list[Generation], Generation | None]:
        """All of them, by their numbers, and the live one."""
        fields: dict[bytes, bytes] = await self._redis.hgetall(self.key)  # type: ignore[assignment]
        live = fields.get(_LIVE)
        records = [fields[name] for name in fields if name not in (_LIVE, _LAST)]
        found = sorted((self._decode(one) for one in records), key=lambda one: one.number)
        return found, next((one for one in found if live == b"%d" % one.number), None)

    async def live(self) -> Generation | None:
        """The one that answers come from; None where nothing is yet."""
        _, live = await self.read()
        return live

    async def live_or_first(self, settings: Settings) -> Generation:
        """The one that answers come from, or will."""
        return await self.live() or first_generation(settings)

    async def all(self) -> list[Generation]:
        """Those that there are, by their numbers."""
        found, _ = await self.read()
        return found

    async def get(self, number: int) -> Generation:
        """One of them. Raises StoreError where it is not there."""
        found = await self.all()
        for one in found:
            if one.number == number:
                return one
        known = ", ".join(str(one.number) for one in found) or "none yet"
        raise StoreError(f"there is no generation {number}: there are {known}")

    async def ensure_live(self, offered: Generation) -> tuple[Generation, bool]:
        """The live one, which is `offered` where there was none; and whether that was so."""
        return (await self.ensure_all_live([(self, offered)]))[0]

    async def ensure_all_live(
        self, offered: Sequence[tuple[Generations, Generation]]
    ) -> list[tuple[Generation, bool]]:
        """The same for several tenants, asked for together."""
        calls: list[Call] = [
            ("ensure_live", [each.key], [one.number, self._encoder.encode(one)])
            for each, one in offered
        ]
        replies = await self._scripts.call(calls)
        return [(self._decode(live), made == 1) for made, live in replies]

    async def create(
        self,
        origin: str,
        settings: Overlay,
        starts: Mapping[str, Sequence[int]],
        state: State = "building",
    ) -> Generation:
        """A new one, with the next number."""
        number = await self._redis.hincrby(self.key, _LAST.decode(), 1)
        begun = {topic: list(offsets) for topic, offsets in starts.items()}
        made = Generation(number, state, time.time_ns() // 1_000_000, origin, settings, begun)
        await self._redis.hset(self.key, str(number), self._encoder.encode(made))
        return made

    async def activate(self, one: Generation) -> Generation:
        """Make it the live one, in one step. Raises StoreError where it has changed meanwhile."""
        return await self._move(one, "ready", live=True)

    async def mark(self, one: Generation, state: State) -> Generation:
        """Change the state of one that is not live. Raises StoreError where that is not so."""
        return await self._move(one, state, live=False)

    async def remove(self, one: Generation) -> None:
        """Forget one that is not live, once its keys are gone."""
        await self._move(one, None, live=False)

    async def _move(self, one: Generation, state: State | None, *, live: bool) -> Generation:
        after = msgspec.structs.replace(one, state=state or one.state)
        known, record = self._encoder.encode(one), self._encoder.encode(after)
        arguments: list[bytes | str | int] = [
            one.number,
            known,
            record if state else b"",
            int(live),
        ]
        done = await self._scripts.call([("move_generation", [self.key], arguments)])
        if done != [1]:
            raise StoreError(
                f"generation {one.number} is not what it was a moment ago, or it is the live one: "
                "look at `headwater generations list` and try again"
            )
        return after

    def _decode(self, record: Any) -> Generation:
        try:
            return self._decoder.decode(record)
        except (msgspec.DecodeError, TypeError) as error:
            raise StoreError(
                f"what stands under {self.key.decode()} in Redis is no generation ({error}): does "
                "something else write to this namespace (setting store.namespace)?"
            ) from None


async def begin_at(
    redis: Redis, settings: Settings, one: Generation, like: Generation | None = None
) -> None:
    """Have the shards of a generation take the log up from its starts, and learn on from what
    another one (`like`) has learned, unless they have begun.

    Raises redis.RedisError.
    """
    keys = Keys(one.overlaid(settings).store, one.number)
    if like is not None:
        learned: bytes | None = await redis.get(  # type: ignore[assignment]
            Keys(like.overlaid(settings).store, like.number).taught
        )
        if learned is not None:
            await redis.set(keys.taught, learned, nx=True)
    pipeline = redis.pipeline(transaction=False)
    for topic, offsets in one.starts.items():
        # Users and totals know of events alone.
        prefixes = keys.prefixes if topic == settings.kafka.events_topic else keys.items
        for partition, offset in enumerate(offsets):
            for prefix in prefixes if offset else []:
                pipeline.set(keys.mark(prefix, topic, partition), offset - 1, nx=True)
    await pipeline.execute()
