"""One small run of each measurement, on the services that it starts: every figure is there and
means what it says. How large figures are is nobody's business here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from benchmarks import spike_picture
from benchmarks.fill import fill_store
from benchmarks.fold_step import FoldStep, OnlyUsers
from benchmarks.growth_picture import draw
from benchmarks.helper import Helper
from benchmarks.ingest import sender_setup
from benchmarks.pair_commands import PairCommands
from benchmarks.spike import _normal_after
from benchmarks.tables import TABLES
from benchmarks.workload import make_workload, records
from commands.__main__ import run
from config.errors import BadInput
from config.services import Services
from config.settings import Settings
from store.connect import connect
from store.reader import StoreReader
from streams.columns import hash_id
from streams.records import Record, Records

SHOP = ["--items", "300", "--users", "500"]


@pytest.fixture(autouse=True)
def _costs_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small runs are nothing to plan with."""
    monkeypatch.setenv("HEADWATER_SERVICES__DATA_DIR", str(tmp_path / "data"))


def _bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["bench", *arguments, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1, out
    found: dict[str, Any] = orjson.loads(out)
    assert found["machine"]["cores"]
    if found.get("pinned", True):
        table = TABLES[arguments[0]](found)
        assert len({line.count("|") for line in table.splitlines()}) == 1
    return found


def test_ingest(capsys: pytest.CaptureFixture[str]) -> None:
    found = _bench(capsys, "ingest", *SHOP, "--events", "60000", "--rounds", "1")
    assert found["events_per_second"] > 0
    assert found["events_per_second_together"] > 0
    alone = found["microseconds_per_event"]["alone"]
    if found["pinned"]:
        assert alone["workers"]["median"] > 0
        # On one core, an event cannot take less time than it costs.
        assert alone["workers"]["median"] < 1.3e6 / found["events_per_second"]
    assert found["microseconds_per_event"]["together"]["producer"]["median"] > 0
    # Not compressed; ids, type, time and event_id of the shop take some 120 bytes.
    assert 80 < found["log_bytes_per_event"] < 200
    # `headwater plan` finds what was measured.
    assert run(["plan", "--daily-users", "1e6", "--actions-per-user", "1", "--json"]) == 0
    inputs = orjson.loads(capsys.readouterr().out)["assumptions"]
    (bytes_each,) = [one for one in inputs if one["name"] == "kafka_event_bytes"]
    assert bytes_each["kind"] == "measured here"
    assert bytes_each["value"] == pytest.approx(found["log_bytes_per_event"], rel=0.01)


def test_serve(capsys: pytest.CaptureFixture[str]) -> None:
    found = _bench(capsys, "serve", *SHOP, "--events", "5000", "--rounds", "1", "--seconds", "0.5")
    assert found["requests_per_second"] > 0
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["p999_ms"] <= found["max_ms"]
    assert found["p50_one_connection_ms"] > 0
    assert found["errors"] == 0
    assert found["load"]["ceiling_requests_per_second"] > 0
    assert found["users_known"] <= 500


def test_freshness(capsys: pytest.CaptureFixture[str]) -> None:
    found = _bench(
        capsys, "freshness", *SHOP, "--rate", "200", "--requests", "50", "--probes", "20"
    )
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert found["probes"] == 20
    assert found["background"]["events_per_second"] == pytest.approx(200, rel=0.2)
    assert found["background"]["errors"] == 0


def test_replay(capsys: pytest.CaptureFixture[str]) -> None:
    found = _bench(capsys, "replay", *SHOP, "--events", "60000", "--rounds", "1", "--workers", "2")
    assert found["by_workers"]["2"]["median"] == found["events_per_second"] > 0


def test_memory(capsys: pytest.CaptureFixture[str]) -> None:
    found = _bench(capsys, "memory", "--items", "200", "--users", "2000")
    assert found["events"] == 40_000
    # What Redis says of keys, and what it frees, cannot lie far apart.
    assert found["bytes_per_user"] == pytest.approx(found["memory_usage_per_user"], rel=0.25)
    assert found["bytes_per_item"] > 0.8 * found["memory_usage_per_full_item"]
    assert found["keys_by_kind"]["us"] == 2000
    assert sum(found["bytes_by_kind"].values()) > 2000 * found["bytes_per_user"]


def test_against(capsys: pytest.CaptureFixture[str]) -> None:
    found = _bench(capsys, "against", *SHOP, "--events", "40000", "--rounds", "1", "--seconds", "1")
    assert found["times_as_fast_as"].keys() == {
        "headwater",
        "counting",
        "plain_loop",
        "stock_faust",
        "pair_commands",
    }
    assert found["times_as_fast_as"]["headwater"] == 1
    assert found["spread"]["stock_faust"]["median"] > 0


def test_growth_and_its_picture(capsys: pytest.CaptureFixture[str]) -> None:
    found = _bench(
        capsys,
        *("growth", "--items", "200", "--users", "500", "--users", "1500", "--workers", "1"),
        *("--filled", "5000", "--events", "30000", "--rounds", "1", "--seconds", "0.5"),
    )
    assert [one["users"] for one in found["by_users"]] == [500, 1500]
    assert [one["items"] for one in found["by_items"]] == [200]
    assert [one["workers"] for one in found["by_workers"]] == [1]
    if found["pinned"]:
        assert found["greatest_by_least"]["event_by_users"] >= 1
        picture = draw(found)
        assert picture.startswith("<svg")
        assert "1,500" in picture
    with pytest.raises(BadInput, match="growth"):
        draw({})


def test_spike_and_its_picture(capsys: pytest.CaptureFixture[str]) -> None:
    found = _bench(
        capsys,
        *("spike", *SHOP, "--rate", "100", "--requests", "20", "--times", "5"),
        *("--calm", "3", "--rush", "4", "--after", "8"),
    )
    assert found["events"] == 300 + 2000 + 800
    assert [one["factor"] for one in found["stages"]] == [1, 5, 1]
    asked = [one["answered_per_second"] + one["failed_per_second"] for one in found["stages"]]
    assert asked == pytest.approx([20, 100, 20], rel=0.15)
    assert sum(found["by_second"]["answered"] + found["by_second"]["failed"]) == 60 + 400 + 160
    assert found["lost"] == found["doubled"] == 0
    assert len(found["freshness"]) == 15
    assert found["most_behind"] == max(behind for _, behind in found["backlog"])
    picture = spike_picture.draw(found)
    assert picture.startswith("<svg")
    assert "5 times as many" in picture
    with pytest.raises(BadInput, match="spike"):
        spike_picture.draw({})


def test_when_all_is_as_before_again() -> None:
    stages = [(1.0, 4.0), (10.0, 2.0), (1.0, 12.0)]
    seconds = {
        "answered": [10.0] * 18,
        "failed": [0.0] * 4 + [50.0] * 3 + [0.0] * 11,
        "degraded": [0.0] * 18,
        "p99_ms": [30.0] * 4 + [900.0] * 4 + [61.0, 59.0] + [30.0] * 8,
    }
    backlog = [(at / 2, 5000 if 8 <= at < 22 else 10) for at in range(36)]
    # Failures end at 7 s, p99 is right from 9 s on, and the worker has caught up at 11 s.
    assert _normal_after(stages, seconds, backlog, 100) == 5
    assert _normal_after(stages, {**seconds, "degraded": [1.0] * 18}, backlog, 100) is None


# -- parts that need services ---------------------------------------------------------------------


async def test_the_sender_sends_every_event_once_to_its_users_partition(
    settings: Settings,
) -> None:
    load = make_workload(3000, 50, 40, 5)
    setup = sender_setup(settings, events=3000, items=50, users=40, seed=5)
    async with Helper("benchmarks.sender", setup) as sender:
        first = await sender.ask({"events": 1000})
        second = await sender.ask({"events": 2000, "rate": 10_000})
    assert first["events"] + second["events"] == 3000
    assert second["end"] - second["begin"] >= 0.15
    assert first["end"] <= second["begin"]
    topic = settings.kafka.events_topic
    consumer = Consumer({"bootstrap.servers": settings.kafka.bootstrap, "group.id": "t"})
    try:
        partitions = consumer.list_topics(topic).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        found: list[Message] = []
        while len(found) < 3000:
            found += consumer.consume(3000, 1)
    finally:
        consumer.close()
    wanted = [key for key, _ in records(load)]
    assert sorted(one.key() or b"" for one in found) == sorted(wanted)
    of_user = {(one.key(), one.partition()) for one in found}
    assert len(of_user) == len(set(wanted))
    assert len({partition for _, partition in of_user}) == len(partitions)


async def test_filling_writes_what_counting_the_records_does(
    settings: Settings, services: Services
) -> None:
    load = make_workload(2000, 30, 50, 6)
    filled = _with_namespace(settings, "a")
    counted = _with_namespace(settings, "b")
    await fill_store(filled, load)
    redis = connect(settings)
    try:
        step = FoldStep(counted, redis)
        now = int(load.time[-1])
        made = [Record(n, now, *record) for n, record in enumerate(records(load))]
        await step.apply("events", 0, step.decode(Records.of(made)))
        one, other = StoreReader(redis, filled), StoreReader(redis, counted)
        assert await one.totals() == await other.totals()
        for number in range(30):
            item = hash_id(f"item-{number}")
            assert await one.counts(item) == await other.counts(item)
            a, b = await one.item(item), await other.item(item)
            assert a.neighbour.tolist() == b.neighbour.tolist()
            assert np.allclose(a.forward, b.forward)
        for number in range(50):
            user = hash_id(f"user-{number}")
            a_user, b_user = await one.history(user), await other.history(user)
            assert a_user.item.tolist() == b_user.item.tolist()
            assert a_user.time.tolist() == b_user.time.tolist()
    finally:
        await redis.aclose()


async def test_users_alone_are_filled_from_a_number_on(settings: Settings) -> None:
    own = _with_namespace(settings, "c")
    load = make_workload(300, 20, 100, 7, session_length=3, first_user=1000)
    await fill_store(own, load, "quiet", OnlyUsers)
    redis = connect(own)
    try:
        reader = StoreReader(redis, own)
        assert len((await reader.history(hash_id("user-1000"))).item) == 3
        assert len((await reader.history(hash_id("user-0"))).item) == 0
        assert await reader.counts(hash_id("item-0")) == (0, 0)
    finally:
        await redis.aclose()


async def test_pair_commands_add_up_to_the_same_counts(settings: Settings) -> None:
    own = _with_namespace(settings, "d")
    load = make_workload(500, 20, 30, 8)
    redis = connect(own)
    try:
        step = FoldStep(own, redis)
        pairs = PairCommands(_with_namespace(settings, "e"), redis)
        made = [Record(n, int(load.time[-1]), *record) for n, record in enumerate(records(load))]
        for one in (step, pairs):
            await one.apply("events", 0, one.decode(Records.of(made)))
        item = hash_id("item-0")
        lists = await StoreReader(redis, own).item(item)
        key = b"bench-pairs:n" + item.to_bytes(8, "little")
        pairs_stored: Any = await redis.zrange(key, 0, -1, withscores=True)
        stored = dict(pairs_stored)
        wanted = lists.forward + lists.backward
        assert len(stored) == len(lists.neighbour) > 0
        for neighbour, weight in zip(lists.neighbour.tolist(), wanted.tolist(), strict=True):
            assert stored[neighbour.to_bytes(8, "little")] == pytest.approx(weight, rel=1e-3)
    finally:
        await redis.delete(*[key async for key in redis.scan_iter(match=b"bench-pairs:*")])
        await redis.aclose()


def _with_namespace(settings: Settings, name: str) -> Settings:
    store = settings.store.model_copy(update={"namespace": settings.store.namespace[:8] + name})
    return settings.model_copy(update={"store": store})
