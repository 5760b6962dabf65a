"""Puts measured figures into a document: `python -m benchmarks.tables FOLDER DOCUMENT`.

FOLDER holds what `headwater bench NAME --json` printed as NAME.json. Between the lines
`<!-- figures: NAME -->` and `<!-- end -->` of the document goes a table of it; sections without a
result stay as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

__all__ = ["TABLES", "fill_in", "main"]

_SECTION = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_AXES = ("items", "users", "workers")

Result = Mapping[str, Any]


def _range(found: Mapping[str, float], unit: str = "") -> str:
    """Median, and in brackets least to greatest."""
    one, least, most = (f"{found[name]:,.10g}" for name in ("median", "min", "max"))
    return f"{one}{unit} ({least} to {most})"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _each(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Microseconds of worker, Redis, Kafka and producer; a dash where nobody tells."""
    names = ("workers", "redis", "kafka", "producer")
    return [f"{found[n]['median']:.1f}" if n in found else "–" for n in names]


def _ingest(result: Result) -> str:
    costs = result["microseconds_per_event"]
    told = {"alone": "worker alone on a core", "together": "all on all cores, producer too"}
    size = f"{result['log_bytes_per_event']:.1f}"
    rows = [[told[n], _range(result["spread"][n]), *_each(costs[n]), size] for n in told]
    names = ("worker µs", "Redis µs", "Kafka µs", "producer µs", "bytes in Kafka's log")
    return _table(["", "events/s", *names], rows)


def _against(result: Result) -> str:
    told = {
        "headwater": "Headwater, learning",
        "counting": "Headwater, counting alone",
        "plain_loop": "the same fold, plain confluent-kafka loop",
        "stock_faust": "the same fold, stock Faust, `take(2000)`",
        "pair_commands": "plain loop, one Redis command for each pair",
    }
    costs, times = result["microseconds_per_event"], result["times_as_fast_as"]
    rows = [
        [told[n], _range(result["spread"][n]), f"{times[n]:g}", *_each(costs[n])[:3]] for n in told
    ]
    return _table(
        ["", "events/s", "Headwater is … times as fast", "worker µs", "Redis µs", "Kafka µs"], rows
    )


def _replay(result: Result) -> str:
    costs = result["microseconds_per_event"]
    rows = [[n, _range(one), *_each(costs[n])[:3]] for n, one in result["by_workers"].items()]
    return _table(["workers", "events/s", "worker µs", "Redis µs", "Kafka µs"], rows)


def _serve(result: Result) -> str:
    spread, costs = result["spread"], result["microseconds_per_request"]
    waits, single = spread["open_loop_ms"], spread["one_connection_ms"]
    rows = [
        ["requests/s, closed loop", _range(spread["requests_per_second"])],
        *([f"open loop at 70 %, {n[:-3]}", _range(one, " ms")] for n, one in waits.items()),
        ["one connection, p50", _range(single["p50_ms"], " ms")],
        *([f"processor time a request, {n}", _range(one, " µs")] for n, one in costs.items()),
        ["the load's share of a core", f"{result['load']['share_of_a_core']:.0%}"],
        ["what the load can ask at most", f"{result['load']['ceiling_requests_per_second']:,}/s"],
    ]
    return _table(["", "median (least to greatest round)"], rows)


def _freshness(result: Result) -> str:
    beside, shares = result["background"], result["share_of_a_core"]
    rows = [[n[:-3], f"{result[n]:g} ms"] for n in result if n.endswith("_ms")]
    rows += [
        [f"beside it, {n.replace('_per_', ' per ').replace('_', ' ')}", f"{beside[n]:,}"]
        for n in ("events_per_second", "requests_per_second")
    ]
    rows += [[f"share of a core, {n}", f"{share:.0%}"] for n, share in shares.items()]
    return _table(["event sent to visible", ""], rows)


def _memory(result: Result) -> str:
    names = ("bytes_per_user", "memory_usage_per_user")
    full = ("bytes_per_item", "memory_usage_per_full_item")
    rows = [
        ["a user with 20 events", *(f"{result[name]:,}" for name in names)],
        [
            f"an item with {result['neighbours_per_item']:g} neighbours, and its trending",
            *(f"{result[name]:,}" for name in full),
        ],
    ]
    return _table(["", "bytes of `used_memory`", "`MEMORY USAGE` of its keys"], rows)


def _growth(result: Result) -> str:
    def cost(one: Result, what: str, digits: int) -> str:
        found = one.get(f"{what}_microseconds")
        return f"{found:.{digits}f}" if found else "–"

    rows = []
    for axis in _AXES:
        for one in result[f"by_{axis}"]:
            rows.append(
                [
                    f"{one[axis]:,} {axis}",
                    cost(one, "event", 1),
                    f"{one['events_per_second']:,.0f}",
                    cost(one, "request", 0),
                    cost(one, "live_event", 1),
                ]
            )
        ratios = result["greatest_by_least"]
        event, request, live = (
            f"**{ratios.get(f'{what}_by_{axis}') or '–'}**"
            for what in ("event", "request", "live_event")
        )
        rows.append([f"greatest by least, {axis}", event, "", request, live])
    names = ["µs an event", "events/s", "µs a request", "µs an event at 10,000/s"]
    return _table(["", *names], rows)


