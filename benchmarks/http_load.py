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

import numpy as np

from benchmarks.helper import answer_lines
from benchmarks.latency import latency_report
from config.errors import ServiceError

__all__ = ["Load", "by_second", "closed_loop", "due_at", "get_request", "open_loop"]

_CONNECT_SECONDS = 5.0
_PATIENCE_SECONDS = 30.0
"""A server that says nothing for so long has stopped."""
_READ_BYTES = 262_144
_LENGTH = b"content-length:"
_DEGRADED = b'"degraded":true}'


@dataclass(slots=True)
class Load:
    """What came back."""

    seconds: float = 0.0
    begin: float = 0.0
    """Of an open loop, by time.perf_counter."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of each request that was answered 200, since it was due."""
    due: list[float] = field(default_factory=list)
    """When each of these was due, by time.perf_counter."""
    degraded: list[float] = field(default_factory=list)
    """The same, of those among them that say that they are degraded."""
    failed: list[float] = field(default_factory=list)
    """The same, of requests that were answered otherwise."""

    @property
    def errors(self) -> int:
        """Answers other than 200."""
        return len(self.failed)

    @property
    def answers(self) -> int:
        """Of all kinds."""
        return len(self.latencies) + self.errors

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


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
        self.degraded = False
        """Whether the last answer says so."""
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
        self.degraded = data.endswith(_DEGRADED)
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
                if good:
                    load.latencies.append(time.perf_counter() - connection.due)
                    load.due.append(connection.due)
                    if connection.degraded:
                        load.degraded.append(connection.due)
                else:
                    load.failed.append(connection.due)
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


def due_at(stages: Sequence[tuple[float, float]]) -> list[float]:
    """When requests are due, in seconds from the first: for each stage, a rate and its seconds."""
    due: list[float] = []
    begin = 0.0
    for rate, seconds in stages:
        due += [begin + number / rate for number in range(int(rate * seconds))]
        begin += seconds
    return due


def open_loop(
    host: str, port: int, requests: Sequence[bytes], connections: int, due: Sequence[float]
) -> Load:
    """Send requests when they are due, as `due_at` says. Raises ServiceError on a lost
    connection.
    """
    load = Load()
    total = len(due)
    with _Connections(host, port, connections) as clients:
        free = deque(clients.all)
        load.begin = begin = time.perf_counter()
        sent = 0
        while load.answers < total:
            now = time.perf_counter() - begin
            while free and sent < total and due[sent] <= now:
                free.popleft().send(requests[sent % len(requests)], begin + due[sent])
                sent += 1
            more_to_send = free and sent < total
            ahead = due[sent] - (time.perf_counter() - begin) if more_to_send else _PATIENCE_SECONDS
            free.extend(clients.answered(load, ahead))
        load.seconds = time.perf_counter() - begin
    return load


def by_second(load: Load) -> dict[str, list[float]]:
    """What became of the requests that were due in each second from the first one on."""
    due, latency = np.array(load.due) - load.begin, np.array(load.latencies)
    failed, degraded = (np.array(one) - load.begin for one in (load.failed, load.degraded))
    seconds = 1 + int(max(due.max(initial=0), failed.max(initial=0)))
    counts = {
        name: np.bincount(times.astype(np.int64), minlength=seconds).tolist()
        for name, times in (("answered", due), ("failed", failed), ("degraded", degraded))
    }
    second = due.astype(np.int64)
    waits = [latency_report(latency[second == number].tolist()) for number in range(seconds)]
    return counts | {name: [one[name] for one in waits] for name in ("p50_ms", "p99_ms")}


def _prepare(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """`setup`: host, port, and the paths that are asked for, in this order and over again.

    An order for `connections` is a closed loop of some `seconds`, or an open one with a `rate`, or
    with `stages` of rates and seconds, each second of which is told.
    """
    host, port = setup["host"], setup["port"]
    requests = [get_request(path) for path in setup["paths"]]

    def work(order: dict[str, Any]) -> dict[str, Any]:
        spent = time.process_time()
        stages = order.get("stages")
        if "rate" in order:
            stages = [(order["rate"], order["seconds"])]
        if stages:
            load = open_loop(host, port, requests, order["connections"], due_at(stages))
        else:
            load = closed_loop(host, port, requests, order["connections"], order["seconds"])
        cost = time.process_time() - spent
        return {
            "requests": load.answers,
            "requests_per_second": load.rate,
            "goodput": len(load.latencies) / load.seconds,
            "errors": load.errors,
            "load_share_of_a_core": cost / load.seconds,
            **latency_report(load.latencies),
            **({"begin": load.begin, "by_second": by_second(load)} if "stages" in order else {}),
        }

    return work


if __name__ == "__main__":
    answer_lines(_prepare)
