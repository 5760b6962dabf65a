"""`headwater worker`: one Faust worker, until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import logging

import faust
import uvloop

from config.settings import load_settings
from processors.worker import make_app

__all__ = ["worker"]


def worker() -> None:
    """Fold the events of some partitions into Redis; any number of workers share them."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    # Faust is chatty at info; what matters of it is said by our own transport.
    for chatty in ("faust", "mode", "aiokafka"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    settings = load_settings()
    # Faust wants a folder, though nothing of ours is kept there.
    settings.services.data_dir.mkdir(parents=True, exist_ok=True)
    app = make_app(settings)
    # Records and events are no containers and their lists are short-lived: looking through them
    # for cycles took longer than unpacking them.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    faust.Worker(
        app, loop=loop, override_logging=False, quiet=True, redirect_stdouts=False
    ).execute_from_commandline()
