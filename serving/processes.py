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
import ssl
import sys
import time
from collections import deque

import structlog
from aiohttp import web
from prometheus_client import multiprocess
from yarl import URL

from config.errors import ServiceError, SettingsError
from config.settings import HttpSettings, Settings
from config.traces import start_traces, stop_traces
from serving.app import make_app
from serving.protocol import ProblemRunner
from serving.tls import Certificate

__all__ = ["listen", "run_child", "run_parent", "serve_here"]

log = structlog.get_logger("headwater.serve")

DRAIN_SECONDS = 4.0
KILL_SECONDS = 9.0
_BIND_SECONDS = 3.0
_ENDS_ALLOWED = 5
_ENDS_WITHIN_SECONDS = 30.0
_PAUSE_SECONDS = 0.3
_BACKLOG = 1024
_ACCEPTED_AT_ONCE = 16
"""Connections, by each listener, in one turn of the loop. libuv accepts one a turn, and a turn of a
busy server takes some milliseconds: of a thousand that connect together, as after a restart, the
last ones would have waited for seconds.
"""


async def serve_here(settings: Settings) -> None:
    """Serve in this process until cancelled, then finish the requests that have been received."""
    runner = _runner(settings)
    listener = await _bound(settings.http.host, settings.http.port, shared=False)
    await _serve(settings, runner, [listener, *await _admin_port(settings, shared=False)])


async def run_child(settings: Settings) -> None:
    """Serve on a port that other processes serve too, until cancelled or the parent ends."""
    runner = _runner(settings)
    listener = await _bound(settings.http.host, settings.http.port, shared=True)
    listeners = [listener, *await _admin_port(settings, shared=True)]
    serving = asyncio.create_task(_serve(settings, runner, listeners))
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
    # What is wrong with the settings is said once, here.
    make_app(settings)
    start_traces(settings.traces, "headwater-server")
    stop_traces()
    Certificate(settings.http)
    probe = await _bound(settings.http.host, settings.http.port, shared=False)
    port = probe.getsockname()[1]
    probe.close()
    with await _bound(settings.http.host, port, shared=True):
        _say_where(settings.http, port, processes)
        keepers = [asyncio.create_task(_keep(number, port)) for number in range(1, processes + 1)]
        try:
            await asyncio.gather(*keepers)
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)


async def _admin_port(settings: Settings, *, shared: bool) -> list[socket.socket]:
    """The listener of the admin routes, where there is to be one."""
    http = settings.http
    if http.admin_port is None:
        return []
    return [await _bound(http.admin_host, http.admin_port, shared=shared)]


def _runner(settings: Settings) -> ProblemRunner:
    """Raises SettingsError, before any port is taken."""
    return ProblemRunner(
        make_app(settings), access_log=None, shutdown_timeout=DRAIN_SECONDS, handle_signals=False
    )


async def _serve(settings: Settings, runner: ProblemRunner, listeners: list[socket.socket]) -> None:
    """Serve on the first listener, and on another one for the admin routes."""
    start_traces(settings.traces, "headwater-server")
    certificate = Certificate(settings.http)
    try:
        await runner.setup()
        _rarely_look_for_cycles()
        for listener in listeners:
            await listen(runner, listener, certificate.context)
        _say_where(settings.http, listeners[0].getsockname()[1], 1)
        await certificate.run()
    finally:
        await runner.cleanup()
        await asyncio.to_thread(stop_traces)
        for listener in listeners:
            listener.close()


async def listen(
    runner: web.AppRunner, listener: socket.socket, context: ssl.SSLContext | None = None
) -> None:
    """Accept connections to a bound socket until the runner is cleaned up."""
    for _ in range(_ACCEPTED_AT_ONCE):
        await web.SockSite(runner, listener.dup(), backlog=_BACKLOG, ssl_context=context).start()


def _rarely_look_for_cycles() -> None:
    """What was imported is never looked through again, and what is kept at hand rarely: that takes
    longer than an answer may.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _say_where(http: HttpSettings, port: int, processes: int) -> None:
    scheme = "http" if http.cert_file is None else "https"
    url = str(URL.build(scheme=scheme, host=http.host, port=port))
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
        async with asyncio.timeout(KILL_SECONDS):
            await child.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(child.pid)  # type: ignore[no-untyped-call]
