"""`headwater generations`: which views of the log there are, and which one answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from cyclopts import App, Parameter
from cyclopts.validators import Number
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from commands.building import build
from commands.feed import progress_bar
from commands.process import Count, Json, print_json, redacted, run_until_signalled
from config.errors import ServiceError, StoreError
from config.settings import Settings, load_settings
from store.compare import compare as compare_generations
from store.connect import connect
from store.dropping import delete_keys
from store.generations import Generation, Generations
from store.keys import Keys
from store.reader import StoreReader

__all__ = ["generations", "run_with_redis"]

T = TypeVar("T")
Which = Annotated[int, Parameter(validator=Number(gte=1))]
Flag = Annotated[bool, Parameter(negative=())]

generations = App(
    name="generations",
    help="Views of the log side by side, of which one answers.",
    version_flags=[],
)


@generations.command(name="list")
def list_(*, json: Json = False) -> None:
    """All of them, the live one marked."""

    async def look(redis: Redis, settings: Settings) -> list[dict[str, Any]]:
        known = Generations(redis, settings)
        live = await known.live()
        return [await _shown(redis, settings, one, live) for one in await known.all()]

    found = run_with_redis(look)
    if json:
        print_json({"generations": found})
        return
    table = Table("", "state", "begun", "from", "events", "latest", "settings", box=None)
    for one in found:
        table.add_row(
            str(one["generation"]),
            one["state"],
            one["created"],
            one["origin"],
            f"{one['events']:,}",
            one["latest"] or "",
            ", ".join(
                f"{group}.{name}={value}"
                for group, values in one["settings"].items()
                for name, value in values.items()
            ),
        )
    Console(markup=False).print(table)


@generations.command
def activate(
    number: Which, /, *, now: Flag = False, workers: Count = None, json: Json = False
) -> None:
    """Make one the live one: first what it lacks is counted, so that no answer is older.

    Parameters
    ----------
    number
        Its number.
    now
        At once, however far it is behind: the workers then count what it lacks.
    workers
        Workers that bring it up to date, 1 to 64; worker.processes by default.
    """

    async def work(redis: Redis, settings: Settings) -> int:
        known = Generations(redis, settings)
        one = await known.get(number)
        live = await known.live()
        if one.state in ("loading", "dropping"):
            raise StoreError(f"generation {number} is {one.state} and has not all that it needs")
        if live is not None and live.number == number:
            return 0
        if now:
            await known.activate(one)
            return 0
        with progress_bar() as bar:
            count = workers or settings.worker.processes
            built = await build(settings, redis, one, workers=count, bar=bar, activate=True)
        return built.events

    events = run_with_redis(work)
    if json:
        print_json({"generation": number, "state": "live", "events": events})
    else:
        print(f"generation {number} is live, {events:,} events later")


@generations.command
def drop(number: Which, /, *, json: Json = False) -> None:
    """Delete one that is not live, little by little; interrupted and called again, go on.

    Parameters
    ----------
    number
        Its number.
    """

    async def work(redis: Redis, settings: Settings) -> int:
        known = Generations(redis, settings)
        one = await known.mark(await known.get(number), "dropping")
        deleted = 0
        with progress_bar() as bar:
            task = bar.add_task("dropping", total=None, note="")
            async for some in delete_keys(redis, Keys(one.overlaid(settings).store, number)):
                deleted += some
                bar.update(task, note=f"{deleted:,} keys")
        await known.remove(one)
        return deleted

    deleted = run_with_redis(work)
    if json:
        print_json({"generation": number, "keys": deleted})
    else:
        print(f"generation {number} is gone: {deleted:,} keys")


@generations.command
def compare(
    one: Which,
    other: Which,
    /,
    *,
    sample: Annotated[int, Parameter(validator=Number(gte=1))] = 10_000,
    json: Json = False,
) -> None:
    """Say how far two differ, in what they count and in whom they know.

    Parameters
    ----------
    one, other
        Their numbers.
    sample
        Items, and users, of each that are looked at.
    """

    async def work(redis: Redis, settings: Settings) -> dict[str, Any]:
        known = Generations(redis, settings)
        both = await known.get(one), await known.get(other)
        return asdict(await compare_generations(redis, settings, *both, sample))

    found = run_with_redis(work)
    if json:
        print_json({"one": one, "other": other, **found})
        return
    for number, totals in zip((one, other), found["totals"], strict=True):
        print(f"generation {number}: {totals['events']:,} events, {totals['sessions']:,} sessions")
    for name in ("items", "users"):
        part = found[name]
        print(
            f"{name}: {part['looked_at']:,} looked at, {part['equal']:,} the same, "
            f"{part['missing']:,} in one of the two alone"
        )
    print(f"of an item's nearest 20, both have {found['shared_top']:.1%}")


def run_with_redis(work: Callable[[Redis, Settings], Awaitable[T]]) -> T:
    """What `work` returns; a signal ends it, and the process. Raises HeadwaterError."""
    settings = load_settings()
    results: list[T] = []

    async def connected() -> None:
        redis = connect(settings)
        try:
            results.append(await work(redis, settings))
        except RedisError as error:
            raise ServiceError(
                f"Redis at {redacted(settings.redis.url or '')}: {error}; is it up?"
            ) from None
        finally:
            await redis.aclose()

    run_until_signalled(connected)
    if not results:
        raise KeyboardInterrupt
    return results[0]


async def _shown(
    redis: Redis, settings: Settings, one: Generation, live: Generation | None
) -> dict[str, Any]:
    totals = await StoreReader(redis, one.overlaid(settings), one.number).totals()
    latest = totals.get("latest")
    return {
        "generation": one.number,
        "state": "live" if live is not None and live.number == one.number else one.state,
        "created": _time(one.created // 1000),
        "origin": one.origin,
        "events": totals.get("events", 0),
        "latest": None if latest is None else _time(latest),
        "settings": one.settings,
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
