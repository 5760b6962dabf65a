"""A Redis that is killed, frozen, full, read-only, slow, forgetful, or replaced by its replica."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from redis.asyncio import Redis
from redis.exceptions import RedisError

from config.daemon import free_port
from config.redis_server import RedisServer
from store.connect import connect
from tests.chaos.run import Fault, Run
from tests.chaos.world import full_disk, full_world, with_sentinels, world

__all__ = ["FAULTS"]


async def _kill(run: Run) -> None:
    for pause in (0.0, 2.0, 0.0):
        await asyncio.sleep(3)
        await asyncio.to_thread(run.world.redis.kill)
        run.injected()
        await asyncio.sleep(pause)
        await asyncio.to_thread(run.world.redis.start)


async def _freeze(run: Run) -> None:
    for seconds in (1.0, 6.0):
        await asyncio.sleep(2)
        os.kill(run.world.redis.pid, signal.SIGSTOP)
        try:
            run.injected()
            await asyncio.sleep(seconds)
        finally:
            os.kill(run.world.redis.pid, signal.SIGCONT)


@asynccontextmanager
async def _other_client(run: Run) -> AsyncIterator[Redis]:
    """Someone else's connection, patient enough for a slow Redis."""
    redis = run.deployment.settings.redis.model_copy(update={"timeout_seconds": 30})
    client = connect(run.deployment.settings.model_copy(update={"redis": redis}))
    try:
        yield client
    finally:
        await client.aclose()


async def _full(run: Run) -> None:
    """`maxmemory` with `noeviction`: every write is refused, every read answered."""
    async with _other_client(run) as other:
        for _ in range(2):
            await asyncio.sleep(1)
            await other.config_set("maxmemory", 1_000_000)
            run.injected()
            await asyncio.sleep(5)
            await other.config_set("maxmemory", 0)
    run.require("maxmemory" in run.deployment.said(), "no write was refused")


async def _slow_script(run: Run) -> None:
    """Someone's script keeps Redis busy; it is shorter, then longer than our deadline."""
    async with _other_client(run) as other:
        for milliseconds in (1500, 4000):
            await asyncio.sleep(2)
            run.injected()
            await other.eval(_BUSY, 0, str(milliseconds))


async def _flush_scripts(run: Run) -> None:
    async with _other_client(run) as other:
        limit = time.monotonic() + 8
        while time.monotonic() < limit:
            await other.script_flush()
            run.injected()
            await asyncio.sleep(run.rng.uniform(0.005, 0.1))


async def _kill_clients(run: Run) -> None:
    async with _other_client(run) as other:
        limit = time.monotonic() + 8
        while time.monotonic() < limit:
            run.injected(int(await other.client_kill_filter(_type="normal", skipme=True)))
            await asyncio.sleep(run.rng.uniform(0.05, 0.5))


async def _late_answers(run: Run) -> None:
    """Answers come late: by more than usual, then by more than anybody waits."""
    links = [*run.deployment.redis_of_worker, run.deployment.redis_of_server]
    for seconds in (0.3, 3.0):
        for link in links:
            link.down.delay = seconds
            run.injected()
        await asyncio.sleep(5)
    for link in links:
        link.heal()


async def _read_only(run: Run) -> None:
    """It becomes the replica of a host that is not there, and a primary again."""
    async with _other_client(run) as other:
        for _ in range(2):
            await asyncio.sleep(1)
            await other.replicaof("127.0.0.1", free_port())
            run.injected()
            await asyncio.sleep(4)
            await other.replicaof("NO", "ONE")
    run.require("read only" in run.deployment.said(), "no write was refused")


