"""A Redis Cluster that speaks nothing but TLS, with users who may do what they need alone."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import redis
from limits import parse
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import NoPermissionError, RedisError

from config.daemon import HOST, free_port
from config.redis_server import SLOTS, is_whole, redis_answers
from config.settings import RedisSettings, Settings, load_settings
from processors.apply import EventApplier
from store.cluster import ClusterRedis
from store.cluster_wire import ClusterWire, wire_to
from store.connect import connect
from store.keys import STATISTICS, VIEWED, Keys
from store.rates import rate_storage
from store.reader import StoreReader
from store.writer import StoreWriter
from streams.columns import hash_id
from streams.records import RecordBatch, Records
from tests.oracle import Oracle, random_log, record_of
from tests.secured import DOCUMENT, Authority, SecuredRedis, documented, tls_redis
from tests.test_commit_protocol import Graveyard
from tests.test_store import TOPIC, assert_store_is, small_lists

_SECONDS = 30.0


class Nodes:
    """Two primaries, each with half of the slots."""

    def __init__(self, folder: Path) -> None:
        authority, binary = Authority(folder / "authority"), tls_redis()
        # What docs/security.md adds for a cluster.
        (more,) = re.findall(r"Users of a Redis Cluster also need `([^`]*)`", DOCUMENT.read_text())
        users = documented("users.acl").replace("-@dangerous", f"-@dangerous {more}")
        self.buses = [free_port() for _ in range(2)]
        password = secrets.token_urlsafe(12)
        self.servers: list[SecuredRedis] = []
        for number, bus in enumerate(self.buses):
            arguments = [
                *("--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", str(bus)),
                *("--cluster-node-timeout", "5000"),
            ]
            place = folder / f"node-{number}" / "redis"
            self.servers.append(SecuredRedis(place, users, authority, binary, arguments, password))

    def start(self) -> None:
        for server in self.servers:
            server.start()
        half = SLOTS // 2
        self.ask(0, "CLUSTER ADDSLOTSRANGE", 0, half - 1)
        self.ask(1, "CLUSTER ADDSLOTSRANGE", half, SLOTS - 1)
        self.ask(0, "CLUSTER MEET", HOST, self.servers[1].ports["redis"], self.buses[1])
        limit = time.monotonic() + _SECONDS
        while not all(is_whole(self.ask(number, "CLUSTER INFO")) for number in range(2)):
            assert time.monotonic() < limit, "the cluster does not get whole"
            time.sleep(0.05)

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def ask(self, number: int, *command: Any) -> Any:
        own = self.servers[number].settings("admin")
        with redis.Redis.from_url(own.url or "", ssl_ca_certs=str(own.ca_file)) as client:
            return client.execute_command(*command)

    def settings(self, user: str, password: str | None = None) -> Settings:
        """How a user gets in, by one node's address."""
        own = self.servers[0].settings(user, password)
        url = (own.url or "").replace("rediss://", "rediss+cluster://")
        return small_lists(
            load_settings(redis=RedisSettings(url=url, ca_file=own.ca_file)), shards=8
        )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    made = Nodes(tmp_path_factory.mktemp("cluster-tls"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


async def test_workers_write_and_servers_read(nodes: Nodes) -> None:
    settings = nodes.settings("writer")
    log = random_log(Random(7), settings, 300)
    writing = connect(settings)
    assert isinstance(writing, ClusterRedis)
    records = [record_of(click) for click in log]
    batch = RecordBatch(TOPIC, 0, records[0].offset, Records.of(records))
    applier = EventApplier(settings, StoreWriter(writing, settings), Graveyard())
    assert await applier.apply([batch]) == [log[-1].offset]
    assert len(await writing.primaries()) == 2
    await writing.aclose()

    own = nodes.settings("admin")
    admin = connect(own)
    names = {hash_id(click.item): click.item for click in log}
    oracle = Oracle(own).learn(log)
    await assert_store_is(oracle, admin, own, names)
    await admin.aclose()

    reading = connect(nodes.settings("reader"))
    totals = await StoreReader(reading, settings).totals()
    assert totals["events"] == sum(oracle.events_of.values())
    keys, wire = Keys(settings.store), wire_to(reading, 5)
    assert isinstance(wire, ClusterWire)
    items = np.array(sorted(names), np.uint64)
    found = await wire.reads(keys.items)((VIEWED, items), (STATISTICS, items))
    assert all(found[len(items) :])
    rates = SlidingWindowCounterRateLimiter(rate_storage(reading, "hw{c}rate"))
    assert await rates.hit(parse("1/minute"), "somebody")
    assert not await rates.hit(parse("1/minute"), "somebody")
    with pytest.raises(NoPermissionError):
        await reading.set(keys.stats + b"t", b"x")
    await reading.aclose()


async def test_who_is_not_let_in(nodes: Nodes) -> None:
    wrong = connect(nodes.settings("writer", "wrong"))
    with pytest.raises(RedisError, match="check user and password"):
        await wrong.get(b"hw{0}x")
    await wrong.aclose()
    settings = nodes.settings("writer").redis
    assert redis_answers(settings)
    plain = (settings.url or "").replace("rediss+", "redis+")
    assert not redis_answers(RedisSettings(url=plain))