def _spike(result: Result) -> str:
    names = ("before", "ten times" if result["stages"][1]["factor"] == 10 else "rush", "after")
    told = {
        "requests answered a second": ("answered_per_second", ""),
        "… of which degraded": ("degraded_per_second", ""),
        "requests refused a second": ("failed_per_second", ""),
        "p50 of answers": ("p50_ms", " ms"),
        "p99 of answers": ("p99_ms", " ms"),
        "event sent to visible, median": ("freshness_p50_ms", " ms"),
        "event sent to visible, longest": ("freshness_max_ms", " ms"),
        "events behind, at most": ("most_behind", ""),
    }
    rows = [
        ["seconds", *(f"{one['seconds']:g}" for one in result["stages"])],
        ["events sent a second", *(f"{one:,}" for one in result["events_per_second"])],
        *(
            [name, *(f"{one[field]:,.10g}{unit}" for one in result["stages"])]
            for name, (field, unit) in told.items()
        ),
    ]
    after = result["normal_after_seconds"]
    normal = "not within the time" if after is None else f"{after} s after the rush"
    lost = f"{result['events']:,} sent, lost {result['lost']}, doubled {result['doubled']}"
    rows += [["everything as before", normal, "", ""], ["counted in the end", lost, "", ""]]
    return _table(["", *names], rows)


def _regions(result: Result) -> str:
    mirror, agreement = result["mirror_ms"], result["agreement"]
    east, west = result["asked"]["east"], result["asked"]["west"]
    asked = sum(sum(one[part] for part in ("answered", "moved", "failed")) for one in (east, west))
    rows = [
        ["events, in both", f"{result['events']:,}"],
        ["from one region's log to the other's, p50", f"{mirror['p50']:g} ms"],
        ["… p99", f"{mirror['p99']:g} ms"],
        ["confirmed by the lost region", f"{result['confirmed_when_lost']:,}"],
        ["… of which the other one lacked", f"{result['not_mirrored_when_lost']:,}"],
        ["RPO: the oldest of these was so old", f"{result['rpo_seconds']:g} s"],
        ["RTO: first answer to one of its users from the other", f"{result['rto_seconds']:g} s"],
        ["requests, in both", f"{asked:,}"],
        ["… answered by the other region", f"{west['moved']:,}"],
        ["… answered by none", f"{east['failed'] + west['failed']:,}"],
        [
            "lost region, from its start to its first answer and a mirror that runs",
            f"{result['back_seconds']:g} s",
        ],
        ["from then until both had counted everything", f"{result['agreed_seconds']:g} s"],
        ["lost, doubled in the end", f"{result['lost']}, {result['doubled']}"],
        ["nearest 20 of an item that both have", f"{100 * agreement['shared_top']:.2f} %"],
        ["items with the same counts", _of(agreement["items_equal"], agreement["items"])],
        ["users with the same history", _of(agreement["users_equal"], agreement["users"])],
    ]
    return _table(["two regions, one lost", ""], rows)


def _rebalance(result: Result) -> str:
    def pause(found: Mapping[str, float]) -> str:
        return f"{found['median']:,.0f} ms ({found['max']:,.0f})" if found else "–"

    rows = [
        [
            one["what"],
            _of(one["moved"], result["partitions"]),
            *(pause(one[name]) for name in ("calm_ms", "stayed_ms", "moved_ms")),
            f"{one['settled_seconds']:g} s",
        ]
        for one in result["changes"]
    ]
    head = ("partitions that move", "pause of any before it", "of those that stay", "that move")
    return _table(["", *head, "settled after"], rows)


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}"


TABLES: dict[str, Callable[[Result], str]] = {
    "ingest": _ingest,
    "against": _against,
    "replay": _replay,
    "serve": _serve,
    "freshness": _freshness,
    "memory": _memory,
    "growth": _growth,
    "spike": _spike,
    "regions": _regions,
    "rebalance": _rebalance,
}
"""What makes the table of each measurement."""


def fill_in(document: str, results: Mapping[str, Result]) -> str:
    """The document with tables of the results that there are."""

    def table(section: re.Match[str]) -> str:
        name = section[2]
        if name not in results:
            return section[0]
        return f"{section[1]}\n{TABLES[name](results[name])}\n{section[3]}"

    return _SECTION.sub(table, document)


def main(arguments: Iterable[str]) -> None:
    """Fill in the document from the folder."""
    folder, document = map(Path, arguments)
    results = {
        name: orjson.loads(path.read_bytes())
        for name in TABLES
        if (path := folder / f"{name}.json").exists()
    }
    document.write_text(fill_in(document.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
