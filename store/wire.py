"""Reads of the hot path: one connection to Redis that any number of reads share at a time.

redis-py takes a connection from its pool for each command and waits on it for the answer, in dozens
of steps of Python. Here a read is a write, a future and an answer that is parsed in C, and reads of
one moment are under way together. To connect, and for everything that is not hot, redis-py stays.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from store.connect import LendingConnection
from store.mget import Mget
from streams.columns import U64

__all__ = ["Values", "Wanted", "Wire"]

Values = list[bytes | None]
"""What stands under some keys, in their order."""
Wanted = tuple[bytes, U64]
"""Keys by their letter and the hashes of items or users."""

_Answer = asyncio.Future[Values]
_ASKING = hiredis.pack_command(("ASKING",))
_MORE = object()
"""Told by the parser where an answer is not complete yet."""


class Wire:
    """Reads through a client's pool, whose end is also that of the connection."""

    def __init__(self, redis: Redis, seconds: float) -> None:
        """`seconds` is the longest wait for an answer."""
        self._pool = redis.connection_pool
        self._seconds = seconds
        self._connection: LendingConnection | None = None
        self._replies: _Replies | None = None
        self._connecting = asyncio.Lock()

    def reads(self, prefixes: Sequence[bytes]) -> Callable[..., Awaitable[Values]]:
        """Reads what is `Wanted` of shards with these prefixes. Raises redis.RedisError."""
        mget = Mget(prefixes)
        return lambda *wanted: self.read(mget.command(*wanted))

    async def mget(self, keys: Sequence[bytes]) -> Values:
        """The values of keys, in order. Raises redis.RedisError."""
        if not keys:
            return []
        return await self.read(hiredis.pack_command(("MGET", *keys)))  # type: ignore[arg-type]

    async def read(self, command: bytes) -> Values:
        """The answer to an MGET as it goes over the wire (`mget.py`). Raises redis.RedisError."""
        replies = self._replies
        if replies is not None and replies.open:
            try:
                return await replies.ask(command)
            except RedisConnectionError:
                pass  # it may have been closed while idle: once more
        return await (await self._connected()).ask(command)

    async def read_imported(self, command: bytes) -> Values:
        """The answer of a node that a slot is being moved to."""
        replies = await self._connected()
        _, answer = await asyncio.gather(replies.ask(_ASKING), replies.ask(command))
        return answer

    async def _connected(self) -> _Replies:
        async with self._connecting:
            if self._replies is None or not self._replies.open:
                if self._connection is None:
                    made = await self._pool.get_connection()  # type: ignore[no-untyped-call]
                    self._connection = cast(LendingConnection, made)
                else:
                    await self._connection.connect()
                self._replies = _Replies(self._connection, self._seconds)
            return self._replies


class _Replies(asyncio.Protocol):
    """Answers come in the order of the commands."""

    def __init__(self, connection: LendingConnection, seconds: float) -> None:
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=connection.error_of, notEnoughData=_MORE
        )
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, _Answer]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._connection = connection
        self._transport = connection.lend(self)
        self.open = True

    def ask(self, command: bytes) -> _Answer:
        """Send a command."""
        answer: _Answer = self._loop.create_future()
        self._waiting.append((self._loop.time() + self._seconds, answer))
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._check)
        try:
            self._transport.write(command)
        except RuntimeError as error:  # uvloop's word for a connection that was reset meanwhile
            self._end(RedisConnectionError(f"the connection is lost already: {error}"))
        return answer

    def data_received(self, data: bytes) -> None:
        """Hand out answers."""
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _MORE:
                if isinstance(reply, hiredis.PushNotification):
                    continue  # nothing was asked
                _, answer = self._waiting.popleft()
                if answer.done():
                    continue  # who asked has given up
                if isinstance(reply, RedisError):
                    answer.set_exception(reply)
                else:
                    answer.set_result(reply)
        except (InvalidResponse, IndexError) as error:
            self._end(RedisConnectionError(f"Redis answered what is no answer: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more comes."""
        said = f"Redis closed the connection: {exc or 'no reason told'}"
        self._end(RedisConnectionError(said), exc)

    def _check(self) -> None:
        """Whether the oldest answer is due: one timer does for all of them."""
        self._timer = None
        if not self._waiting:
            return
        left = self._waiting[0][0] - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._end(RedisTimeoutError(f"Redis does not answer within {self._seconds:g} s"))

    def _end(self, error: RedisError, lost: Exception | None = None) -> None:
        """Answers that are still to come would be taken for others': the connection goes, at once,
        so that the next one is not made of what is left of it.
        """
        if not self.open:
            return
        self.open = False
        self._transport.abort()
        self._connection.take_back(lost)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for _, answer in self._waiting:
            if not answer.done():
                answer.set_exception(error)
        self._waiting.clear()