async def _promote(run: Run) -> None:
    """A replica that has missed seconds of writes takes the place of its primary."""
    primary = run.world.redis
    folder = primary.folder.parent / "replica" / "redis"
    replica = RedisServer(folder, arguments=("--appendonly", "no"))
    await asyncio.to_thread(replica.start)
    try:
        async with _other_client(run) as other:
            async with _replica(replica) as second:
                await second.replicaof("127.0.0.1", primary.ports["redis"])
                await _until_linked(second)
                await asyncio.sleep(1)
                await second.replicaof("127.0.0.1", free_port())  # cut off, and falls behind
                await asyncio.sleep(3)
                before = int((await other.info("replication"))["master_repl_offset"])
                behind = before - int((await second.info("replication"))["master_repl_offset"])
                run.require(behind > 0, "the replica had everything")
                run.note(f"the replica lacked {behind:,} bytes of writes")
                await asyncio.to_thread(primary.kill)
                await second.replicaof("NO", "ONE")
        run.deployment.move_redis(replica.ports["redis"])
        run.injected()
        run.after(lambda: asyncio.to_thread(replica.stop))
    except BaseException:
        await asyncio.to_thread(replica.stop)
        raise


async def _fail_over(run: Run) -> None:
    """The primary is killed, and the next one frozen until Sentinels have given it up."""
    servers = run.world.servers
    await asyncio.sleep(2)
    await asyncio.to_thread(servers[0].kill)
    run.injected()
    await run.until(lambda: run.world.primary() == servers[1].ports["redis"], "no failover")
    await asyncio.sleep(3)
    await asyncio.to_thread(servers[0].start)
    async with _replica(servers[0]) as first:
        await _until_linked(first)
    await asyncio.sleep(3)
    os.kill(servers[1].pid, signal.SIGSTOP)
    try:
        run.injected()
        await run.until(lambda: run.world.primary() == servers[0].ports["redis"], "no way back")
        await asyncio.sleep(1)
    finally:
        os.kill(servers[1].pid, signal.SIGCONT)


@asynccontextmanager
async def _replica(server: RedisServer) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(server.url)
    try:
        yield client
    finally:
        await client.aclose()


async def _fill_disk(run: Run) -> None:
    """No byte can be written to the AOF: Redis refuses writes until it can."""
    for _ in range(2):
        await asyncio.sleep(2)
        with full_disk(run.world.redis.folder.parent):
            run.injected()
            await asyncio.sleep(5)
    run.require("MISCONF" in run.deployment.said(), "no write was refused")


async def _until_linked(replica: Redis) -> None:
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        # Sentinels break connections to whom they make a replica.
        with suppress(RedisError):
            if (await replica.info("replication")).get("master_link_status") == "up":
                return
        await asyncio.sleep(0.05)
    raise RuntimeError("the replica is not linked")


_BUSY = """\
local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end
local till = now() + tonumber(ARGV[1])
while now() < till do end
return 1
"""

FAULTS = [
    Fault("redis-kill-everysec", "kill -9, AOF flushed every second: its end is lost", _kill),
    Fault(
        "redis-kill-always",
        "kill -9, AOF flushed with every write",
        _kill,
        world=partial(world, redis_arguments=("--appendfsync", "always")),
    ),
    Fault(
        "redis-kill-no-aof",
        "kill -9 without AOF: everything is lost, three times",
        _kill,
        world=partial(world, redis_arguments=("--appendonly", "no")),
    ),
    Fault("redis-freeze", "SIGSTOP for 1 s and for 6 s, and back", _freeze),
    Fault("redis-full", "`maxmemory` reached under `noeviction`, later raised", _full),
    Fault("redis-read-only", "made the replica of a dead host, and back", _read_only),
    Fault("redis-slow-script", "someone's Lua script runs 1.5 s and 4 s", _slow_script),
    Fault("redis-script-flush", "SCRIPT FLUSH all the time", _flush_scripts),
    Fault("redis-client-kill", "CLIENT KILL of all connections, all the time", _kill_clients),
    Fault("redis-late-answers", "answers 0.3 s and then 3 s late", _late_answers),
    Fault(
        "redis-replica-promoted",
        "kill -9, and a replica that missed 3 s of writes takes over",
        _promote,
    ),
    Fault(
        "redis-sentinel-failover",
        "Sentinels replace a killed primary, then a frozen one that comes back",
        _fail_over,
        world=with_sentinels,
    ),
    Fault(
        "redis-disk-full",
        "no byte can be written to the AOF, twice for 5 s",
        _fill_disk,
        world=partial(full_world, megabytes=48, kafka=False),
    ),
]
"""In the order of the table."""
