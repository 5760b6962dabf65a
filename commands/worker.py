"""`headwater worker`: one Faust worker, until a signal ends it.

It follows the live generation, unless it is told to build another one.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import faust
import structlog
import uvloop
from cyclopts import Parameter
from cyclopts.validators import Number
from prometheus_client import multiprocess, start_http_server
from redis.exceptions import RedisError

from commands.process import TenantName
from config.errors import ServiceError, SettingsError, StreamError
from config.followed import FollowedFile
from config.kafka import kafka_answers
from config.settings import Settings, load_settings
from config.tenants import Tenant, named_tenant, read_tenants
from config.traces import start_traces, stop_traces
from processors import metrics
from processors.worker import make_app
from store.connect import connect
from store.generations import Generation, Generations, first_generation
from streams.topics import ensure_topics

__all__ = ["worker"]

log = structlog.get_logger("headwater.worker")

_RETRY_SECONDS = 0.5
_POLITE = 10


def worker(
    *,
    generation: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    tenant: TenantName = None,
) -> None:
    """Fold the events of some partitions into Redis; any number of workers share them.

    Parameters
    ----------
    generation
        The generation to build, which `headwater replay` has begun; by default the live ones, of
        all tenants.
    tenant
        Whose generation that is.
    """
    if tenant is not None and generation is None:
        raise SettingsError("--tenant goes with --generation: a worker counts for all tenants")
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    # Faust is chatty at info; what matters of it is said by our own transport.
    for chatty in ("faust", "mode", "aiokafka"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    settings = load_settings()
    _tell_prometheus(settings)
    # Faust wants a folder, though nothing of ours is kept there.
    settings.services.data_dir.mkdir(parents=True, exist_ok=True)
    # One that does not answer is waited for; one that does not let us in ends this worker.
    kafka_answers(settings.kafka)
    builds = generation is not None
    if builds:
        # Servers, and who counts what comes now, go first; an idle processor is all the builder's.
        os.nice(_POLITE)
    path = None if builds else settings.tenants.file
    known = None if path is None else _Known(settings, path)
    tenants = [named_tenant(settings, tenant)] if known is None else [settings, *known.settings]
    if known is not None:
        _make_topics(tenants)
    seats = [(one, loop.run_until_complete(_find(one, generation))) for one in tenants]
    stale = known.changed if known else lambda: False
    app = make_app(settings, seats, builds=builds, stale=stale)
    metrics.STARTS.labels("worker").inc()
    # Records and events are no containers and their lists are short-lived: looking through them
    # for cycles took longer than unpacking them.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    start_traces(settings.traces, "headwater-worker")
    made = faust.Worker(app, loop=loop, override_logging=False, quiet=True, redirect_stdouts=False)
    made.spinner = None  # it writes escapes between the lines of a log, terminal or not
    try:
        made.execute_from_commandline()
    except SystemExit:
        if known is not None and known.is_stale:
            stop_traces()
            _begin_anew()
        raise
    finally:
        stop_traces()


class _Known:
    """The tenants that this process began with, against those that there are now."""

    def __init__(self, settings: Settings, path: Path) -> None:
        self._file = FollowedFile(path, partial(read_tenants, settings))
        self._began_with = self._file.value
        self.settings = [one.settings for one in self._began_with.values()]
        self.is_stale = False

    def changed(self) -> bool:
        """Whether a tenant has come, gone or changed in what a worker does; told once."""
        self._file.look()
        now = self._file.value
        if self.is_stale or _counted_by(now) == _counted_by(self._began_with):
            return False
        log.info("the tenants have changed: this worker begins anew", tenants=list(now))
        self.is_stale = True
        return True


def _counted_by(tenants: Mapping[str, Tenant]) -> dict[str, Any]:
    return {name: one.settings.model_dump() for name, one in tenants.items()}


def _make_topics(tenants: Sequence[Settings]) -> None:
    """As far as Kafka lets us: what is missing is waited for, as ever."""
    try:
        ensure_topics(*tenants)
    except StreamError as error:
        log.warning("topics cannot be made yet", error=str(error))


def _begin_anew() -> None:
    """In the same process, so that whoever started it need not know."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        # What it told last of tenants that are gone is not true any more.
        multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves


def _tell_prometheus(settings: Settings) -> None:
    """Answer on `worker.metrics_port`, unless a server beside us tells our numbers.

    Raises ServiceError where the port cannot be had.
    """
    port, host = settings.worker.metrics_port, settings.worker.metrics_host
    if port is None or "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        return
    try:
        start_http_server(port, host)
    except OSError as error:
        raise ServiceError(
            f"metrics cannot be told on {host} port {port}: {error.strerror}; set another "
            "worker.metrics_port (HEADWATER_WORKER__METRICS_PORT)"
        ) from None


async def _find(settings: Settings, number: int | None) -> Generation:
    """The generation of that number, or the live one, once Redis tells. Raises StoreError."""
    redis = connect(settings)
    generations = Generations(redis, settings)
    try:
        while True:
            try:
                if number is not None:
                    return await generations.get(number)
                return (await generations.ensure_live(first_generation(settings)))[0]
            except RedisError as error:
                log.warning("generations cannot be read yet", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
    finally:
        await redis.aclose()
