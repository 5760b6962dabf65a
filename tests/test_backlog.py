"""How far behind the store is: the rule against a slow oracle, and readiness over real services."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from confluent_kafka import Producer
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.stack import Stack
from config.daemon import free_port
from config.errors import StreamError
from config.services import Services
from config.settings import Settings, load_settings
from serving.app import make_app
from serving.backlog import Lag
from streams.ends import LogEnds
from streams.producer import RecordProducer
from streams.topics import bootstrap_of, ensure_topics
from tests.conftest import own_settings, wait_until
from tests.live import PROBLEM, HereServer, click, eventually, get, post


def ready(http: aiohttp.ClientSession) -> Any:
    """The answer of /health/ready, with its status."""

    async def ask() -> dict[str, Any]:
        async with http.get("/health/ready") as answer:
            return {"status": answer.status, **await answer.json(content_type=None)}

    return ask()


class TestLag:
    @settings(max_examples=200, deadline=None, print_blob=True)
    @given(seed=st.integers(0, 2**32))
    def test_it_is_the_age_of_the_first_look_at_what_is_missing(self, seed: int) -> None:
        """Records, markers and looks at random; the store reads on at its own pace."""
        random = Random(seed)
        lag = Lag()
        # Of each place of the log: when it came in, and whether it is a record.
        log: dict[int, list[tuple[float, bool]]] = {p: [] for p in range(random.randrange(1, 4))}
        contained = dict.fromkeys(log, -1)
        looked: deque[tuple[float, dict[int, int]]] = deque()
        now = 100.0

        def look() -> float:
            ends = {p: len(places) for p, places in log.items()}
            looked.append((now, ends))
            unsure = lag.see(now, ends, contained)
            ages: dict[int, float] = {}
            for p, at in unsure.items():
                there = [t for t, is_record in log[p][at:] if is_record]
                ages |= {p: now - there[0]} if there else {}
            lag.look(now, unsure, ages)
            told = lag.seconds(now)
            assert told is not None
            return told

        for _ in range(random.randrange(1, 40)):
            now += random.choice([0.5, 1, 7])
            for p, places in log.items():
                for _ in range(random.choice([0, 0, 1, 5])):
                    places.append((now - random.random() / 4, random.random() < 0.7))
                records = [n for n, (_, is_record) in enumerate(places) if is_record]
                lacking = [n for n in records if n > contained[p]]
                if lacking and random.random() < 0.5:
                    contained[p] = random.choice(lacking)
            told = look()
            # What is missing is told as old as the look that saw it first, or older …
            first_seen = [
                next(at for at, seen in looked if seen[p] > n)
                for p, places in log.items()
                for n, (_, is_record) in enumerate(places)
                if is_record and n > contained[p]
            ]
            assert told >= max((now - at for at in first_seen), default=0)
            # … but not older than the log.
            came = [at for places in log.values() for at, _ in places]
            assert told <= now - min(came, default=now)
        if not first_seen:  # markers do not count, once it was looked whether they are markers
            assert look() == 0

    def test_it_grows_while_nothing_is_contained_and_falls_with_the_store(self) -> None:
        lag = Lag()
        assert lag.seconds(5) is None
        assert lag.unseen(5) is None
        for second in range(100):  # 100 records a second come in; the store takes 40
            at = 40 * second - 1
            lag.look(second, lag.see(second, {0: 100 * second}, {0: at}), {0: 0.0})
        # It contains 3,959, where the log's end was at 39.6 s: that of the 39th was contained.
        assert lag.seconds(99) == 99 - 40
        assert lag.see(100, {0: 9_900}, {0: 9_899}) == {}
        assert lag.seconds(100) == 0
        assert lag.unseen(103) == 3

    def test_what_was_there_before_is_as_old_as_the_broker_says(self) -> None:
        lag = Lag()
        unsure = lag.see(10, {0: 5, 1: 5, 2: 5}, {0: -1, 1: 4, 2: 2})
        assert unsure == {0: 0, 2: 3}
        lag.look(10, unsure, {0: 300.0})  # and in partition 2, there are but markers
        assert lag.seconds(10) == 300
        assert lag.see(11, {0: 5, 1: 5, 2: 5}, {0: 4, 1: 4, 2: 2}) == {}
        assert lag.seconds(11) == 0
        assert lag.see(12, {0: 5, 1: 5, 2: 6}, {0: 4, 1: 4, 2: 2}) == {2: 3}

    def test_a_store_that_lost_its_end_is_looked_at_anew(self) -> None:
        lag = Lag()
        lag.see(10, {0: 5}, {0: 4})
        unsure = lag.see(11, {0: 5}, {0: -1})
        assert unsure == {0: 0}
        lag.look(11, unsure, {0: 1000.0})
        assert lag.seconds(12) == 1001

    def test_ends_that_wait_are_bounded_and_rather_too_old(self) -> None:
        lag = Lag()
        for second in range(10_000):
            lag.look(second, lag.see(second, {0: second + 1}, {0: -1}), {0: 0.0})
        assert lag.seconds(10_000) == 10_000
        waiting = lag._partitions[0].ends  # noqa: SLF001 - what the bound is about
        assert len(waiting) < 2_000
        lag.see(10_000, {0: 10_000}, {0: 4_999})
        told = lag.seconds(10_000)
        assert told is not None
        assert 5_000 <= told < 5_050


def ends_of(ends: LogEnds) -> dict[int, int]:
    """Once the partitions of a new topic have leaders."""
    found: dict[int, int] = {}

    def asked() -> bool:
        with contextlib.suppress(StreamError):
            found.update(ends.ends())
        return bool(found)

    wait_until(asked)
    return found


class TestLogEnds:
    def test_ends_and_first_records(self, settings: Settings) -> None:
        topic, bootstrap = settings.kafka.events_topic, bootstrap_of(settings)
        ends = LogEnds(bootstrap, topic)
        assert ends_of(ends) == dict.fromkeys(range(4), 0)
        before = time.time()
        with RecordProducer(bootstrap) as producer:
            for n in range(40):
                producer.publish(topic, b"u%d" % n, b"{}")
        found = ends.ends()
        assert sum(found.values()) == 40
        first = ends.first_at({p: 0 for p, end in found.items() if end})
        assert set(first) == {p for p, end in found.items() if end}
        assert all(before - 1 <= time <= before + 60 for time in first.values())
        assert ends.first_at(found) == {}

    def test_markers_behind_the_last_record_are_nothing(self, settings: Settings) -> None:
        topic, bootstrap = settings.kafka.events_topic, bootstrap_of(settings)
        producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": secrets.token_hex(4),
                "log_level": 2,
            }
        )
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(topic, b"{}", b"u", partition=1)
        producer.commit_transaction(30)
        ends = LogEnds(bootstrap, topic)
        wait_until(lambda: ends_of(ends)[1] == 2, what="the marker")
        assert set(ends.first_at({1: 0, 2: 0})) == {1}
        assert ends.first_at({1: 1}) == {}

    def test_a_kafka_that_is_not_there(self) -> None:
        ends = LogEnds(f"127.0.0.1:{free_port()}", "events")
        started = time.monotonic()
        with pytest.raises(StreamError, match="does not say where events ends"):
            ends.ends()
        with pytest.raises(StreamError):
            ends.first_at({0: 0})
        assert time.monotonic() - started < 8


class TestReadiness:
    async def test_it_does_not_depend_on_workers_telling(
        self, services: Services, tmp_path: Path
    ) -> None:
        """Without any worker, events that come in make it fail, and a worker heals it."""
        settings = own_settings(services, tmp_path, partitions=2, http={"max_lag_seconds": 2})
        async with (
            Stack(settings, workers=0, processes=1, services=services) as stack,
            aiohttp.ClientSession(stack.http_url) as http,
        ):
            told = await ready(http)
            assert (told["status"], told["lag_seconds"], told["events"]) == (200, 0, 0)
            assert told["log_seen_seconds"] < 5
            await post(http, "/v1/events", [click(f"u{n}", "i") for n in range(20)], 202)
            late = await eventually(lambda: ready(http), lambda told: told["status"] == 503)
            assert late["cause"] == "lag"
            assert late["lag_seconds"] > 2
            assert await get(http, "/health/live") == {"live": True}
            stack.start_workers(1)
            well = await eventually(lambda: ready(http), lambda told: told["status"] == 200, 60)
            assert well["events"] == 20
            # A server that begins to look now finds nothing missing.
            async with (
                HereServer(make_app(stack.settings)) as server,
                aiohttp.ClientSession(server.make_url("/")) as other,
            ):
                await eventually(lambda: ready(other), lambda told: told["status"] == 200)

    async def test_a_server_that_begins_behind_an_old_log_says_so(
        self, services: Services, tmp_path: Path
    ) -> None:
        settings = own_settings(services, tmp_path, partitions=2, http={"max_lag_seconds": 1})
        ensure_topics(settings)
        with RecordProducer(bootstrap_of(settings)) as producer:
            producer.publish(settings.kafka.events_topic, b"u", b"{}")
        await asyncio.sleep(1.2)  # what is in the log is to be older than is allowed
        async with (
            HereServer(make_app(settings)) as server,
            aiohttp.ClientSession(server.make_url("/")) as http,
        ):
            told = await eventually(
                lambda: ready(http), lambda told: told.get("cause") != "lag_unknown"
            )
            assert (told["status"], told["cause"]) == (503, "lag")

    async def test_while_kafka_is_away(self, services: Services, tmp_path: Path) -> None:
        """What was known stays known; who never saw the log claims nothing. Events are refused in
        time, and taken again by themselves.
        """
        own = load_settings(
            redis={"url": services.redis_url},
            services={"data_dir": tmp_path / "own"},
            store={"namespace": f"t{secrets.token_hex(6)}"},
            kafka={"partitions": 1},
            http={"port": 0},
        )
        with Services(own) as breakable:
            kafka = breakable.kafka
            assert kafka is not None
            async with (
                Stack(own, workers=0, processes=1, services=breakable) as stack,
                aiohttp.ClientSession(stack.http_url) as http,
            ):
                assert (await ready(http))["status"] == 200
                await asyncio.to_thread(kafka.kill)
                told = await eventually(
                    lambda: ready(http), lambda told: told["log_seen_seconds"] > 3
                )
                assert told["status"] == 200
                started = time.monotonic()
                async with http.post("/v1/events", json=click("u", "i")) as answer:
                    assert answer.status == 503
                    assert answer.content_type == PROBLEM
                    assert int(answer.headers["Retry-After"]) >= 1
                assert time.monotonic() - started < 5
                async with (
                    HereServer(make_app(stack.settings)) as server,
                    aiohttp.ClientSession(server.make_url("/")) as other,
                ):
                    told = await ready(other)
                    assert (told["status"], told["cause"]) == (503, "lag_unknown")
                await asyncio.to_thread(kafka.start)

                async def accepted() -> int:
                    async with http.post("/v1/events", json=click("u", "i")) as answer:
                        return answer.status

                await eventually(accepted, lambda status: status == 202, 60)
                await eventually(lambda: ready(http), lambda told: told["log_seen_seconds"] < 2)
