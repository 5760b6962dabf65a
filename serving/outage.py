"""Whether the store answers in time, so that one that does not costs each request next to nothing.

The first read that fails marks the store as down; from then on reads are refused at once, and one
probe asks until the store answers again, and so quickly that an answer, which is made of several
reads, is ready in time. A read that had little time, because its request had waited before, says
nothing of the store where it fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import ParamSpec, TypeVar

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from config.errors import StoreError
from config.traces import span

__all__ = ["Outage", "StoreDown"]

log = structlog.get_logger("headwater.http")

_PROBE_SECONDS = 0.2
"""Between two probes."""
_PROBE_SHARE = 0.25
"""Of the longest wait: a probe must be answered within it."""
_LEAST_SHARE = 0.25
"""Of the longest wait: a request with less time left is not worth a read."""
_ENOUGH_SHARE = 0.5
"""Of the longest wait: a read that takes longer and is not done is the store's fault."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoreDown(StoreError):
    """The store does not answer; `cause` is a short fixed word, for metrics."""

    def __init__(self, cause: str) -> None:
        super().__init__("the store does not answer; try again in a second")
        self.cause = cause


class Outage:
    """Guards reads of one process. `ping` raises while the store is down."""

    def __init__(self, ping: Callable[[], Awaitable[None]], seconds: float) -> None:
        """`seconds` is the longest wait for what one request reads."""
        self._ping = ping
        self._seconds = seconds
        self._cause: str | None = None
        self._probe: asyncio.Task[None] | None = None

    async def ask(
        self, read: Callable[_P, Awaitable[_T]], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """`read(*args)`. Raises StoreDown where the store fails, or is known to be down."""
        return await self.ask_since(asyncio.get_running_loop().time(), read, *args, **kwargs)

    async def ask_since(
        self,
        came: float,
        read: Callable[_P, Awaitable[_T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """The same for a request that came at a time of the loop's clock, and has waited since."""
        if self._cause is not None:
            raise StoreDown(self._cause)
        loop = asyncio.get_running_loop()
        began, until = loop.time(), came + self._seconds
        try:
            async with asyncio.timeout_at(until):
                with span("read", "CLIENT", {"db.system.name": "redis"}):
                    return await read(*args, **kwargs)
        except (RedisError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and until - began < _ENOUGH_SHARE * self._seconds:
                raise StoreDown("late") from error
            self._mark(error)
            raise StoreDown(_cause_of(error)) from error

    def is_late(self, came: float) -> bool:
        """Whether a request that came then has waited too long to read for it."""
        left = came + self._seconds - asyncio.get_running_loop().time()
        return left < _LEAST_SHARE * self._seconds

    def close(self) -> None:
        """End the probe."""
        if self._probe is not None:
            self._probe.cancel()

    def _mark(self, error: Exception) -> None:
        if self._cause is None:
            self._cause = _cause_of(error)
            log.warning("the store does not answer", cause=self._cause, error=str(error))
            # It outlives the request that found the store away, and is none of its work.
            self._probe = asyncio.get_running_loop().create_task(
                self._until_back(), context=Context()
            )

    async def _until_back(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_PROBE_SHARE * self._seconds):
                    await self._ping()
            except (RedisError, TimeoutError) as error:
                self._cause = _cause_of(error)
                await asyncio.sleep(_PROBE_SECONDS)
            else:
                break
        self._cause = None
        log.info("the store answers again")


def _cause_of(error: Exception) -> str:
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return "store_timeout"
    return "store_unreachable" if isinstance(error, RedisConnectionError) else "store_error"
