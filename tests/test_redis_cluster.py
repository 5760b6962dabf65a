"""A real Redis Cluster: commands go to the nodes of their shards, a shard that moves takes each
commit whole or not at all, and reads go on meanwhile."""

from __future__ import annotations

import asyncio
import io
import secrets
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio
from limits import parse
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio.lock import Lock
from redis.exceptions import RedisError

from config.daemon import HOST
from config.redis_cluster import RedisCluster
from config.redis_server import redis_process
from config.settings import Settings, load_settings
from processors.apply import EventApplier, ReadAgain
from store.cluster import ClusterRedis, slot_of
from store.cluster_wire import ClusterWire, wire_to
from store.connect import connect
from store.dropping import delete_keys
from store.forget import UserSweep
from store.generations import first_generation
from store.keys import FIRST_GENERATION, STATISTICS, VIEWED, Keys
from store.rates import rate_storage
from store.snapshot import read_header, restore, save
from store.writer import StoreWriter
from streams.columns import hash_id
from streams.records import RecordBatch, Records
from tests.moving import Loss, Move
from tests.oracle import Click, Oracle, random_log, record_of
from tests.test_commit_protocol import Graveyard
from tests.test_store import TOPIC, assert_store_is, small_lists


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    made = RedisCluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def settings(cluster: RedisCluster) -> Settings:
    own = load_settings(redis={"url": cluster.url}, store={"namespace": f"t{secrets.token_hex(6)}"})
    return small_lists(own, shards=8)


@pytest_asyncio.fixture
async def redis(settings: Settings) -> AsyncIterator[ClusterRedis]:
    client = connect(settings)
    assert isinstance(client, ClusterRedis)
    yield client
    await client.aclose()


async def test_commands_go_to_the_nodes_of_their_keys(
    redis: ClusterRedis, settings: Settings, cluster: RedisCluster
) -> None:
    assert redis_process(cluster.url) in [node.pid for node in cluster.nodes]
    own = settings.store.namespace.encode()
    keys = [b"%b{%d}k" % (own, n) for n in range(200)]
    assert len({await redis.owner(slot_of(key)) for key in keys}) == 3
    pipeline = redis.pipeline(transaction=False)
    for n, key in enumerate(keys):
        pipeline.set(key, n)
    assert await pipeline.execute() == [True] * 200
    found: Any = await redis.mget([*keys[::-1], b"nobody"])
    assert found == [b"%d" % n for n in range(199, -1, -1)] + [None]
    seen = [key async for key in redis.scan_iter(match=own + b"*", count=10)]
    assert sorted(seen) == sorted(keys)
    assert await redis.unlink(*keys[:150], b"nobody") == 150
    assert [key async for key in redis.scan_iter(match=own + b"*")] != []
    wrong = redis.pipeline(transaction=False)
    wrong.get(keys[150])
    wrong.hget(keys[151], "x")
    answer, refused = await wrong.execute(raise_on_error=False)
    assert answer == b"150"
    assert isinstance(refused, RedisError)
    with pytest.raises(RedisError, match="WRONGTYPE"):
        await redis.hget(keys[151], "x")
    # Scripts of others, which are known to no node yet.
    lock = Lock(redis, keys[0], timeout=10)
    assert await lock.acquire()
    await lock.reacquire()
    await lock.release()
    with pytest.raises(RedisError, match="transactions"):
        redis.pipeline(transaction=True)
    await redis.delete(*keys)


async def test_a_node_that_nobody_has_is_told(settings: Settings) -> None:
    gone = settings.redis.model_copy(update={"url": f"redis+cluster://{HOST}:1"})
    client = connect(settings.model_copy(update={"redis": gone}))
    with pytest.raises(RedisError, match="no node of the Redis Cluster answers"):
        await client.get("a")
    await client.aclose()


async def test_rates_are_counted(redis: ClusterRedis, settings: Settings) -> None:
    limiter = SlidingWindowCounterRateLimiter(
        rate_storage(redis, f"{settings.store.namespace}{{c}}rate")
    )
    limit = parse("2/hour")
    assert [await limiter.hit(limit, "somebody") for _ in range(3)] == [True, True, False]
    assert (await limiter.get_window_stats(limit, "somebody")).remaining == 0
    assert await limiter.hit(limit, "somebody else")


