"""A worker that shares no folder with a server tells Prometheus its own numbers."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time

import aiohttp
import pytest
from confluent_kafka import Consumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from commands.stack import child_environment
from config.daemon import free_port
from config.settings import DEFAULT_TENANT, Settings
from processors import metrics
from processors.watchdog import PartitionState
from streams.event import Event
from streams.producer import EventProducer
from streams.topics import bootstrap_of
from tests.live import eventually

EVENTS = 300
COMMAND = [sys.executable, "-m", "commands", "worker"]


def _whose(_topic: str) -> str:
    return DEFAULT_TENANT


def _lags() -> dict[str, float]:
    (family,) = metrics.LAG.collect()
    return {sample.labels["partition"]: sample.value for sample in family.samples}


def test_a_partition_that_went_is_told_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its new owner tells of it; the sum over workers would count it twice."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    metrics.show_lag(
        [PartitionState("events", 0, 5, 10), PartitionState("events", 1, 5, 20)], _whose
    )
    assert _lags() == {"0": 10, "1": 20}
    metrics.show_lag([PartitionState("events", 1, 9, 15)], _whose)
    assert _lags() == {"1": 15}
    metrics.show_lag([], _whose)
    assert _lags() == {}


def _environment(settings: Settings, port: int) -> dict[str, str]:
    env = child_environment(settings)
    env.pop("PROMETHEUS_MULTIPROC_DIR", None)
    return env | {"HEADWATER_WORKER__METRICS_PORT": str(port)}


async def test_a_worker_alone_tells_what_it_counted(settings: Settings) -> None:
    port = free_port("127.0.0.1")
    with EventProducer(bootstrap_of(settings), settings.kafka.events_topic) as producer:
        now = int(time.time() * 1000)
        for number in range(EVENTS):
            producer.send(Event(f"user-{number % 20}", f"item-{number % 7}", "view", now + number))
    worker = await asyncio.create_subprocess_exec(
        *COMMAND, env=_environment(settings, port), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            told = await eventually(
                lambda: _scraped(http),
                lambda told: (
                    told.get("headwater_events_applied_total") == EVENTS
                    and "headwater_consumer_lag_records" in told
                ),
                60,
            )
        assert told["headwater_starts_total"] == 1
        assert told["headwater_consumer_lag_records"] == 0
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), 10) == 0
        # For tools that show lag; no worker relies on it.
        assert _of_group(settings) == EVENTS
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


def _of_group(settings: Settings) -> int:
    """Events before the offsets that the group's partitions have in Kafka."""
    kafka = settings.kafka
    consumer = Consumer({"bootstrap.servers": bootstrap_of(settings), "group.id": kafka.group})
    try:
        places = [TopicPartition(kafka.events_topic, n) for n in range(kafka.partitions)]
        assert len(places) > 1
        return sum(max(0, place.offset) for place in consumer.committed(places, 10))
    finally:
        consumer.close()


async def _scraped(http: aiohttp.ClientSession) -> dict[str, float]:
    """Sums over labels; nothing while nobody listens."""
    try:
        async with http.get("/metrics") as answer:
            text = await answer.text()
    except aiohttp.ClientError:
        return {}
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def test_a_port_that_is_taken_is_said(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = _environment(settings, port)
        done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"port {port}" in done.stderr.splitlines()[-1]
    assert "HEADWATER_WORKER__METRICS_PORT" in done.stderr
