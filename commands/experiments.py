"""`headwater experiments`: which there are, and what their variants have led to."""

from __future__ import annotations

import msgspec
from cyclopts import App
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from commands.generations import run_with_redis
from commands.process import Json, print_json
from config.errors import BadInput
from config.experiments import read_experiments
from config.settings import Settings
from serving.experiment_report import Compared, ExperimentReport, Measured, reports
from store.attribution import read_outcomes
from store.generations import Generations
from store.keys import Keys

__all__ = ["experiments"]

experiments = App(
    name="experiments",
    help="Variants of the answers, and what they lead to.",
    version_flags=[],
)


@experiments.command(name="list")
def list_(*, json: Json = False) -> None:
    """All of them: those of the file, and those that something was counted for."""
    found = run_with_redis(_read)
    if json:
        print_json({"experiments": msgspec.to_builtins(found)})
        return
    table = Table("", "state", "variants", "users", "answers", "verdict", box=None)
    for one in found:
        table.add_row(
            one.experiment,
            one.state,
            ", ".join(row.variant for row in one.variants),
            f"{sum(row.users for row in one.variants):,}",
            f"{sum(row.answers for row in one.variants):,}",
            one.verdict,
        )
    Console(markup=False).print(table)


@experiments.command
def show(name: str, /, *, json: Json = False) -> None:
    """What has come of one, variant by variant.

    Parameters
    ----------
    name
        As it stands in the file.
    """
    found = run_with_redis(_read)
    one = next((each for each in found if each.experiment == name), None)
    if one is None:
        known = ", ".join(each.experiment for each in found) or "none yet"
        raise BadInput(f"there is no experiment {name!r}: there are {known}", "name")
    if json:
        print_json(msgspec.to_builtins(one))
        return
    table = Table("", "users", "answers", "clicks", "purchases", box=None)
    for heading in ("click-through", "against the first", "conversion", "against the first"):
        table.add_column(heading)
    for row in one.variants:
        table.add_row(
            row.variant,
            *(f"{count:,}" for count in (row.users, row.answers, row.clicks, row.purchases)),
            _share(row.click_through),
            _against(row.click_through_compared),
            _share(row.conversion),
            _against(row.conversion_compared),
        )
    console = Console(markup=False)
    console.print(f"{one.experiment}: {one.state}")
    console.print(table)
    console.print(one.verdict)


async def _read(redis: Redis, settings: Settings) -> list[ExperimentReport]:
    file = settings.experiments.file
    known = {} if file is None else read_experiments(file, settings)
    live = await Generations(redis, settings).live_or_first(settings)
    counts = await read_outcomes(redis, Keys(live.overlaid(settings).store, live.number))
    return reports(known, counts, settings.experiments.lift)


def _share(one: Measured) -> str:
    if one.rate is None:
        return "–"
    return f"{100 * one.rate:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f})"


def _against(one: Compared | None) -> str:
    if one is None or one.difference is None:
        return "–"
    return f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
