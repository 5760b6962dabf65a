"""What requests share: work of one moment, and what changes slowly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from config.errors import StoreError

__all__ = ["Batched", "Refreshed"]

_STRETCHED = 8
"""Times as many go into a batch, at most, while far more wait."""

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")


class Batched(Generic[K, V]):
    """Does for several requests together what each asks for by itself.

    A few batches are under way at a time, so that one is worked on while another waits for the
    store. What is asked for meanwhile waits and goes together in the next one: the busier the
    server, the more requests share the work, and an idle one adds next to nothing to a request.
    Batches have a size that is good for latency, until far more wait than go into one: then it is
    the store that is slow, and how many share each wait for it decides how many are answered.
    """

    def __init__(
        self, work: Callable[[list[K]], Awaitable[Sequence[V]]], most: int, at_once: int = 1
    ) -> None:
        """`work` takes some questions, not all of them different, and gives an answer to each, in
        order: at most `most`, and eight times as many where far more wait. Where it raises
        StoreError, each is asked by itself.
        """
        self._work = work
        self._most = most
        self._at_once = at_once
        self._waiting: list[tuple[K, asyncio.Future[V]]] = []
        self._under_way = 0
        self.tasks: set[asyncio.Task[None]] = set()
        """What is under way by itself, to be ended before what it reads from is closed."""

    async def get(self, question: K) -> V:
        """The answer. Raises what working it out raises."""
        if not self._under_way:
            return await self._work_alone(question)
        return await self.put(question)

    def put(self, question: K) -> asyncio.Future[V]:
        """The answer, in time, which whoever gives up on it cancels."""
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._under_way < self._at_once:
            self._start()
        return future

    async def _work_alone(self, question: K) -> V:
        """Where nothing is under way, a question need not wait for a task of its own."""
        self._under_way += 1
        try:
            return (await self._work([question]))[0]
        finally:
            self._under_way -= 1
            if self._waiting and self._under_way < self._at_once:
                self._start()

    def _start(self) -> None:
        self._under_way += 1
        # Work of several requests is no one's: it has nothing of the context of who started it.
        task = asyncio.get_running_loop().create_task(self._work_on(), context=Context())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _work_on(self) -> None:
        try:
            while self._waiting:
                count = max(self._most, min(len(self._waiting) // 2, _STRETCHED * self._most))
                some, self._waiting = self._waiting[:count], self._waiting[count:]
                # Whoever gave up needs no answer.
                some = [(question, future) for question, future in some if not future.done()]
                if some:
                    await self._answer(some)
        finally:  # not when the task is done: who asks meanwhile would be waited for by nobody
            self._under_way -= 1

    async def _answer(self, some: list[tuple[K, asyncio.Future[V]]]) -> None:
        try:
            answers = await self._work([question for question, _ in some])
        except Exception as error:  # whoever waits gets it
            if isinstance(error, StoreError) and len(some) > 1:
                # What is wrong with one value that was read must not fail the others.
                for one in some:
                    await self._answer([one])
                return
            for _, future in some:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(some, answers, strict=True):
            if not future.done():
                future.set_result(answer)


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

    @property
    def tasks(self) -> set[asyncio.Task[T]]:
        """What is under way by itself, as of `Batched`."""
        return set() if self._reading is None else {self._reading}

    @property
    def last(self) -> T | None:
        """The value that was read last, however old; None where none was, or it was forgotten."""
        return None if self._kept is None else self._kept[1]

    def forget(self) -> None:
        """Read anew next time."""
        self._kept = None

    async def _refresh(self) -> T:
        began = time.monotonic()
        value = await self._read()
        self._kept = began, value
        return value

    def _done(self, task: asyncio.Task[T]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # who waited has it; who did not asks again