async def test_a_generation_is_committed_copied_and_dropped(
    redis: ClusterRedis, settings: Settings
) -> None:
    applier = EventApplier(settings, StoreWriter(redis, settings), Graveyard())
    log = random_log(Random(3), settings, 150)
    await applier.apply([_batch(log)])
    await assert_exact(redis, settings, log, FIRST_GENERATION)
    file = io.BytesIO()
    one = first_generation(settings)
    assert sum([n async for n in save(redis, settings, one, "here", file)]) > 20
    file.seek(0)
    header = read_header(settings, "here", file)
    copy = msgspec.structs.replace(one, number=2)
    assert sum([n async for n in restore(redis, settings, header, copy, file)]) > 20
    await assert_exact(redis, settings, log, 2)
    sweep = UserSweep(redis, settings)
    while not await sweep.step():
        pass
    for number in (1, 2):
        keys = Keys(settings.store, number)
        assert sum([n async for n in delete_keys(redis, keys)]) > 20
    assert [key async for key in redis.scan_iter(match=keys.pattern)] == []


async def test_a_shard_that_moves_is_read_and_takes_each_commit_whole(
    redis: ClusterRedis, settings: Settings, cluster: RedisCluster
) -> None:
    applier = EventApplier(settings, StoreWriter(redis, settings), Graveyard())
    log = random_log(Random(4), settings, 200)
    await applier.apply([_batch(log[:100])])
    keys, wire = Keys(settings.store), wire_to(redis, 5)
    assert isinstance(wire, ClusterWire)
    items = np.array(sorted({hash_id(click.item) for click in log[:100]}), np.uint64)
    wanted = (VIEWED, items), (STATISTICS, items)
    read = wire.reads(keys.items)
    for n, prefix in enumerate((keys.items[0], keys.users[0])):
        batch = _batch(log[100 + 50 * n : 150 + 50 * n])
        before = await read(*wanted)
        assert any(before)
        names = [*keys.neighbours(items), *keys.statistics(items)]
        move = Move(cluster, slot_of(prefix))
        await asyncio.to_thread(move.begin)
        for count in (1, 3, 1000):
            # All keys are here, some of them are there, …
            assert await read(*wanted) == before == await wire.mget(names)
            await asyncio.to_thread(move.some, count)
        assert await read(*wanted) == before  # … and all are, and nobody knows it yet
        applying = asyncio.create_task(applier.apply([batch]))
        done, _ = await asyncio.wait({applying}, timeout=0.5)
        assert not done, "a batch was committed to a shard that is under way"
        await asyncio.to_thread(move.end)
        assert await asyncio.wait_for(applying, 20) == [batch.last]
    assert len(await read(*wanted)) == 2 * len(items)
    await assert_exact(redis, settings, log, FIRST_GENERATION)


async def test_a_primary_that_is_lost_takes_its_end_along(
    redis: ClusterRedis, settings: Settings, cluster: RedisCluster
) -> None:
    writer = StoreWriter(redis, settings)
    applier = EventApplier(settings, writer, Graveyard())
    log, keys = random_log(Random(5), settings, 300), Keys(settings.store)
    await applier.apply([_batch(log[:100])])
    loss = Loss(cluster, slot_of(keys.items[0]))
    await asyncio.to_thread(loss.cut_off)
    await applier.apply([_batch(log[100:150])])
    await applier.apply([_batch(log[150:200])])
    await asyncio.to_thread(loss.kill)
    try:
        # What other nodes have of users is ahead of what this one has of items.
        users: Any = await redis.mget([keys.mark(one, TOPIC, 0) for one in keys.users])
        items: Any = await redis.mget([keys.mark(one, TOPIC, 0) for one in keys.items])
        assert max(map(int, users)) == max(map(int, items)) == log[199].offset
        assert min(map(int, items)) == log[99].offset
        applying = _batch(log[200:250])
        assert await applier.apply([applying]) == [ReadAgain(log[100].offset)]
        marks = await writer.read_marks(TOPIC, 0)
        assert set(marks.users.tolist()) == {log[99].offset}
        assert await applier.apply([_batch(log[100:300])]) == [log[-1].offset]
        await assert_exact(redis, settings, log, FIRST_GENERATION)
    finally:
        await asyncio.to_thread(loss.heal)


def _batch(log: list[Click]) -> RecordBatch:
    records = [record_of(click) for click in log]
    return RecordBatch(TOPIC, 0, records[0].offset, Records.of(records))


async def assert_exact(
    redis: ClusterRedis, settings: Settings, log: list[Click], generation: int
) -> None:
    names = {hash_id(click.item): click.item for click in log}
    oracle = Oracle(settings).learn(log)
    await assert_store_is(oracle, redis, settings, names, generation)
