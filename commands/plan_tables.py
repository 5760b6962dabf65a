"""A plan as people read it: tables on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Column, Table

from planning.capacity import Plan
from planning.limits import Growth, Limit
from planning.unit_costs import Input

__all__ = ["print_plan"]

_BYTES = (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def print_plan(
    plan: Plan,
    limits: Sequence[Limit],
    growth: Sequence[Growth],
    inputs: Sequence[Input],
    bill: Mapping[str, float] | None,
    notes: Sequence[str],
) -> None:
    """Print all of it: what it takes, what breaks, what it rests on."""
    console = Console(markup=False, highlight=False)
    console.print(_sizes(plan, growth))
    if bill is not None:
        console.print()
        console.print(_bill(bill))
    console.print()
    console.print(_limits(limits))
    for one in growth:
        console.print()
        console.print(_first(one))
    console.print()
    console.print(_inputs(inputs))
    console.print()
    for note in notes:
        console.print(f" {note}")


def _sizes(plan: Plan, growth: Sequence[Growth]) -> Table:
    table = Table("", "as asked", *(f"{one.factor}× the users" for one in growth), box=None)
    plans = [plan, *(one.needs for one in growth)]

    def row(name: str, *values: str) -> None:
        table.add_row(name, *values)

    row("requests/s, average", *(_number(one.rates.average_rps) for one in plans))
    row("requests/s, peak", *(_number(one.rates.peak_rps) for one in plans))
    row("events/s, average", *(_number(one.rates.average_events) for one in plans))
    row("events/s, peak", *(_number(one.rates.peak_events) for one in plans))
    row("Kafka storage, replicas included", *(_bytes(one.kafka.storage_bytes) for one in plans))
    row("Kafka bandwidth in, peak", *(f"{_bytes(one.kafka.in_bytes)}/s" for one in plans))
    row("Kafka bandwidth out, peak", *(f"{_bytes(one.kafka.out_bytes)}/s" for one in plans))
    row("Kafka brokers", *(f"{one.kafka.brokers:,}" for one in plans))
    row("Kafka cores", *(f"{one.kafka.cores:,}" for one in plans))
    row("partitions", *(f"{one.kafka.partitions:,}" for one in plans))
    row("Redis memory, one copy", *(_bytes(one.redis.memory_bytes) for one in plans))
    row("Redis cores busy, peak", *(_number(one.redis.cores_busy) for one in plans))
    row("Redis primaries", *(f"{one.redis.primaries:,}" for one in plans))
    row("Redis nodes, replicas included", *(f"{one.redis.nodes:,}" for one in plans))
    row("workers, a core each", *(f"{one.workers.count:,}" for one in plans))
    row("server processes, a core each", *(f"{one.servers.count:,}" for one in plans))
    row("hours to replay the whole log", *(_number(one.replay_hours) for one in plans))
    return table


def _bill(bill: Mapping[str, float]) -> Table:
    table = Table("a month", "price", box=None)
    for part, price in bill.items():
        table.add_row(part, f"{price:,.0f}")
    return table


def _limits(limits: Sequence[Limit]) -> Table:
    table = Table("what is full first", "at", "then", "what helps", box=None)
    for one in limits:
        table.add_row(one.name, f"{_number(one.full_at)}×", one.then, one.mend)
    return table


def _first(one: Growth) -> str:
    """What breaks overnight, and what in the weeks after, if nothing is added."""
    found = (
        ("breaks first overnight", one.first(at_once=True)),
        ("… with workers and servers autoscaled", one.first(at_once=True, scaled=True)),
        ("breaks first in the weeks after", one.first(at_once=False)),
    )
    return "\n".join(
        f" {one.factor}×, {what}: "
        + (f"{limit.name} (full at {_number(limit.full_at)}×)" if limit else "nothing")
        for what, limit in found
    )


def _inputs(inputs: Sequence[Input]) -> Table:
    table = Table(
        *(
            Column(name, overflow="fold")
            for name in ("made of", "value", "", "source", "what it is")
        ),
        box=None,
    )
    for one in inputs:
        table.add_row(
            one.name, _number(one.value), one.unit, f"{one.kind}: {one.source}", one.meaning
        )
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _bytes(value: float) -> str:
    for unit, size in _BYTES:
        if value >= size:
            return (
                f"{value / size:,.3g} {unit}"
                if value < 1000 * size
                else f"{value / size:,.0f} {unit}"
            )
    return f"{value:,.0f} B"
