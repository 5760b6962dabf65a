"""Puts the plan of the shipped unit costs into a document: `python -m planning.document DOCUMENT`.

Between the lines `<!-- plan -->` and `<!-- end -->` goes a table of what 100 million daily users
with 10 actions each take.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from config.settings import Settings
from planning.capacity import Configured, Plan, make_plan
from planning.demand import Demand, Machines
from planning.limits import find_limits, grow
from planning.unit_costs import SHIPPED

__all__ = ["fill_in", "main"]

_SECTION = re.compile(r"(<!-- plan -->\n).*?(<!-- end -->)", re.DOTALL)
_DEMAND = Demand(daily_users=100e6, actions_per_user=10)


def fill_in(document: str) -> str:
    """The document with the table of today's code and figures."""
    return _SECTION.sub(lambda section: f"{section[1]}\n{_tables()}\n{section[2]}", document)


def _tables() -> str:
    machines, configured = Machines(), Configured.by(Settings.model_construct())
    plan = make_plan(_DEMAND, machines, configured, SHIPPED)
    limits = find_limits(plan, _DEMAND, machines, SHIPPED)
    growth = grow(_DEMAND, machines, configured, SHIPPED, limits)
    columns = [_column(one) for one in (plan, *(one.needs for one in growth))]
    head = ["", "as asked", *(f"{one.factor} times the users" for one in growth)]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    full = [[one.name, f"{one.full_at:.3g}", one.then, one.mend] for one in limits]
    return (
        _table(head, rows)
        + "\n"
        + _table(["as planned, full first", "at … times the users", "then", "what helps"], full)
    )


def _column(plan: Plan) -> dict[str, str]:
    rates, kafka, redis = plan.rates, plan.kafka, plan.redis
    return {
        "requests/s, average and peak": f"{rates.average_rps:,.0f} / {rates.peak_rps:,.0f}",
        "events/s, average and peak": f"{rates.average_events:,.0f} / {rates.peak_events:,.0f}",
        "Kafka, 30 days and three copies": f"{kafka.storage_bytes / 1e12:,.1f} TB",
        "Kafka in and out, peak": f"{kafka.in_bytes / 1e6:,.0f} / {kafka.out_bytes / 1e6:,.0f} "
        "MB/s",
        "Kafka brokers, partitions": f"{kafka.brokers:,} / {kafka.partitions:,}",
        "Redis memory, one copy": f"{redis.memory_bytes / 1e9:,.0f} GB",
        "Redis cores busy, peak": f"{redis.cores_busy:,.1f}",
        "Redis nodes of 64 GB, replicas included": f"{redis.nodes:,}",
        "workers": f"{plan.workers.count:,}",
        "server processes": f"{plan.servers.count:,}",
        "hours to count the whole log anew": f"{plan.replay_hours:,.0f}",
    }


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: Iterable[str]) -> None:
    """Fill in the document."""
    (document,) = map(Path, arguments)
    document.write_text(fill_in(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
