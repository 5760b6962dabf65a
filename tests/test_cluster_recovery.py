"""Workers on three brokers and a Redis Cluster: a primary is lost together with its end, a slot
moves, a broker is lost, all while events flow; afterwards every count is compared with the oracle.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from commands.stack import Stack
from config.services import Services
from config.settings import load_settings
from store.cluster import slot_of
from store.keys import Keys
from tests.chaos.traffic import make_events
from tests.conftest import own_settings
from tests.live import eventually
from tests.moving import Loss, Move
from tests.test_recovery import check_everything, send_slowly

EVENTS, SECONDS = 15_000, 25.0
SEED = 11


async def test_counts_are_exact_when_a_primary_and_a_broker_are_lost(tmp_path: Path) -> None:
    services = Services(
        load_settings(services={"data_dir": tmp_path / "services", "kafka_heap_mb": 512}),
        cluster=True,
    )
    try:
        await asyncio.to_thread(services.start)
        settings = own_settings(
            services, tmp_path / "home", partitions=4, worker={"max_poll_records": 300}
        )
        assert settings.kafka.replication == 3
        events = make_events(Random(SEED), EVENTS, int(time.time() * 1000))
        async with Stack(settings, workers=2, processes=1, services=services) as stack:
            sending = asyncio.create_task(send_slowly(stack.settings, events, SECONDS))
            try:
                await torment(services, Keys(stack.settings.store))
                await sending
            finally:
                sending.cancel()
            counted = await check_everything(stack.settings)
            said = "".join(worker.log.read_text() for worker in stack.workers)
            await assert_answers(stack.http_url, events[-1].user_id)
    finally:
        await asyncio.to_thread(services.stop)
    assert counted > 0.95 * EVENTS
    assert "sessions are taken back" in said
    assert "the log lacks records" not in said


async def torment(services: Services, keys: Keys) -> None:
    """Lose the primary of the first item shard, move a user shard, lose a broker."""
    redis, kafka = services.redis_cluster, services.kafka_cluster
    assert redis is not None
    assert kafka is not None
    loss = Loss(redis, slot_of(keys.items[0]))
    await asyncio.to_thread(loss.wait_for, 300_000)
    await asyncio.to_thread(loss.cut_off)
    await asyncio.to_thread(loss.wait_for, 100_000)
    await asyncio.to_thread(loss.kill)
    await asyncio.to_thread(loss.heal)

    move = Move(redis, slot_of(keys.users[0]))
    await asyncio.to_thread(move.begin)
    await asyncio.to_thread(move.some, 20)
    await asyncio.to_thread(move.end)

    broker = kafka.brokers[2]
    await asyncio.to_thread(broker.kill)
    await asyncio.sleep(3)  # as long as it is away
    await asyncio.to_thread(broker.start)


async def assert_answers(url: str, user: str) -> None:
    """The server has followed: what it reads lies elsewhere now."""
    async with aiohttp.ClientSession(url) as http:

        async def ask() -> Any:
            async with http.get(f"/v1/recommendations/{user}?n=5") as answer:
                return await answer.json(content_type=None)

        await eventually(ask, lambda found: found.get("items") and not found["degraded"])
