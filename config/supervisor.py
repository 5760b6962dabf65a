"""Keeps child processes running: starts them, starts again those that end, stops them all.

Every child is guarded (`guard.py`), logs to a file of its own and leads its own process group.
A child that ends five times within thirty seconds is given up; `failed` then raises.
Next: `commands/stack.py`, which runs workers and server with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from config import guard
from config.daemon import tail
from config.errors import ServiceError

__all__ = ["Child", "Supervisor"]

STOP_SECONDS = 15.0
ENDS_ALLOWED = 5
ENDS_WITHIN_SECONDS = 30.0
PAUSES = (0.0, 0.2, 0.5, 1.0)  # before the first, second, … start within that time
LOG_BYTES = 10_000_000

_log = logging.getLogger(__name__)


class Child:
    """One child process, started again when it ends. Made by `Supervisor.start`."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        ended: Callable[[int], None],
        given_up: Callable[[ServiceError], None],
    ) -> None:
        self.name = name
        self.log = log
        self.restarts = 0
        self._argv = list(argv)
        self._env = dict(env)
        self._ended = ended
        self._given_up = given_up
        self._process: subprocess.Popen[bytes] | None = None
        self._exit = asyncio.Event()
        self._stopping = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process id, and id of its process group. Raises ServiceError when it does not run."""
        if not self.running or self._process is None:
            raise ServiceError(f"{self.name} does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and keep it running. Raises OSError when it cannot be started."""
        self._stopping = False
        self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    def send(self, signum: int) -> None:
        """Send a signal to its process group (SIGSTOP and SIGCONT freeze and thaw it)."""
        guard.signal_group(self.pid, signum)

    def kill(self) -> None:
        """KILL it as a crash would; it is then started again."""
        self.send(signal.SIGKILL)

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """TERM, and KILL when that takes longer than `seconds`; it is not started again."""
        self._stopping = True
        if self._keeper is None:
            return
        if self.running:
            self.send(signal.SIGTERM)
            with contextlib.suppress(ServiceError):  # it may have ended by now
                self.send(signal.SIGCONT)  # a frozen process would not see the TERM
        done, _ = await asyncio.wait({self._keeper}, timeout=seconds)
        if not done:
            _log.warning("%s did not stop within %.0f s and is killed", self.name, seconds)
            with contextlib.suppress(ServiceError):
                self.kill()
        await self._keeper

    async def lose(self) -> None:
        """KILL it, and do not start it again: until somebody does, its machine is gone."""
        self._stopping = True
        if self._keeper is None:
            return
        with contextlib.suppress(ServiceError):  # it may have ended by now
            self.kill()
        await self._keeper

    async def restart(self) -> None:
        """Stop it and start it anew."""
        await self.stop()
        self.start()

    def _spawn(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old.log"))
        self._exit.clear()
        process = guard.spawn(self._argv, rank=guard.WORK, log=self.log, env=self._env)
        self._process = process
        loop = asyncio.get_running_loop()

        def wait() -> None:
            process.wait()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(self._exit.set)

        threading.Thread(target=wait, daemon=True, name=f"wait {self.name}").start()

    async def _keep(self) -> None:
        ends: deque[float] = deque(maxlen=ENDS_ALLOWED)
        while True:
            await self._exit.wait()
            process = self._process
            if process is None:
                return
            guard.forget(process)
            self._ended(process.pid)
            if self._stopping:
                return
            now = time.monotonic()
            ends.append(now)
            if len(ends) == ENDS_ALLOWED and now - ends[0] < ENDS_WITHIN_SECONDS:
                self._given_up(
                    ServiceError(
                        f"{self.name} ended {ENDS_ALLOWED} times within "
                        f"{ENDS_WITHIN_SECONDS:.0f} s, last with code {process.returncode}; "
                        f"its log ({self.log}):\n{tail(self.log)}"
                    )
                )
                return
            _log.warning("%s ended with code %s, starting it again", self.name, process.returncode)
            recent = sum(now - end < ENDS_WITHIN_SECONDS for end in ends)
            await asyncio.sleep(PAUSES[min(recent, len(PAUSES)) - 1])
            if self._stopping:
                return
            self.restarts += 1
            try:
                self._spawn()
            except OSError as error:
                self._given_up(ServiceError(f"{self.name} cannot be started: {error}"))
                return


class Supervisor:
    """Named children that run until `stop`. Belongs to one event loop.

    `ended` is called with the pid of each process that has ended.
    """

    def __init__(self, logs: Path, ended: Callable[[int], None] = lambda pid: None) -> None:
        self._logs = logs
        self._ended = ended
        self._errors: asyncio.Queue[ServiceError] = asyncio.Queue()
        self.children: list[Child] = []

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Child:
        """Start a child that logs to `<logs>/<name>.log`. Raises OSError."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        child = Child(name, argv, env, log, self._ended, self._errors.put_nowait)
        child.start()
        self.children.append(child)
        return child

    async def failed(self) -> None:
        """Wait until a child is given up, then raise its ServiceError."""
        raise await self._errors.get()

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop all children at once; returns when nothing is left of them."""
        await asyncio.gather(*(child.stop(seconds) for child in self.children))
