"""A load in a process of its own, told by JSON lines what to do and answering in the same way.

The parent's side is `Helper`; the child's is `answer_lines`, which ends with the parent.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import orjson

from config.errors import ServiceError

__all__ = ["Helper", "answer_lines", "wait_or_kill"]

_LINE_BYTES = 1 << 26
"""A load's first line holds all the requests that it may send."""
_END_SECONDS = 10.0


class Helper:
    """`async with Helper("benchmarks.sender", {...}) as load: await load.ask({...})`."""

    def __init__(self, module: str, setup: dict[str, Any]) -> None:
        self._module = module
        self._setup = setup
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Start it and wait until it has prepared what it needs."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
        )
        try:
            await self.ask(self._setup)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        process = self._running()
        if process.stdin is not None:
            process.stdin.close()
        await wait_or_kill(process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    async def ask(self, what: dict[str, Any]) -> dict[str, Any]:
        """Have it do something and wait for the answer. Raises ServiceError when it ends."""
        process = self._running()
        if process.stdin is None or process.stdout is None:
            raise ServiceError(f"{self._module} has no pipes")
        process.stdin.write(orjson.dumps(what) + b"\n")
        line = await process.stdout.readline()
        if not line:
            raise ServiceError(f"{self._module} ended: what it says is above")
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise ServiceError(f"{self._module} was not started")
        return self._process


async def wait_or_kill(process: asyncio.subprocess.Process) -> None:
    """Wait until a process that was told to end has ended; not for long."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def answer_lines(
    prepare: Callable[[dict[str, Any]], Callable[[dict[str, Any]], dict[str, Any]]],
) -> None:
    """Read what to prepare, then one thing to do after the other, until the parent ends."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    lines = iter(sys.stdin.buffer.readline, b"")
    first = next(lines, None)
    if first is None:
        return
    work = prepare(orjson.loads(first))
    answers.write(b"{}\n")
    answers.flush()
    for line in lines:
        answers.write(orjson.dumps(work(orjson.loads(line))) + b"\n")
        answers.flush()
