"""Load on an HTTP server, at the cost of little more than its system calls: kept connections, one
request at a time on each, requests made beforehand, answers looked at no further than they must.

`closed_loop` finds out how much a server can do: every connection asks again once it is answered.
`open_loop` says how long users wait at a given rate: requests are due whether or not earlier ones
are answered, and what counts is the time from when a request was due. One that finds no connection
free waits here, and that counts too.

As a process of its own: `python -m benchmarks.http_load`, told by `helper.py` what to do.
"""

from __future__ import annotations

import select
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.helper import answer_lines
from benchmarks.latency import latency_report
from config.errors import ServiceError

__all__ = ["Load", "closed_loop", "get_request", "open_loop"]

_CONNECT_SECONDS = 5.0
_PATIENCE_SECONDS = 30.0
"""A server that says nothing for so long has stopped."""
_READ_BYTES = 262_144
_LENGTH = b"content-length:"


@dataclass(slots=True)
class Load:
    """What came back."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds of each answered request, since it was due."""
    errors: int = 0
    """Answers other than 200."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds


def get_request(path: str) -> bytes:
    """The bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


class _Connection:
    """One request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), _CONNECT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(_PATIENCE_SECONDS)
        self.due = 0.0
        self._read = b""
        self._ends = 0

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.socket.sendall(request)

    def receive(self) -> bool | None:
        """Whether an answer that is complete now was 200; None while it is not complete.

        Raises ServiceError when the server closes the connection.
        """
        data = self.socket.recv(_READ_BYTES)
        if not data:
            raise ServiceError("the server closed a connection under load: see its log")
        if self._read:
            data = self._read + data
        if not self._ends:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                self._read = data
                return None
            self._ends = head + 4 + _content_length(data[:head])
        if len(data) < self._ends:
            self._read = data
            return None
        self._read, self._ends = b"", 0
        return data.startswith(b"HTTP/1.1 200")


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(_LENGTH)
    return int(lowered[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0


class _Connections:
    """Connections, and a selector that knows when they can be read."""

    def __init__(self, host: str, port: int, count: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.all = [_Connection(host, port) for _ in range(count)]
        for one in self.all:
            self.selector.register(one.socket, selectors.EVENT_READ, one)

    def __enter__(self) -> _Connections:
        return self

    def __exit__(self, *_: object) -> None:
        self.selector.close()
        for one in self.all:
            one.socket.close()

    def answered(self, load: Load, seconds: float | None) -> list[_Connection]:
        """Wait until there is something to read; the connections whose answers are complete."""
        if seconds is not None:
            # To the microsecond; a selector of its own rounds up to a millisecond.
            select.select([self.selector], [], [], max(0.0, seconds))
        done = []
        read = self.selector.select(_PATIENCE_SECONDS if seconds is None else 0)
        for key, _ in read:
            connection = key.data
            good = connection.receive()
            if good is not None:
                load.latencies.append(time.perf_counter() - connection.due)
                load.errors += not good
                done.append(connection)
        if not done and seconds is None and not read:
            raise ServiceError("the server answers nothing any more: see its log")
        return done


def closed_loop(
    host: str, port: int, requests: Sequence[bytes], connections: int, seconds: float
) -> Load:
    """Each connection asks again as soon as it is answered. Raises ServiceError on a lost one."""
    load = Load()
    with _Connections(host, port, connections) as clients:
        begin = time.perf_counter()
        end = begin + seconds
        number = 0
        for client in clients.all:
            client.send(requests[number % len(requests)], time.perf_counter())
            number += 1
        waiting = connections
        while waiting:
            for client in clients.answered(load, None):
                now = time.perf_counter()
                if now < end:
                    client.send(requests[number % len(requests)], now)
                    number += 1
                else:
                    waiting -= 1
        load.seconds = time.perf_counter() - begin
    return load


def open_loop(
    host: str, port: int, requests: Sequence[bytes], connections: int, rate: float, seconds: float
) -> Load:
    """Send `rate` requests a second for so long. Raises ServiceError on a lost connection."""
    load = Load()
    total = int(rate * seconds)
    with _Connections(host, port, connections) as clients:
        free = deque(clients.all)
        begin = time.perf_counter()
        sent = 0
        while len(load.latencies) < total:
            now = time.perf_counter() - begin
            while free and sent < total and sent <= now * rate:
                free.popleft().send(requests[sent % len(requests)], begin + sent / rate)
                sent += 1
            ahead = sent / rate - (time.perf_counter() - begin)
            more_to_send = free and sent < total
            free.extend(clients.answered(load, ahead if more_to_send else _PATIENCE_SECONDS))
        load.seconds = time.perf_counter() - begin
    return load


def _prepare(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """`setup`: host, port, and the paths that are asked for, in this order and over again."""
    host, port = setup["host"], setup["port"]
    requests = [get_request(path) for path in setup["paths"]]

    def work(order: dict[str, Any]) -> dict[str, Any]:
        spent = time.process_time()
        if "rate" in order:
            load = open_loop(
                host, port, requests, order["connections"], order["rate"], order["seconds"]
            )
        else:
            load = closed_loop(host, port, requests, order["connections"], order["seconds"])
        cost = time.process_time() - spent
        return {
            "requests": len(load.latencies),
            "requests_per_second": load.rate,
            "errors": load.errors,
            "load_share_of_a_core": cost / load.seconds,
            **latency_report(load.latencies),
        }

    return work


if __name__ == "__main__":
    answer_lines(_prepare)
