"""Events that are sent in the background, many at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from client.answers import EventsAnswer, RejectedEvent
from client.errors import BufferFull, HeadwaterClientError
from client.requests import Event

__all__ = ["EventBuffer", "OnRejected"]

log = logging.getLogger("headwater.client")

OnRejected = Callable[[Event, RejectedEvent], None]


class EventBuffer:
    """Holds events until the server has them, in their order and never more than `most`."""

    def __init__(
        self,
        send: Callable[[Sequence[Event]], Awaitable[EventsAnswer]],
        *,
        most: int,
        batch: int,
        pause: float,
        on_rejected: OnRejected | None,
    ) -> None:
        """Sends when `batch` events wait, or `pause` seconds after the first of them."""
        self._send = send
        self._most, self._batch, self._pause = most, batch, pause
        self._on_rejected = on_rejected or _tell
        self._events: deque[Event] = deque()
        self._gone = 0
        self._sending = asyncio.Lock()
        self._some, self._enough = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: Event) -> None:
        """Put one in. Raises BufferFull, and then it is not."""
        if len(self._events) >= self._most:
            raise BufferFull(f"{self._most} events wait already; is the server there?")
        self._events.append(event)
        self._some.set()
        if len(self._events) >= self._batch:
            self._enough.set()

    async def flush(self) -> None:
        """Return once the server has all that was put in before.

        Raises HeadwaterClientError where it does not take them; they stay, and are tried again.
        """
        target = self._gone + len(self._events)
        async with self._sending:
            while self._gone < target:
                some = list(islice(self._events, self._batch))
                answer = await self._send(some)
                for _ in some:
                    self._events.popleft()
                self._gone += len(some)
                for rejected in answer.rejected:
                    self._on_rejected(some[rejected.index], rejected)

    async def close(self) -> None:
        """Send what waits, then end. Raises HeadwaterClientError where some is left."""
        self._task.cancel()
        await asyncio.wait({self._task})
        await self.flush()

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause):
                    await self._enough.wait()
            self._some.clear()
            self._enough.clear()
            try:
                await self.flush()
            except HeadwaterClientError as error:
                log.warning("%d events wait: %s", len(self._events), error)
                self._some.set()
            except Exception:  # of who was told of a rejected event
                log.exception("on_rejected failed")


def _tell(event: Event, rejected: RejectedEvent) -> None:
    log.warning("an event was rejected: %s: %s: %r", rejected.field, rejected.message, event)
