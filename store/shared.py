"""Reads that requests share: keys of one moment in one MGET, slow values by one of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from redis.asyncio import Redis

__all__ = ["Refreshed", "SharedReads"]

T = TypeVar("T")


class SharedReads:
    """Puts the keys that several requests ask for in one turn of the event loop into one MGET."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[tuple[list[bytes], asyncio.Future[list[bytes | None]]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of keys, in order. Raises redis.RedisError."""
        if not keys:
            return []
        future: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append((keys, future))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._start)
        return await future

    def _start(self) -> None:
        waiting, self._waiting = self._waiting, []
        task = asyncio.get_running_loop().create_task(self._read(waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(
        self, waiting: list[tuple[list[bytes], asyncio.Future[list[bytes | None]]]]
    ) -> None:
        place: dict[bytes, int] = {}
        for keys, _ in waiting:
            for key in keys:
                place.setdefault(key, len(place))
        try:
            values: list[bytes | None] = await self._redis.mget(list(place))  # type: ignore[assignment]
        except Exception as error:  # whoever waits gets it
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        for keys, future in waiting:
            if not future.done():
                future.set_result([values[place[key]] for key in keys])


class Refreshed(Generic[T]):
    """A value that is read anew once it is `seconds` old, by one request while others use the old.

    Only when there is none, or it is twice as old, do they wait: nobody gets older ones.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._kept: tuple[float, T] | None = None
        self._reading: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The value. Raises what reading it raises."""
        kept, now = self._kept, time.monotonic()
        if kept is not None and now - kept[0] < self._seconds:
            return kept[1]
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._refresh())
            self._reading.add_done_callback(self._done)
        if kept is not None and now - kept[0] < 2 * self._seconds:
            return kept[1]
        # One waiting request that is given up must not take the others' answer with it.
        return await asyncio.shield(self._reading)

    async def _refresh(self) -> T:
        began = time.monotonic()
        value = await self._read()
        self._kept = began, value
        return value

    def _done(self, task: asyncio.Task[T]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # who waited has it; who did not asks again
