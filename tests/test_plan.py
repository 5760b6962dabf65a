"""`headwater plan`: known answers, what must rise with what, and where numbers come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.__main__ import run
from config.errors import SettingsError
from planning.capacity import ASSUMED, Configured, Plan, make_plan, money
from planning.costs_file import read_costs, write_costs
from planning.demand import Demand, Machines, Prices
from planning.limits import MOST_SHARDS, find_limits, grow
from planning.shipped import main as ship
from planning.unit_costs import SHIPPED, costs_of

ROOT = Path(__file__).parent.parent
CONFIGURED = Configured(history=50, shards=2, partitions=8)
HERE: dict[str, str | int] = {"cpu": "one", "cores": 2, "memory_gb": 24, "system": "Linux"}
BIG = ["--daily-users", "100e6", "--actions-per-user", "10"]

# Round numbers, so that answers can be had by hand.
COSTS = {
    name: replace(SHIPPED[name], value=value)
    for name, value in {
        "worker_event_us": 10.0,
        "redis_event_us": 5.0,
        "kafka_event_us": 2.0,
        "kafka_event_bytes": 100.0,
        "server_request_us": 200.0,
        "redis_request_us": 20.0,
        "user_bytes": 490.0,
        "item_bytes": 2500.0,
        "event_growth": 2.0,
        "request_growth": 1.5,
    }.items()
}


def test_a_known_answer() -> None:
    """864 million actions a day are 10,000 a second, 20,000 at the peak."""
    demand = Demand(
        daily_users=86.4e6, actions_per_user=10, items=1e6, peak=2, known_users=100e6
    ).check()
    machines = Machines(
        retention_days=10, replication=3, broker_disk_gb=1000, redis_node_gb=100
    ).check()
    plan = make_plan(demand, machines, CONFIGURED, COSTS)
    rates = plan.rates
    assert (rates.average_rps, rates.peak_rps) == (10_000, 20_000)
    assert (rates.average_events, rates.peak_events) == (10_000, 20_000)
    # 20,000 × 10 µs × 2 are 0.4 cores; at half of their time, 0.8: two, for one may fail.
    assert plan.workers.cores_busy == pytest.approx(0.4)
    assert plan.workers.count == 2
    # 20,000 × 200 µs × 1.5 are 6 cores; at 70 % of each, 8.57.
    assert plan.servers.cores_busy == pytest.approx(6)
    assert plan.servers.count == 9
    # 10,000 × 86,400 × 10 days × 100 bytes × 3.
    assert plan.kafka.storage_bytes == pytest.approx(2.592e12)
    assert plan.kafka.in_bytes == pytest.approx(6e6)
    assert plan.kafka.out_bytes == pytest.approx(8e6)  # two replicas, two readers
    assert plan.kafka.brokers == 4  # 2,592 GB over 700 GB of each
    # Ten times the peak takes 8 workers; there are 8 partitions anyway.
    assert plan.kafka.partitions == 8
    # A user with 50 events: 490 + 30 × 17 = 1,000 bytes; an item 3,000; all of it twice.
    assert plan.redis.user_bytes == 1000
    assert plan.redis.memory_bytes == pytest.approx(2 * (100e9 + 3e9))
    # 206 GB over 60 GB of each.
    assert (plan.redis.primaries, plan.redis.nodes, plan.redis.shards) == (4, 8, 4)
    # 20,000 × 5 µs × 2 + 20,000 × 20 µs × 1.5.
    assert plan.redis.cores_busy == pytest.approx(0.2 + 0.6)
    # 8.64e9 events at 2 workers × 50,000 a second.
    assert plan.replay_hours == pytest.approx(24)

    limits = {one.name: one for one in find_limits(plan, demand, machines, COSTS)}
    full = {name: one.full_at for name, one in limits.items()}
    assert full["server processes"] == pytest.approx(1.5)
    assert full["workers"] == pytest.approx(5)
    assert full["partitions"] == pytest.approx(20)
    assert full["Redis processors"] == pytest.approx(5)
    assert full["Redis memory"] == pytest.approx((240 - 6) / 200)
    assert full["store.shards"] == pytest.approx((MOST_SHARDS * 60 - 6) / 200)
    assert full["Kafka network"] == pytest.approx(50)
    assert full["Kafka disks"] == pytest.approx(4000 / 2592)

    (ten,) = grow(demand, machines, CONFIGURED, COSTS, list(limits.values()), [10])
    assert ten.needs == make_plan(demand.times(10), machines, CONFIGURED, COSTS)
    overnight, scaled = ten.first(at_once=True), ten.first(at_once=True, scaled=True)
    weeks = ten.first(at_once=False)
    assert overnight
    assert overnight.name == "server processes"
    assert scaled
    assert scaled.name == "Redis processors"
    assert weeks
    assert weeks.name == "Redis memory"


def test_a_known_bill() -> None:
    demand = Demand(daily_users=86.4e6, actions_per_user=10, peak=2, known_users=100e6)
    machines = Machines(retention_days=10, broker_disk_gb=1000, redis_node_gb=100)
    plan = make_plan(demand, machines, CONFIGURED, COSTS)
    assert money(plan, machines, Prices()) is None
    bill = money(plan, machines, Prices(core_price=10, memory_gb_price=2, disk_gb_price=0.1))
    assert bill == pytest.approx(
        {
            "servers": 90,
            "workers": 20,
            "kafka": 4 * 10 + 4 * 1000 * 0.1,
            "redis": 8 * (2 * 10 + 100 * 2),
            "total": 90 + 20 + 440 + 1760,
        }
    )


# -- what must rise with what ----------------------------------------------------------------------

_MORE = st.floats(1, 1000)
demands = st.builds(
    Demand,
    daily_users=st.floats(1, 1e9),
    actions_per_user=st.floats(0.01, 1000),
    items=st.floats(1, 1e8),
    peak=st.floats(1, 100),
    events_per_action=st.floats(0.01, 10),
    requests_per_action=st.floats(0.01, 10),
)
fleets = st.builds(
    Machines,
    retention_days=st.floats(1, 365),
    replication=st.integers(1, 7),
    broker_disk_gb=st.floats(10, 1e5),
    redis_node_gb=st.floats(1, 1e4),
    redis_replicas=st.integers(0, 5),
)


def _whole(plan: Plan) -> dict[str, int]:
    return {
        "partitions": plan.kafka.partitions,
        "brokers": plan.kafka.brokers,
        "kafka cores": plan.kafka.cores,
        "primaries": plan.redis.primaries,
        "nodes": plan.redis.nodes,
        "shards": plan.redis.shards,
        "workers": plan.workers.count,
        "servers": plan.servers.count,
    }


def _not_below(more: Plan, less: Plan) -> None:
    for name, count in _whole(more).items():
        assert count >= _whole(less)[name], name
    assert more.kafka.storage_bytes >= less.kafka.storage_bytes
    assert more.redis.memory_bytes >= less.redis.memory_bytes


@given(demands, fleets)
def test_whole_and_enough(demand: Demand, machines: Machines) -> None:
    """Nothing is a fraction, negative or busier than is allowed."""
    plan = make_plan(demand.check(), machines.check(), CONFIGURED, SHIPPED)
    for name, count in _whole(plan).items():
        assert isinstance(count, int), name
        assert count >= 1, name
    share = {name: one.value for name, one in ASSUMED.items()}
    near = 1 + 1e-9
    assert plan.workers.cores_busy <= near * share["worker_busy"] * plan.workers.count
    assert plan.servers.cores_busy <= near * share["server_busy"] * plan.servers.count
    assert plan.redis.cores_busy <= near * share["redis_busy"] * plan.redis.primaries
    room = plan.redis.primaries * machines.redis_node_gb * 1e9 * share["redis_full"]
    assert plan.redis.memory_bytes <= near * room
    assert plan.redis.primaries not in (0, 2)
    assert plan.kafka.brokers >= machines.replication
    assert plan.kafka.partitions >= plan.workers.count
    for one in find_limits(plan, demand, machines, SHIPPED):
        assert math.isfinite(one.full_at)
        if one.name != "store.shards":
            assert one.full_at >= 1 / near, one.name


@given(demands, fleets, st.data())
def test_more_of_anything_takes_no_less(
    demand: Demand, machines: Machines, data: st.DataObject
) -> None:
    name = data.draw(
        st.sampled_from(
            [
                "daily_users",
                "actions_per_user",
                "items",
                "peak",
                "events_per_action",
                "requests_per_action",
            ]
        )
    )
    more = replace(demand, **{name: getattr(demand, name) * data.draw(_MORE)})
    less = make_plan(demand, machines, CONFIGURED, SHIPPED)
    _not_below(make_plan(more, machines, CONFIGURED, SHIPPED), less)


@given(demands, st.sampled_from(sorted(SHIPPED)), _MORE)
def test_dearer_costs_take_no_less(demand: Demand, name: str, more: float) -> None:
    dearer = {**SHIPPED, name: replace(SHIPPED[name], value=more * SHIPPED[name].value)}
    less = make_plan(demand, Machines(), CONFIGURED, SHIPPED)
    _not_below(make_plan(demand, Machines(), CONFIGURED, dearer), less)


@given(demands, fleets, st.integers(2, 100))
def test_what_does_not_break_is_enough(demand: Demand, machines: Machines, factor: int) -> None:
    """Where nothing is full at so many times the users, no part is asked to do more than it can."""
    plan = make_plan(demand, machines, CONFIGURED, SHIPPED)
    limits = find_limits(plan, demand, machines, SHIPPED)
    (found,) = grow(demand, machines, CONFIGURED, SHIPPED, limits, [factor])
    full = {one.name for one in found.breaks}
    assert full == {one.name for one in limits if one.full_at < factor}
    needs = found.needs
    if "server processes" not in full:
        assert needs.servers.cores_busy <= plan.servers.count * (1 + 1e-9)
    else:
        assert needs.servers.cores_busy > plan.servers.count * (1 - 1e-9)
    if "workers" in full:
        assert needs.workers.cores_busy > plan.workers.count * (1 - 1e-9)
    assert [one.full_at for one in found.breaks] == sorted(one.full_at for one in found.breaks)


# -- where numbers come from -----------------------------------------------------------------------


def test_shipped_costs_are_those_of_the_page() -> None:
    """What the plan rests on stands in docs/performance.md."""
    page = (ROOT / "docs/performance.md").read_text()

    def cell(row: str, column: int) -> float:
        line = next(line for line in page.splitlines() if line.startswith(f"| {row}"))
        text = line.split("|")[1 + column].strip().strip("*").split("(")[0].strip()
        return float(text.removesuffix(" µs").replace(",", ""))

    shown = {
        "worker_event_us": 1e6 / cell("worker alone on a core", 1),
        "redis_event_us": cell("worker alone on a core", 3),
        "kafka_event_us": cell("all on all cores", 4),
        "server_request_us": 1e6 / cell("requests/s, closed loop", 1),
        "redis_request_us": cell("processor time a request, redis", 1),
        "user_bytes": cell("a user with 20 events", 1),
        "item_bytes": cell("an item with 100 neighbours", 1),
        "event_growth": max(cell(f"greatest by least, {a}", 1) for a in ("items", "users")),
        "request_growth": max(cell(f"greatest by least, {a}", 3) for a in ("items", "users")),
        "kafka_event_bytes": cell("worker alone on a core", 6),
    }
    assert shown.keys() == SHIPPED.keys()
    for name, value in shown.items():
        assert SHIPPED[name].value == pytest.approx(value, rel=0.02), name


def _ingest(**more: Any) -> dict[str, Any]:
    median = {"min": 1.0, "median": 3.0, "max": 9.0}
    return {
        "events_per_second": 100_000,
        "microseconds_per_event": {
            "alone": {"workers": median, "redis": median},
            "together": {"kafka": {**median, "median": 2.5}},
        },
        "log_bytes_per_event": 140.5,
        "workers": 1,
        "rounds": 5,
        "events": 600_000,
        "machine": dict(HERE),
        **more,
    }


def test_costs_are_taken_from_what_benches_find() -> None:
    assert costs_of("ingest", _ingest()) == {
        "worker_event_us": 10.0,
        "redis_event_us": 3.0,
        "kafka_event_us": 2.5,
        "kafka_event_bytes": 140.5,
    }
    # Several workers on one machine take each other's time.
    assert costs_of("ingest", _ingest(workers=2)) == {}
    bare = _ingest(microseconds_per_event={"alone": {}, "together": {}})
    assert costs_of("ingest", bare) == {"worker_event_us": 10.0, "kafka_event_bytes": 140.5}
    assert costs_of("memory", {"bytes_per_user": 400, "bytes_per_item": 2000}) == {
        "user_bytes": 400,
        "item_bytes": 2000,
    }
    ratios = {"event_by_items": 1.5, "event_by_users": 1.7, "request_by_items": 1.2}
    assert costs_of("growth", {"greatest_by_least": ratios}) == {
        "event_growth": 1.7,
        "request_growth": 1.2,
    }
    asked = {"requests_per_second": 5000, "microseconds_per_request": {"redis": {"median": 14.5}}}
    assert costs_of("serve", asked) == {"server_request_us": 200.0, "redis_request_us": 14.5}
    assert costs_of("serve", {"requests_per_second": 5000}) == {}  # --overload
    assert costs_of("freshness", {"p50_ms": 1}) == {}


def test_make_bench_ships_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "ingest.json").write_bytes(orjson.dumps(_ingest()))
    (tmp_path / "replay.json").write_bytes(b"{}")
    made = tmp_path / "made" / "shipped.json"
    made.parent.mkdir()
    ship([str(tmp_path), str(made)])
    found = orjson.loads(made.read_bytes())
    assert list(found) == list(SHIPPED)
    assert found["worker_event_us"] == 10
    assert found["server_request_us"] == SHIPPED["server_request_us"].value


def test_measured_costs_go_over_shipped_ones_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "new" / "costs.json"
    now = datetime(2026, 11, 28, tzinfo=UTC)
    assert write_costs(path, "freshness", {}, now) == []
    assert not path.exists()
    assert len(write_costs(path, "ingest", _ingest(), now)) == 4
    memory = {"bytes_per_user": 400, "bytes_per_item": 2000, "machine": dict(HERE)}
    write_costs(path, "memory", memory, now)
    here = read_costs(path, HERE)
    assert here["worker_event_us"].value == 10
    assert here["worker_event_us"].kind == "measured here"
    assert "bench ingest, 2026-11-28 (600,000 events, 5 rounds)" in here["worker_event_us"].source
    assert here["user_bytes"].value == 400
    assert here["server_request_us"] == SHIPPED["server_request_us"]
    elsewhere = read_costs(path, {**HERE, "cores": 4})["user_bytes"]
    assert elsewhere.kind == "measured elsewhere"
    assert "on one, 2 cores" in elsewhere.source
    assert read_costs(None, HERE) == SHIPPED
    assert list(tmp_path.glob("new/*")) == [path]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"costs": {"a": 1}}',
        '{"costs": {"user_bytes": {"value": -1, "unit": "", "bench": "", "date": '
        '"2026-11-28T00:00:00Z", "sizes": {}, "machine": {}}}}',
        '{"costs": {"unknown": {"value": 1, "unit": "", "bench": "", "date": '
        '"2026-11-28T00:00:00Z", "sizes": {}, "machine": {}}}}',
    ],
)
def test_a_file_that_is_none_of_costs(tmp_path: Path, text: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"costs\.json"):
        read_costs(path, HERE)


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_SERVICES__DATA_DIR", str(tmp_path / "data"))


def _plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["plan", *arguments, "--json"]) == 0
    found: dict[str, Any] = orjson.loads(capsys.readouterr().out)
    return found


def test_a_hundred_million_users(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = _plan(capsys, *BIG)
    assert found["average_rps"] == 11_574
    assert found["peak_rps"] == 34_722
    assert found["growth"]["10"]["needs"]["average_rps"] == 115_741
    assert found["growth"]["100"]["needs"]["average_rps"] == 1_157_407
    assert found["growth"]["10"]["breaks_first"] == "server processes"
    assert found["cost_per_month"] is None
    assert any("Redis Cluster" in note for note in found["notes"])
    inputs = {one["name"]: one for one in found["assumptions"]}
    assert inputs.keys() >= {*SHIPPED, *ASSUMED, "daily_users", "peak", "known_users"}
    assert all(one["kind"] and one["source"] and one["meaning"] for one in inputs.values())
    assert {inputs[name]["kind"] for name in SHIPPED} == {"shipped"}
    # What was measured here since is taken, and said to be.
    write_costs(tmp_path / "data" / "costs.json", "ingest", _ingest(), datetime.now(UTC))
    measured: Mapping[str, Any] = {one["name"]: one for one in _plan(capsys, *BIG)["assumptions"]}
    assert measured["worker_event_us"]["value"] == 10
    assert measured["worker_event_us"]["kind"].startswith("measured")
    assert measured["server_request_us"]["kind"] == "shipped"


def test_people_read_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *BIG, "--core-price", "20"]) == 0
    out = capsys.readouterr().out
    for said in ("11,574", "1,157,407", "Redis memory", "10×", "assumed", "shipped", "total"):
        assert said in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--daily-users", "0"], "--daily-users 0 is not possible"),
        (["--daily-users", "nan"], "--daily-users nan"),
        (["--daily-users", "-5"], "--daily-users -5"),
        (["--daily-users", "many"], "--daily-users"),
        (["--daily-users", "1e30"], "--daily-users 1e+30"),
        (["--actions-per-user", "inf"], "--actions-per-user inf"),
        (["--peak", "0.5"], "--peak 0.5 is not possible: allowed is 1 to 1,000"),
        (["--items", "0"], "--items 0"),
        (["--known-users", "5"], "--known-users 5"),
        (["--replication", "2.5"], "--replication 2.5"),
        (["--redis-replicas", "-1"], "--redis-replicas -1"),
        (["--retention-days", "0"], "--retention-days 0"),
        (["--core-price", "-1"], "--core-price -1"),
        (["--costs", "nowhere.json"], "--costs nowhere.json"),
        (["--hats", "3"], "--hats"),
    ],
)
def test_what_is_not_possible_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    usual = {"--daily-users": "1e6", "--actions-per-user": "10"}
    given = usual | dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert run(["plan", *(part for pair in given.items() for part in pair)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert said in captured.err
