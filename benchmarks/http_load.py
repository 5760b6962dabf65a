"""HTTP requests as a load: keep-alive connections on bare asyncio, so that the client costs little.

`closed_loop` keeps every connection busy and finds the capacity. `open_loop` sends at a rate
whether or not answers have come, and counts a request's time from when it was due: a server that
stalls cannot hide it by not being asked.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from config.errors import ServiceError

__all__ = ["Load", "closed_loop", "get_request", "open_loop"]

_CONNECT_SECONDS = 5.0


@dataclass(slots=True)
class Load:
    """What came back."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds of each answered request."""
    errors: int = 0
    """Answers other than 200."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the latencies in milliseconds."""
        return round(float(np.percentile(self.latencies, percent)) * 1000, 3)


def get_request(path: str) -> bytes:
    """The bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


class _Connection(asyncio.Protocol):
    """Answers come back in the order of the requests; each ends where its length says."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._due: deque[float] = deque()
        self._transport: asyncio.Transport | None = None
        self.idle = asyncio.Event()
        self.idle.set()
        self.lost = False

    @property
    def waiting(self) -> int:
        return len(self._due)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None  # noqa: S101 - connected before it is handed out
        self._due.append(due)
        self.idle.clear()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head := self._buffer.find(b"\r\n\r\n")) >= 0:
            headers = self._buffer[:head].lower()
            at = headers.find(b"content-length:")
            size = int(headers[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < head + 4 + size:
                return
            self._load.latencies.append(time.perf_counter() - self._due.popleft())
            self._load.errors += not headers.startswith(b"http/1.1 200")
            self._buffer = self._buffer[head + 4 + size :]
        if not self._due:
            self.idle.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.idle.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def _connect(host: str, port: int, count: int, load: Load) -> list[_Connection]:
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(count):
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, protocol = await loop.create_connection(lambda: _Connection(load), host, port)
        connections.append(protocol)
    return connections


async def closed_loop(
    host: str, port: int, requests: Sequence[bytes], connections: int, seconds: float
) -> Load:
    """Each connection asks again as soon as it is answered. Raises ServiceError on a lost one."""
    load = Load()
    clients = await _connect(host, port, connections, load)
    begin = time.perf_counter()

    async def ask(client: _Connection, offset: int) -> None:
        number = offset
        while time.perf_counter() - begin < seconds:
            client.send(requests[number % len(requests)], time.perf_counter())
            await client.idle.wait()
            if client.lost:
                raise ServiceError("the server closed a connection under load: see its log")
            number += connections

    try:
        await asyncio.gather(*(ask(client, i) for i, client in enumerate(clients)))
    finally:
        load.seconds = time.perf_counter() - begin
        for client in clients:
            client.close()
    return load


async def open_loop(
    host: str, port: int, requests: Sequence[bytes], connections: int, rate: float, seconds: float
) -> Load:
    """Send `rate` requests a second, spread over connections. Raises ServiceError on a lost one."""
    load = Load()
    clients = await _connect(host, port, connections, load)
    begin = time.perf_counter()
    sent = 0
    try:
        while (now := time.perf_counter() - begin) < seconds:
            while sent < now * rate:
                client = clients[sent % connections]
                if client.lost:
                    raise ServiceError("the server closed a connection under load: see its log")
                client.send(requests[sent % len(requests)], begin + sent / rate)
                sent += 1
            await asyncio.sleep(0.001)
        for client in clients:
            await client.idle.wait()
    finally:
        load.seconds = time.perf_counter() - begin
        for client in clients:
            client.close()
    return load
