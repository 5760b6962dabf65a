"""`headwater worker`: one Faust worker, until a signal ends it.

It follows the live generation, unless it is told to build another one.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Annotated

import faust
import structlog
import uvloop
from cyclopts import Parameter
from cyclopts.validators import Number
from redis.exceptions import RedisError

from config.settings import Settings, load_settings
from processors.worker import make_app
from store.connect import connect
from store.generations import Generation, Generations, first_generation

__all__ = ["worker"]

log = structlog.get_logger("headwater.worker")

_RETRY_SECONDS = 0.5


def worker(*, generation: Annotated[int | None, Parameter(validator=Number(gte=1))] = None) -> None:
    """Fold the events of some partitions into Redis; any number of workers share them.

    Parameters
    ----------
    generation
        The generation to build, which `headwater replay` has begun; by default the live one.
    """
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    # Faust is chatty at info; what matters of it is said by our own transport.
    for chatty in ("faust", "mode", "aiokafka"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    settings = load_settings()
    # Faust wants a folder, though nothing of ours is kept there.
    settings.services.data_dir.mkdir(parents=True, exist_ok=True)
    builds = generation is not None
    app = make_app(settings, loop.run_until_complete(_find(settings, generation)), builds=builds)
    # Records and events are no containers and their lists are short-lived: looking through them
    # for cycles took longer than unpacking them.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    faust.Worker(
        app, loop=loop, override_logging=False, quiet=True, redirect_stdouts=False
    ).execute_from_commandline()


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
