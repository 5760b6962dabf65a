"""A TCP proxy between two processes, whose faults are switched while it runs.

Each direction has its own: bytes may come late, or not at all while nobody is told that the
connection is dead (a half-open connection, as a firewall or a pulled cable leaves it).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Callable
from typing import Self

from config.daemon import HOST, free_port

__all__ = ["Direction", "Proxy", "ScriptTrap"]

_CHUNK = 65_536
_WAITING = 256
"""Chunks under way in one direction of a connection."""
_NOW = struct.pack("ii", 1, 0)
"""SO_LINGER with which a close is a reset."""


class ScriptTrap:
    """Springs at the n-th call of a Redis script: that call does not reach Redis, or its answer
    does not come back.
    """

    def __init__(self, sha: str, count: int, *, answer: bool = False) -> None:
        """`answer` lets the call through and holds back what Redis says to it."""
        self.sprung = asyncio.Event()
        self.answer = answer
        self._sha = re.compile(sha.encode())
        self._left = count

    def passed(self, before: bytes, chunk: bytes) -> bytes | None:
        """What of `chunk` still goes through, after `before`; None where it springs not in it."""
        text = before + chunk
        for found in self._sha.finditer(text):
            if found.end() <= len(before):
                continue
            self._left -= 1
            if self._left == 0:
                self.sprung.set()
                # A call that is cut in its midst is not made.
                return chunk if self.answer else chunk[: max(0, found.start() - len(before))]
        return None


class Direction:
    """What happens to bytes that go one way."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds."""
        self.flows = asyncio.Event()
        self.flows.set()


class Proxy:
    """Listens on `port` and connects each client to where `target` says at that moment."""

    def __init__(self, target: Callable[[], int]) -> None:
        """`target` gives a port of this machine."""
        self.port = free_port()
        self.up, self.down = Direction(), Direction()
        """To the server, and to the client."""
        self.trap: ScriptTrap | None = None
        self.refuses = False
        """Whether new connections are closed at once."""
        self._target = target
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, self.port, limit=_CHUNK)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.heal()
        self.reset()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def delay(self, seconds: float) -> None:
        """Have bytes come late, both ways."""
        self.up.delay = self.down.delay = seconds

    def hold(self) -> None:
        """Half-open: nothing passes any more, and nobody is told."""
        self.up.flows.clear()
        self.down.flows.clear()

    def reset(self) -> int:
        """Break all connections, as seen from both ends; returns how many."""
        broken = list(self._connections)
        for one in broken:
            one.abort()
        return len(broken)

    def heal(self) -> None:
        """Undo all faults. Connections that were held are broken: what they lost is not known."""
        held = not (self.up.flows.is_set() and self.down.flows.is_set())
        self.delay(0)
        self.refuses = False
        self.trap = None
        if held:
            self.reset()
        self.up.flows.set()
        self.down.flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            _break(writer)
            return
        try:
            opened = await asyncio.open_connection(HOST, self._target(), limit=_CHUNK)
        except OSError:
            _break(writer)
            return
        connection = _Connection((reader, writer), opened)
        self._connections.add(connection)
        try:
            await connection.run(self)
        finally:
            self._connections.discard(connection)


class _Connection:
    """One client and its connection to the server."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._client, self._server = client, server
        self._tasks: list[asyncio.Task[None]] = []

    def abort(self) -> None:
        for task in self._tasks:
            task.cancel()
        for _, writer in (self._client, self._server):
            _break(writer)

    async def run(self, proxy: Proxy) -> None:
        self._tasks = [
            asyncio.create_task(self._pump(self._client[0], self._server[1], proxy, proxy.up)),
            asyncio.create_task(self._pump(self._server[0], self._client[1], proxy, proxy.down)),
        ]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            # What the one end said last may still be on its way.
            await asyncio.wait(self._tasks, timeout=0.2)
        finally:
            self.abort()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pump(  # None in the queue: from here on nothing passes
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        proxy: Proxy,
        direction: Direction,
    ) -> None:
        waiting: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(_WAITING)
        loop = asyncio.get_running_loop()

        async def read() -> None:
            before = b""
            while chunk := await reader.read(_CHUNK):
                trap = proxy.trap if direction is proxy.up else None
                if trap is not None:
                    passed = trap.passed(before, chunk)
                    before = (before + chunk)[-39:]
                    if passed is not None and trap.answer:
                        proxy.down.flows.clear()
                    elif passed is not None:
                        await waiting.put((loop.time(), passed))
                        await waiting.put((loop.time(), None))
                        return
                await waiting.put((loop.time() + direction.delay, chunk))
            await waiting.put((loop.time() + direction.delay, b""))

        async def write() -> None:
            while True:
                due, chunk = await waiting.get()
                if (left := due - loop.time()) > 0:
                    await asyncio.sleep(left)
                await direction.flows.wait()
                if chunk is None:
                    proxy.hold()
                elif chunk:
                    writer.write(chunk)
                    await writer.drain()
                else:
                    return

        reading = asyncio.create_task(read())
        try:
            with contextlib.suppress(OSError):
                await write()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def _break(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        # Gone by itself meanwhile: uvloop then has no socket, and says so by a ValueError.
        with contextlib.suppress(OSError, ValueError):
            own = writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
    writer.transport.abort()
