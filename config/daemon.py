"""One server program that is started here: spawn, wait until it answers, stop, kill, start again.

`kafka.py` and `redis_server.py` say what to run and how to ask whether it answers. The data
directory is locked by the running server itself, and remembers the ports for the next start.
Next: `services.py`, which has one of each.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from config import guard
from config.errors import ServiceError

__all__ = ["Daemon", "at_once", "free_port", "port_is_free", "tail"]

HOST = "127.0.0.1"
# Below the ports that systems hand out to outgoing connections (Linux 32768, macOS 49152 up):
# a port must still be free when a killed server is started again on it.
PORTS = range(20_000, 32_000)


def port_is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = HOST) -> int:
    """A port nobody listens on, chosen at random. Raises ServiceError when none is found."""
    for _ in range(200):
        port = PORTS[secrets.randbelow(len(PORTS))]
        if port_is_free(port, host):
            return port
    raise ServiceError(f"no free port on {host} between {PORTS.start} and {PORTS.stop - 1}")


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, indented, for an error message."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16_384))
        text = file.read().decode(errors="replace").splitlines()[-lines:]
        return "\n".join(f"  {line}" for line in text)
    return ""


_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def at_once(does: Callable[[_T], None], them: Collection[_T]) -> None:
    """Do it to each of them, all at the same time; returns when all is done. Raises what one of
    them raised.
    """
    if them:
        with ThreadPoolExecutor(len(them)) as pool:
            list(pool.map(does, them))


class Daemon(ABC):
    """A server on loopback with a data directory. `start` again after `stop` or `kill`.

    Not thread-safe: one thread starts and stops it.
    """

    name: str
    port_names: tuple[str, ...]
    start_seconds = 60.0
    stop_seconds = 20.0

    def __init__(self, folder: Path, cancelled: threading.Event | None = None) -> None:
        self.folder = folder.absolute()
        self.log = self.folder.parent / "logs" / f"{self.name}.log"
        self.ports: dict[str, int] = {}
        self._cancelled = cancelled or threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        """Write what the server needs; return its arguments and environment."""

    @abstractmethod
    def _answers(self) -> bool:
        """Ask the server once, for well under a second."""

    @property
    def pid(self) -> int:
        """Process id. Raises ServiceError when it does not run."""
        if not self.running or self._child is None:
            raise ServiceError(f"{self.name} does not run")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the process that was started last is still there."""
        return self._child is not None and self._child.poll() is None

    def reserve_ports(self) -> dict[str, int]:
        """Choose the ports that the next start takes, for others who must know them before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._choose_ports()
        return self.ports

    def start(self) -> None:
        """Start and wait until it answers. Raises ServiceError with the end of its log."""
        if self.running:
            return
        self._reap()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        for attempt in (1, 2, 3):
            with self._locked() as lock:
                self._choose_ports()
                argv, env = self._prepare()
                self._child = guard.spawn(
                    argv, rank=guard.SERVICE, log=self._output, env=env, keep=(lock,)
                )
            try:
                self._wait_until_ready()
                return
            except ServiceError:
                # Someone may have taken a port between our look and the server's.
                lost_port = not self.running and attempt < 3 and not self._ports_are_free()
                self.kill()
                if not lost_port or self._cancelled.is_set():
                    raise

    def stop(self) -> None:
        """TERM, then KILL when it takes too long; returns when nothing is left of it."""
        if self._child is not None:
            guard.signal_group(self._child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(self.stop_seconds)
        self.kill()

    def kill(self) -> None:
        """KILL, as a crash would end it; returns when nothing is left of it."""
        if self._child is not None:
            guard.signal_group(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._reap()

    def _reap(self) -> None:
        if self._child is not None:
            guard.forget(self._child)
            self._child = None

    @property
    def _output(self) -> Path:
        return self.log

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Lock the data directory; the server inherits the lock and so holds it while it runs."""
        path = self.folder.parent / f"{self.name}.lock"
        waits = False
        limit = time.monotonic() + self.stop_seconds
        with path.open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > limit or self._cancelled.wait(0.1):
                        raise ServiceError(
                            f"another {self.name} uses {self.folder}: stop it, or set "
                            "HEADWATER_SERVICES__DATA_DIR to another folder"
                        ) from None
                    if not waits:
                        waits = True
                        _log.info("waiting for another %s to leave %s", self.name, self.folder)
            yield file.fileno()

    def _choose_ports(self) -> None:
        path = self.folder / "ports.json"
        known: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(path.read_text())
        self.ports = {}
        for name in self.port_names:
            port = known.get(name)
            taken = port is None or port in self.ports.values() or not port_is_free(port)
            self.ports[name] = free_port() if port is None or taken else port
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(self.ports))
        os.replace(scratch, path)

    def _ports_are_free(self) -> bool:
        return all(port_is_free(port) for port in self.ports.values())

    def _wait_until_ready(self) -> None:
        limit = time.monotonic() + self.start_seconds
        while not self._answers():
            if not self.running:
                raise ServiceError(f"{self.name} ended while it started; its log:\n{self._tail()}")
            if self._cancelled.is_set():
                raise ServiceError(f"the start of {self.name} was interrupted")
            if time.monotonic() > limit:
                raise ServiceError(
                    f"{self.name} does not answer after {self.start_seconds:.0f} s; "
                    f"its log ({self.log}):\n{self._tail()}"
                )
            self._cancelled.wait(0.03)
        if not self.running:  # another server answered on this port
            raise ServiceError(f"{self.name} ended while it started; its log:\n{self._tail()}")

    def _tail(self) -> str:
        return "\n".join(filter(None, (tail(path) for path in {self.log, self._output})))
