"""`headwater replay`: a new generation from the log, beside the one that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import structlog
from cyclopts import Parameter
from redis.exceptions import RedisError

from commands.building import build
from commands.feed import progress_bar
from commands.process import (
    Count,
    Json,
    TenantName,
    print_json,
    run_until_signalled,
)
from config.errors import ServiceError
from config.overlay import Overlay, chosen, recorded
from config.redaction import redacted
from config.settings import Settings, load_settings
from config.tenants import named_tenant
from store.connect import connect
from store.generations import Generation, Generations
from streams.offsets import LogOffsets, Origin, read_origin

__all__ = ["replay"]

log = structlog.get_logger("headwater.replay")

Flag = Annotated[bool, Parameter(negative=())]


def replay(
    *,
    from_: Annotated[str, Parameter(name="--from")] = "earliest",
    activate: Flag = False,
    workers: Count = None,
    set_: Annotated[Sequence[str], Parameter(name="--set", negative=())] = (),
    tenant: TenantName = None,
    json: Json = False,
) -> None:
    """Build a new generation from the log while the live one answers; interrupted, and called again
    in the same way, it goes on from where it was.

    Parameters
    ----------
    from_
        Where in the log to begin: earliest, latest, an offset (of every partition), or an RFC 3339
        time. The catalogue is always read whole.
    activate
        Make it the live one as soon as it is less than a second behind.
    workers
        Workers that build it, 1 to 64; worker.processes by default.
    set_
        A setting to count or rank with, as group.name=value, of the groups store, events, fold,
        rank, learn and explore. It stays with the generation.
    tenant
        Whose log it is; that of the one that is not named by default. No other is touched.
    """
    settings = named_tenant(load_settings(), tenant)
    origin, overlay = read_origin(from_), chosen(set_)
    own = Generation(0, "building", 0, from_, _merged(recorded(settings), overlay))
    own.overlaid(settings)  # what is wrong with it is said now

    async def work() -> None:
        redis = connect(settings)
        try:
            one = await _begun(settings, Generations(redis, settings), own, origin)
            with progress_bar() as bar:
                count = workers or settings.worker.processes
                built = await build(settings, redis, one, workers=count, bar=bar, activate=activate)
        except RedisError as error:
            raise ServiceError(
                f"Redis at {redacted(settings.redis.url or '')}: {error}; the same command goes "
                "on from where it was"
            ) from None
        finally:
            await redis.aclose()
        state = "live" if activate else "ready"
        if json:
            print_json(
                {
                    "generation": one.number,
                    "state": state,
                    "events": built.events,
                    "seconds": round(built.seconds, 3),
                    "events_per_second": round(built.rate),
                }
            )
            return
        print(
            f"generation {one.number} is {state}: {built.events:,} events in "
            f"{built.seconds:,.1f} s, {built.rate:,.0f} a second"
        )

    run_until_signalled(work)


async def _begun(
    settings: Settings, generations: Generations, wanted: Generation, origin: Origin
) -> Generation:
    """One that was begun in the same way and not finished, else a new one."""
    await generations.ensure_live(await generations.live_or_first(settings))
    for one in await generations.all():
        same = one.origin == wanted.origin and one.settings == wanted.settings
        if one.state == "building" and same:
            log.info("going on", generation=one.number)
            return one
    starts = await asyncio.to_thread(lambda: LogOffsets(settings).starts(origin))
    one = await generations.create(wanted.origin, wanted.settings, starts)
    log.info("begun", generation=one.number, starts=starts[settings.kafka.events_topic])
    return one


def _merged(first: Overlay, second: Overlay) -> Overlay:
    return {
        group: {**first.get(group, {}), **second.get(group, {})} for group in {**first, **second}
    }
