"""Children that never outlive this process, however it ends, and a shell's Ctrl-C never reaches.

`spawn` starts a child in a session of its own. Beside the children runs one watchdog (this file
as a program) that reads a pipe from us: each child is announced in it before it runs. When the
pipe ends, because we are done or because we were killed, the watchdog stops what is left: first
the children of rank WORK, then those of rank SERVICE; TERM, and KILL for what stays.
Works on Linux and macOS. Next: `daemon.py` and `supervisor.py`, which start children with it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

__all__ = ["SERVICE", "WORK", "alive", "forget", "signal_group", "spawn"]

WORK = 0
SERVICE = 1
GRACE_SECONDS = 6.0
# The announcement is written by the process that then becomes the child: there is no moment
# at which a child runs and the watchdog does not know it.
ANNOUNCE = 'echo "+ $$ $0" >&0 && exec "$@" </dev/null'


class _Guard:
    """Our end of the pipe to the watchdog; one in a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._pipe: IO[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._children: dict[int, int] = {}

    def pipe(self) -> IO[bytes]:
        """The pipe of a watchdog that runs; a lost one is replaced and told what we have."""
        with self._lock:
            mine = self._owner == os.getpid()  # a fork holds its parent's watchdog, not its own
            if mine and self._pipe and self._watchdog and self._watchdog.poll() is None:
                return self._pipe
            if not mine:
                self._children = {}
            read, write = os.pipe()
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", __file__, str(os.getpid())],
                stdin=read,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            os.close(read)
            self._pipe = os.fdopen(write, "wb", buffering=0)
            self._owner = os.getpid()
            for pid, rank in self._children.items():
                self._pipe.write(f"+ {pid} {rank}\n".encode())
            atexit.register(self.close)
            return self._pipe

    def add(self, pid: int, rank: int) -> None:
        with self._lock:
            self._children[pid] = rank

    def remove(self, pid: int) -> None:
        with self._lock:
            if self._children.pop(pid, None) is not None and self._pipe:
                with contextlib.suppress(OSError):
                    self._pipe.write(f"- {pid}\n".encode())

    def close(self) -> None:
        """End the pipe; the watchdog stops what is left and ends, which is waited for."""
        with self._lock:
            if self._owner == os.getpid() and self._pipe and self._watchdog:
                self._pipe.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._watchdog.wait(3 * GRACE_SECONDS)
                self._pipe = self._watchdog = None
                self._children = {}


_guard = _Guard()


def spawn(
    argv: Sequence[str],
    *,
    rank: int,
    log: Path,
    env: Mapping[str, str] | None = None,
    keep: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own, guarded, its output appended to `log`.

    `rank` is WORK or SERVICE; `env` replaces the environment; `keep` names file descriptors
    that the child inherits. The child leads a process group of its pid. Raises OSError.
    """
    pipe = _guard.pipe()
    with log.open("ab") as output:
        child = subprocess.Popen(
            ["/bin/sh", "-c", ANNOUNCE, str(rank), *argv],
            stdin=pipe.fileno(),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            pass_fds=keep,
            start_new_session=True,
        )
    _guard.add(child.pid, rank)
    return child


def forget(child: subprocess.Popen[bytes]) -> None:
    """Call when `child` has been waited for: ends what it left of its group, unguards it."""
    signal_group(child.pid, signal.SIGKILL)
    _guard.remove(child.pid)


def signal_group(group: int, signum: int) -> bool:
    """Send a signal to a process group; False when nothing is left of it."""
    try:
        os.killpg(group, signum)
    except (ProcessLookupError, PermissionError):  # macOS: EPERM when only a zombie is left
        return False
    return True


def alive(group: int) -> bool:
    """Whether anything is left of a process group, zombies that nobody waits for included."""
    return signal_group(group, 0)


def _watch(parent: int) -> None:
    """The watchdog: follow the announcements until the pipe or the parent ends, then stop all."""
    children: dict[int, int] = {}
    rest = b""
    while True:
        # A fork of the parent may hold the pipe open, so the parent itself is looked at as well.
        ready, _, _ = select.select([0], [], [], 0.5)
        if ready:
            data = os.read(0, 65_536)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                sign, pid, *rank = line.split()
                if sign == b"+":
                    children[int(pid)] = int(rank[0])
                else:
                    children.pop(int(pid), None)
        elif os.getppid() != parent:
            break
    for rank_now in sorted(set(children.values())):
        groups = [pid for pid, rank in children.items() if rank == rank_now]
        _end(groups)


def _end(groups: list[int]) -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        groups = [group for group in groups if signal_group(group, signum)]
        limit = time.monotonic() + GRACE_SECONDS
        while groups and time.monotonic() < limit:
            time.sleep(0.02)
            groups = [group for group in groups if alive(group)]


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    _watch(int(sys.argv[1]))
