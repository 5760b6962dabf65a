"""Runs the server: in this process, or in several that share one port.

The kernel spreads connections over processes that listen with SO_REUSEPORT. The parent keeps the
port (bound, not listening), starts one process again when it ends, and passes signals on. Each
child reads its stdin, whose other end the parent holds: when that ends, so does the child, however
the parent went.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections import deque

import structlog
from aiohttp import web
from prometheus_client import multiprocess
from yarl import URL

from config.errors import ServiceError, SettingsError
from config.settings import Settings
from serving.app import make_app
from serving.protocol import ProblemRunner

__all__ = ["run_child", "run_parent", "serve_here"]

log = structlog.get_logger("headwater.serve")

DRAIN_SECONDS = 4.0
_KILL_SECONDS = 9.0
_BIND_SECONDS = 3.0
_ENDS_ALLOWED = 5
_ENDS_WITHIN_SECONDS = 30.0
_PAUSE_SECONDS = 0.3
_BACKLOG = 1024


async def serve_here(settings: Settings) -> None:
    """Serve in this process until cancelled, then finish the requests that have been received."""
    listener = await _bound(settings.http.host, settings.http.port, shared=False)
    await _serve(settings, listener)


async def run_child(settings: Settings) -> None:
    """Serve on a port that other processes serve too, until cancelled or the parent ends."""
    listener = await _bound(settings.http.host, settings.http.port, shared=True)
    serving = asyncio.create_task(_serve(settings, listener))
    parent = asyncio.create_task(_parent_ends())
    try:
        await asyncio.wait({serving, parent}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        parent.cancel()
        if not serving.done():
            serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def run_parent(settings: Settings, processes: int) -> None:
    """Keep `processes` children serving until cancelled.

    Raises ServiceError when one ends again and again, or when the port is taken.
    """
    make_app(settings)  # what is wrong with the settings is said once, here
    probe = await _bound(settings.http.host, settings.http.port, shared=False)
    port = probe.getsockname()[1]
    probe.close()
    with await _bound(settings.http.host, port, shared=True):
        _say_where(settings.http.host, port, processes)
        keepers = [asyncio.create_task(_keep(number, port)) for number in range(1, processes + 1)]
        try:
            await asyncio.gather(*keepers)
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)


async def _serve(settings: Settings, listener: socket.socket) -> None:
    runner = ProblemRunner(
        make_app(settings), access_log=None, shutdown_timeout=DRAIN_SECONDS, handle_signals=False
    )
    try:
        await runner.setup()
        _rarely_look_for_cycles()
        await web.SockSite(runner, listener, backlog=_BACKLOG).start()
        _say_where(settings.http.host, listener.getsockname()[1], 1)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
        listener.close()


def _rarely_look_for_cycles() -> None:
    """What was imported is never looked through again, and what is kept at hand rarely: that takes
    longer than an answer may.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _say_where(host: str, port: int, processes: int) -> None:
    url = str(URL.build(scheme="http", host=host, port=port))
    log.info("serving", url=url, processes=processes, pid=os.getpid())


async def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    """A bound socket; one that just ended may hold the port for a moment. Raises ServiceError."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise SettingsError(
            f"setting http.host (HEADWATER_HTTP__HOST): {host!r}: {error}"
        ) from None
    family, kind, protocol, _, address = found[0]
    limit = time.monotonic() + _BIND_SECONDS
    while True:
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            bound.bind(address)
            bound.setblocking(False)
            return bound
        except OSError as error:
            bound.close()
            if time.monotonic() > limit:
                raise ServiceError(
                    f"cannot listen on {host} port {port}: {error.strerror}; set another "
                    "http.port (HEADWATER_HTTP__PORT), 0 for any free one"
                ) from None
        await asyncio.sleep(0.1)


async def _parent_ends() -> None:
    """Wait for the end of stdin."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            ended.set()

    loop.add_reader(0, read)
    await ended.wait()


async def _keep(number: int, port: int) -> None:
    """One child, started again when it ends. Raises ServiceError when it ends too often."""
    ends: deque[float] = deque(maxlen=_ENDS_ALLOWED)
    env = {**os.environ, "HEADWATER_HTTP__PORT": str(port)}
    while True:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "commands.serve", stdin=asyncio.subprocess.PIPE, env=env
        )
        try:
            code = await child.wait()
        finally:
            await _end(child)
        ends.append(time.monotonic())
        log.warning("server process ended, starting it again", number=number, code=code)
        if len(ends) == _ENDS_ALLOWED and ends[-1] - ends[0] < _ENDS_WITHIN_SECONDS:
            raise ServiceError(
                f"server process {number} ended {_ENDS_ALLOWED} times within "
                f"{_ENDS_WITHIN_SECONDS:.0f} s, last with code {code}; the log above says why"
            )
        await asyncio.sleep(_PAUSE_SECONDS)


async def _end(child: asyncio.subprocess.Process) -> None:
    """TERM, and KILL when that takes too long; its metrics files stay, its gauges go."""
    with contextlib.suppress(ProcessLookupError):
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_KILL_SECONDS):
            await child.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(child.pid)  # type: ignore[no-untyped-call]
