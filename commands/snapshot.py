"""`headwater snapshot`: a generation in a file, so that recovery does not need the whole log."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from pathlib import Path
from typing import Annotated, BinaryIO, cast

from cyclopts import App, Parameter
from cyclopts.validators import Number
from redis.asyncio import Redis

from commands.building import build
from commands.feed import progress_bar
from commands.generations import run_with_redis
from commands.process import Count, Json, TenantName, print_json
from config.errors import ServiceError, StoreError
from config.settings import Settings
from store.dropping import delete_keys
from store.generations import Generation, Generations
from store.keys import Keys
from store.snapshot import read_header, restore
from store.snapshot import save as save_generation
from streams.offsets import LogOffsets

__all__ = ["snapshot"]

Flag = Annotated[bool, Parameter(negative=())]

snapshot = App(
    name="snapshot",
    help="A generation in a file, with its offsets, and back into any Redis.",
    version_flags=[],
)


@snapshot.command
def save(
    file: Path,
    /,
    *,
    generation: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    tenant: TenantName = None,
    json: Json = False,
) -> None:
    """Write a generation to a file; events wait meanwhile, answers do not.

    Parameters
    ----------
    file
        Where to; compressed where the name ends in .gz. It is there once it is whole.
    generation
        Its number; the live one by default.
    tenant
        Whose it is; of the one that is not named by default.
    """

    async def work(redis: Redis, settings: Settings) -> tuple[int, int]:
        known = Generations(redis, settings)
        live = await known.live_or_first(settings)
        one = live if generation is None else await known.get(generation)
        cluster = await asyncio.to_thread(lambda: LogOffsets(settings).cluster())
        part = file.with_name(f"{file.name}.part")
        count = 0
        try:
            with _opened(part, "wb", file.suffix) as out, progress_bar() as bar:
                task = bar.add_task("saving", total=None, note="")
                async for some in save_generation(redis, settings, one, cluster, out):
                    count += some
                    bar.update(task, note=f"{count:,} keys")
            part.replace(file)
        except OSError as error:
            raise ServiceError(f"{file} cannot be written: {error}") from None
        finally:
            part.unlink(missing_ok=True)
        return one.number, count

    number, count = run_with_redis(work, tenant)
    size = file.stat().st_size
    if json:
        print_json({"generation": number, "keys": count, "bytes": size, "file": str(file)})
    else:
        print(f"generation {number} is in {file}: {count:,} keys, {size:,} bytes")


@snapshot.command
def load(
    file: Path,
    /,
    *,
    activate: Flag = False,
    workers: Count = None,
    tenant: TenantName = None,
    json: Json = False,
) -> None:
    """Make a new generation of a file; with --activate, bring it up to date and switch to it.

    Parameters
    ----------
    file
        What `headwater snapshot save` has written.
    activate
        Count what the log has got since, and make it the live one.
    workers
        Workers that do that, 1 to 64; worker.processes by default.
    tenant
        Whose it becomes: the one that it was saved of.
    """

    async def work(redis: Redis, settings: Settings) -> tuple[int, int, int]:
        cluster = await asyncio.to_thread(lambda: LogOffsets(settings).cluster())
        with progress_bar() as bar:
            try:
                with _opened(file, "rb", file.suffix) as source:
                    one, count = await _load(redis, settings, cluster, source)
            except (OSError, EOFError) as error:
                raise ServiceError(f"{file} cannot be read: {error}") from None
            if not activate:
                return one.number, count, 0
            settled = workers or settings.worker.processes
            built = await build(settings, redis, one, workers=settled, bar=bar, activate=True)
        return one.number, count, built.events

    number, count, events = run_with_redis(work, tenant)
    state = "live" if activate else "building"
    if json:
        print_json({"generation": number, "state": state, "keys": count, "events": events})
    elif activate:
        print(f"generation {number} is live: {count:,} keys, and {events:,} events since")
    else:
        print(f"generation {number} has {count:,} keys: headwater generations activate {number}")


async def _load(
    redis: Redis, settings: Settings, cluster: str, file: BinaryIO
) -> tuple[Generation, int]:
    """What became of a file, and how many keys. A file that is not whole leaves nothing behind."""
    header = read_header(settings, cluster, file)
    known = Generations(redis, settings)
    await known.ensure_live(await known.live_or_first(settings))
    old = header.generation
    one = await known.create(f"snapshot of {old.number}", old.settings, old.starts, state="loading")
    count = 0
    try:
        async for some in restore(redis, settings, header, one, file):
            count += some
    except BaseException:
        with contextlib.suppress(StoreError):
            one = await known.mark(one, "dropping")
            async for _ in delete_keys(redis, Keys(one.overlaid(settings).store, one.number)):
                pass
            await known.remove(one)
        raise
    return await known.mark(one, "building"), count


def _opened(file: Path, mode: str, suffix: str) -> BinaryIO:
    """Raises OSError."""
    if suffix == ".gz":
        return cast(BinaryIO, gzip.open(file, mode, compresslevel=1))
    return cast(BinaryIO, file.open(mode))
