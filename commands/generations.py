"""`headwater generations`: which views of the log there are, and which one answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from cyclopts import App, Parameter
from cyclopts.validators import Number
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from commands.building import build
from commands.feed import progress_bar
from commands.process import (
    Count,
    Json,
    TenantName,
    print_json,
    run_until_signalled,
)
from config.errors import ServiceError, StoreError
from config.redaction import redacted
from config.settings import Settings, load_settings
from config.tenants import named_tenant
from store.compare import compare as compare_generations
from store.connect import connect
from store.dropping import delete_keys
from store.generation_report import report_generations
from store.generations import Generations
from store.keys import Keys

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
def list_(*, tenant: TenantName = None, json: Json = False) -> None:
    """All of them, the live one marked.

    Parameters
    ----------
    tenant
        Whose they are; of the one that is not named by default.
    """
    found = run_with_redis(report_generations, tenant)
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
    number: Which,
    /,
    *,
    now: Flag = False,
    workers: Count = None,
    tenant: TenantName = None,
    json: Json = False,
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
    tenant
        Whose it is.
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

    events = run_with_redis(work, tenant)
    if json:
        print_json({"generation": number, "state": "live", "events": events})
    else:
        print(f"generation {number} is live, {events:,} events later")


@generations.command
def drop(number: Which, /, *, tenant: TenantName = None, json: Json = False) -> None:
    """Delete one that is not live, little by little; interrupted and called again, go on.

    Parameters
    ----------
    number
        Its number.
    tenant
        Whose it is.
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

    deleted = run_with_redis(work, tenant)
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
    tenant: TenantName = None,
    json: Json = False,
) -> None:
    """Say how far two differ, in what they count and in whom they know.

    Parameters
    ----------
    one, other
        Their numbers.
    sample
        Items, and users, of each that are looked at.
    tenant
        Whose they are.
    """

    async def work(redis: Redis, settings: Settings) -> dict[str, Any]:
        known = Generations(redis, settings)
        both = await known.get(one), await known.get(other)
        return asdict(await compare_generations(redis, settings, *both, sample))

    found = run_with_redis(work, tenant)
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


def run_with_redis(work: Callable[[Redis, Settings], Awaitable[T]], tenant: str | None = None) -> T:
    """What `work` returns for a tenant; a signal ends it all. Raises HeadwaterError."""
    settings = named_tenant(load_settings(), tenant)
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
