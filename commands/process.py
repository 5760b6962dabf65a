"""What commands share: logs on stderr, the event loop, threads, signals, arguments, output."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import orjson
import structlog
import uvloop
from cyclopts import Parameter

from config.settings import LogSettings

__all__ = [
    "Count",
    "Json",
    "TenantName",
    "configure_logging",
    "in_thread",
    "print_json",
    "run_until_signalled",
    "say",
]

Json = Annotated[
    bool, Parameter(name="--json", negative=(), help="print one JSON object on stdout")
]


TenantName = Annotated[str | None, Parameter(name="--tenant")]


def _few(kind: object, value: int | None) -> None:
    if value is not None and not 1 <= value <= 64:
        raise ValueError("It must be from 1 to 64.")


Count = Annotated[int | None, Parameter(validator=_few)]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")


def configure_logging(settings: LogSettings) -> None:
    """Send structlog's and the standard library's records to stderr, in one format."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.json_lines
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The richer ones print local variables, which may be anything.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    formatted: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if settings.json_lines:
        formatted.append(structlog.processors.format_exc_info)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[*formatted, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())


def say(line: str) -> None:
    """Tell a person something: stderr, so that stdout stays for results."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: dict[str, Any]) -> None:
    """Print a command's result: one JSON object on one line of stdout."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")
    sys.stdout.flush()


def run_until_signalled(work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` on uvloop until it ends, or cancel it at SIGINT, SIGTERM or SIGHUP.

    Its own clean-up is then waited for; further signals meanwhile change nothing.
    """

    async def main() -> None:
        task = asyncio.ensure_future(work())
        loop = asyncio.get_running_loop()
        signalled = False

        def stop() -> None:
            nonlocal signalled
            if not signalled:
                signalled = True
                task.cancel()

        for signum in STOP_SIGNALS:
            loop.add_signal_handler(signum, stop)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def in_thread(work: Callable[[], T], cancel: Callable[[], None] = lambda: None) -> T:
    """Run `work` in a thread and return what it returns, or raise what it raises.

    When we are cancelled, `cancel` is called, which should make `work` end early, and its end is
    waited for; what it then returns or raises is of no more use.
    """
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        cancel()
        await asyncio.wait({task})
        task.exception()  # else asyncio logs it as never retrieved
        raise
