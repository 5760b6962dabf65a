"""Generations as their users meet them: replayed, switched to and back, compared, dropped, saved
and loaded by the commands, while events come in and answers go out.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec
import orjson
import pytest
from confluent_kafka import Producer
from redis.asyncio import Redis

from commands.stack import Stack, child_environment
from config.errors import SettingsError, StoreError
from config.overlay import chosen, differences, overlaid, recorded
from config.redis_server import RedisServer
from config.settings import Settings, load_settings
from store.connect import connect
from store.generations import Generation, Generations, begin_at, first_generation
from store.keys import Keys
from store.writer import StoreWriter
from streams.columns import hash_names
from streams.event import Event
from streams.offsets import LogOffsets, read_origin
from streams.producer import EventProducer
from streams.topics import bootstrap_of
from tests.chaos.checking import read_log
from tests.chaos.traffic import make_events
from tests.conftest import StackFactory
from tests.oracle import Oracle
from tests.test_recovery import send_slowly
from tests.test_store import assert_store_is

SECONDS = 120.0
GONE = "forgotten"
QUIET: dict[str, Any] = {"share": 0, "first_events": 0}
"""Nothing is learned: what generations count is compared, and chance is in what they learn from."""


async def run(settings: Settings, *arguments: str, code: int = 0) -> Any:
    """What a command says with --json."""
    process = await start(settings, *arguments)
    said, log = await process.communicate()
    assert process.returncode == code, log.decode()
    return orjson.loads(said) if said else log.decode()


async def start(settings: Settings, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commands", *arguments, "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(settings),
    )


async def until_contained(redis: Redis, settings: Settings, one: Generation) -> None:
    """Wait until a generation contains all events of the log."""
    own = one.overlaid(settings)
    writer, topic = StoreWriter(redis, own, one.number), own.kafka.events_topic
    ends = await asyncio.to_thread(lambda: LogOffsets(settings).ends())
    limit = time.monotonic() + SECONDS
    for partition, end in enumerate(ends[topic]):
        while (await writer.read_marks(topic, partition)).lowest < end - 1:
            assert time.monotonic() < limit, f"generation {one.number} does not get to {end}"
            await asyncio.sleep(0.05)


async def check(redis: Redis, settings: Settings, number: int, since: int = 0) -> None:
    """Everything in a generation is what the log says, read from an offset of each partition on."""
    one = await Generations(redis, settings).get(number)
    own = one.overlaid(settings)
    everything = (await asyncio.to_thread(read_log, own)).all()
    log = [record for record in everything if record.offset >= since]
    await until_contained(redis, settings, one)
    await assert_store_is(Oracle(own).learn(log), redis, own, generation=number)


@asynccontextmanager
async def asking(url: str, users: int) -> AsyncIterator[list[int]]:
    """The status of each answer to requests that come one after the other meanwhile."""
    codes: list[int] = []

    async def ask() -> None:
        async with aiohttp.ClientSession(url) as http:
            for number in range(1_000_000):
                async with http.get(f"/v1/recommendations/user-{number % users}") as answer:
                    body = await answer.json()
                    codes.append(answer.status if not body["degraded"] else 0)
                await asyncio.sleep(0.005)

    task = asyncio.create_task(ask())
    try:
        yield codes
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def sending(settings: Settings, seed: int) -> AsyncIterator[None]:
    """Events keep coming meanwhile."""
    events = make_events(Random(seed), 30_000, int(time.time() * 1000))
    done = asyncio.Event()

    async def send() -> None:
        with EventProducer(bootstrap_of(settings), settings.kafka.events_topic) as producer:
            for number, event in enumerate(events):
                producer.send(event)
                if number % 10 == 0:
                    await asyncio.sleep(0.05)
                if done.is_set():
                    return

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        done.set()
        await task


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = connect(settings)
    yield client
    await client.aclose()


async def test_replayed_switched_back_compared_and_dropped(stack_factory: StackFactory) -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"seed {seed}")
    rng = Random(seed)
    async with stack_factory(workers=2, learn=QUIET) as stack:
        settings = stack.settings
        redis = connect(settings)
        try:
            events = make_events(rng, 10_000, int(time.time() * 1000))
            gone = Event(GONE, "item-1", "view", events[-1].timestamp)
            await send_slowly(settings, [*events, gone], 0.5)
            async with asking(stack.http_url, 400) as codes, sending(settings, seed + 1):
                built = await run(
                    settings,
                    *("replay", "--activate", "--workers", "2"),
                    *("--set", "fold.half_life_days=3", "--set", "store.shards=3"),
                )
                assert (built["generation"], built["state"]) == (2, "live")
                assert built["events"] >= 10_000
                await _until_answered_by(stack, 2)
                # The workers take over what they have not built.
                await asyncio.sleep(1)
            assert set(codes) == {200}
            # The old one stays as it is, true up to where it was left.
            found = await run(settings, "generations", "list")
            states = {one["generation"]: one["state"] for one in found["generations"]}
            assert states == {1: "ready", 2: "live"}
            await check(redis, settings, 2)
            await _forget(stack, redis)

            compared = await run(settings, "generations", "compare", "1", "2")
            assert compared["items"]["looked_at"] > 0
            # Another half-life makes other weights, but the same neighbours.
            assert compared["items"]["equal"] < compared["items"]["looked_at"]
            assert compared["shared_top"] > 0.5

            async with asking(stack.http_url, 400) as codes, sending(settings, seed + 2):
                back = await run(settings, "generations", "activate", "1")
                assert back["state"] == "live"
                await _until_answered_by(stack, 1)
            assert set(codes) == {200}
            await check(redis, settings, 1)
            assert "cannot" not in (await run(settings, "generations", "drop", "2"))
            left = [k async for k in redis.scan_iter(match=_of(settings, 2).own_pattern)]
            assert left == []
            await run(settings, "generations", "drop", "1", code=1)
            await check(redis, settings, 1)
        finally:
            await redis.aclose()


async def test_an_interrupted_replay_goes_on(stack_factory: StackFactory) -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"seed {seed}")
    rng = Random(seed)
    # Small batches, so that there is something to interrupt.
    async with stack_factory(
        workers=0, processes=0, worker={"max_poll_records": 100}, learn=QUIET
    ) as stack:
        settings = stack.settings
        redis = connect(settings)
        try:
            await send_slowly(settings, make_events(rng, 30_000, int(time.time() * 1000)), 0.5)
            passed: list[int] = []
            for end in (signal.SIGKILL, signal.SIGTERM):
                process = await start(settings, "replay", "--workers", "2")
                reader = StoreWriter(redis, settings, 2)
                topic = settings.kafka.events_topic
                before = sum(passed)
                limit = time.monotonic() + SECONDS
                while True:
                    marks = [await reader.read_marks(topic, p) for p in range(4)]
                    if sum(one.lowest + 1 for one in marks) > before + 3_000:
                        break
                    assert time.monotonic() < limit
                    await asyncio.sleep(0.01)
                process.send_signal(end)
                await process.communicate()
                await _until_still(redis, settings, 2)
                marks = [await reader.read_marks(topic, p) for p in range(4)]
                passed.append(sum(one.lowest + 1 for one in marks) - before)
            built = await run(settings, "replay")
            assert built["generation"] == 2
            assert 0 < built["events"] == 30_000 - sum(passed)
            await check(redis, settings, 2)
        finally:
            await redis.aclose()


async def test_replay_begins_where_it_is_told(stack_factory: StackFactory) -> None:
    rng = Random(9)
    async with stack_factory(workers=0, processes=0, learn=QUIET) as stack:
        settings = stack.settings
        redis = connect(settings)
        try:
            await send_slowly(settings, make_events(rng, 4_000, int(time.time() * 1000)), 0.1)
            ends = (await asyncio.to_thread(lambda: LogOffsets(settings).ends()))[
                settings.kafka.events_topic
            ]
            built = await run(settings, "replay", "--from", "500")
            assert built["events"] == sum(max(0, end - 500) for end in ends)
            await check(redis, settings, built["generation"], since=500)
            none = await run(settings, "replay", "--from", "latest")
            assert none["events"] == 0
            assert none["generation"] == built["generation"] + 1
            later = await run(settings, "replay", "--from", "2999-01-01T00:00:00Z")
            assert later["events"] == 0
            everything = await run(settings, "replay", "--from", "2001-01-01T00:00:00+02:00")
            assert everything["events"] == sum(ends)
            await check(redis, settings, everything["generation"])
            # What an aborted transaction left did not happen, and behind the last event of a
            # partition there is a marker now, which nobody reads.
            await asyncio.to_thread(_send_in_a_transaction, settings, commit=False)
            await asyncio.to_thread(_send_in_a_transaction, settings, commit=True)
            one_more = await run(settings, "replay")
            found = (await run(settings, "generations", "list"))["generations"]
            events = {one["generation"]: one["events"] for one in found}
            assert events[one_more["generation"]] == events[everything["generation"]] + 1
        finally:
            await redis.aclose()


async def test_a_snapshot_brings_back_what_was_lost(
    stack_factory: StackFactory, tmp_path: Path
) -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"seed {seed}")
    rng = Random(seed)
    file = tmp_path / "snapshot.gz"
    async with stack_factory(workers=2, processes=0, learn=QUIET) as stack:
        settings = stack.settings
        await send_slowly(settings, make_events(rng, 8_000, int(time.time() * 1000)), 0.5)
        async with sending(settings, seed + 1):
            saved = await run(settings, "snapshot", "save", str(file))
            assert saved["generation"] == 1
        # Whom it knows, and who asks to be forgotten after that.
        _bury_user(settings, "user-1")
        # Somebody else's Redis.
        server = RedisServer(tmp_path / "other")
        server.start()
        try:
            other = settings.model_copy(
                update={"redis": settings.redis.model_copy(update={"url": server.url})}
            )
            loaded = await run(other, "snapshot", "load", str(file), "--activate")
            assert loaded["state"] == "live"
            assert loaded["keys"] == saved["keys"]
            redis = connect(other)
            await check(redis, other, loaded["generation"])
            await _refuses(other, file, _torn(file), redis)
            await redis.aclose()
        finally:
            server.stop()


def _bury_user(settings: Settings, user: str) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap_of(settings), "partitioner": "murmur2_random"}
    )
    producer.produce(settings.kafka.events_topic, key=user.encode())
    assert producer.flush(SECONDS) == 0


def _torn(file: Path) -> Path:
    """The same without its end. There is nothing else beside it."""
    assert [path.name for path in file.parent.glob("snapshot*")] == [file.name]
    torn = file.with_name("torn.gz")
    torn.write_bytes(file.read_bytes()[:-2000])
    return torn


async def _refuses(settings: Settings, file: Path, torn: Path, redis: Redis) -> None:
    """A file that is not whole, and one of another log, leave nothing behind."""
    before = await redis.dbsize()
    said = await run(settings, "snapshot", "load", str(torn), code=1)
    assert "Traceback" not in said
    named = settings.kafka.model_copy(update={"events_topic": "others"})
    elsewhere = settings.model_copy(update={"kafka": named})
    said = await run(elsewhere, "snapshot", "load", str(file), code=1)
    assert "others" in said
    assert await redis.dbsize() == before


async def test_only_one_can_be_live(settings: Settings, redis: Redis) -> None:
    known = Generations(redis, settings)
    assert await known.live() is None
    first = first_generation(settings)
    assert await known.ensure_live(first) == (first, True)
    second = await known.create("latest", {}, {settings.kafka.events_topic: [7, 0]})
    assert (second.number, second.state) == (2, "building")
    # Somebody who starts now with other ideas finds what is there.
    assert await known.ensure_live(second) == (first, False)
    active = await known.activate(second)
    assert (await known.live(), active.state) == (active, "ready")
    with pytest.raises(StoreError, match="generations list"):
        await known.mark(active, "dropping")
    with pytest.raises(StoreError, match="moment ago"):
        await known.activate(second)  # it is not what it was
    dropping = await known.mark(first, "dropping")
    await known.remove(dropping)
    assert await known.all() == [active]
    with pytest.raises(StoreError, match="there are 2"):
        await known.get(1)
    # Numbers are not given twice: somebody might still write to what was dropped.
    third = await known.create("latest", {}, {})
    await known.remove(await known.mark(third, "dropping"))
    assert (await known.create("latest", {}, {})).number == 4
    await redis.delete(f"{settings.store.namespace}{{c}}")


async def test_shards_begin_where_a_generation_does(settings: Settings, redis: Redis) -> None:
    events, items = settings.kafka.events_topic, settings.kafka.items_topic
    one = Generation(5, "building", 0, "7", {"store": {"shards": 3}}, {events: [7, 0], items: [4]})
    await begin_at(redis, settings, one)
    writer = StoreWriter(redis, one.overlaid(settings), 5)
    assert (await writer.read_marks(events, 0)).lowest == 6
    assert (await writer.read_marks(events, 1)).lowest == -1
    assert (await writer.read_catalogue_marks(items, 0)).tolist() == [3, 3, 3]
    await redis.set(Keys(one.overlaid(settings).store, 5).items[0] + b"w:%b:0" % events.encode(), 9)
    # Again, after an interruption, when the live one has learned something.
    live = first_generation(settings)
    await redis.set(Keys(settings.store, live.number).taught, b"learned")
    await begin_at(redis, settings, one, like=live)
    await redis.set(Keys(settings.store, live.number).taught, b"more")
    await begin_at(redis, settings, one, like=live)
    assert await redis.get(Keys(one.overlaid(settings).store, 5).taught) == b"learned"
    assert (await writer.read_marks(events, 0)).items.tolist() == [9, 6, 6]


def test_a_generation_keeps_what_it_was_counted_with() -> None:
    settings = load_settings()
    mine = overlaid(settings, {"fold": {"half_life_days": 3}})
    settings = overlaid(settings, {"fold": {"half_life_days": 30}})
    assert mine.fold.half_life_days == 3
    assert mine.fold.gap_slope == settings.fold.gap_slope
    assert differences(settings, recorded(mine)) == ["fold.half_life_days is 3.0 and not 30.0"]
    assert differences(mine, recorded(mine)) == []
    assert chosen(["store.shards=4", "rank.category=kind"]) == {
        "store": {"shards": 4},
        "rank": {"category": "kind"},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("half_life_days=3", "group.name=value"),
        ("fold.half_life_days", "group.name=value"),
        ("http.port=1", "no setting of a generation"),
        ("store.namespace=x", "no setting of a generation"),
    ],
)
def test_a_setting_that_cannot_be_chosen_is_named(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        chosen([text])


@pytest.mark.parametrize("text", ["fold.half_life_days=-1", "fold.nothing=1", "fold.gap_slope=x"])
def test_a_value_that_is_out_of_range_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match=text.split("=")[0]):
        overlaid(load_settings(), chosen([text]))


@pytest.mark.parametrize("text", ["", "yesterday", "-3", "2026-01-31T12:00:00", "12.5", "²"])
def test_an_origin_that_is_none_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match=r"RFC 3339"):
        read_origin(text)


def _send_in_a_transaction(settings: Settings, *, commit: bool) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap_of(settings), "transactional.id": secrets.token_hex(4)}
    )
    producer.init_transactions(SECONDS)
    producer.begin_transaction()
    event = Event("user-1", "item-1", "view", time.time_ns() // 1_000_000)
    topic = settings.kafka.events_topic
    producer.produce(topic, msgspec.json.encode(event), event.user_id)
    assert producer.flush(SECONDS) == 0
    if commit:
        producer.commit_transaction(SECONDS)
    else:
        producer.abort_transaction(SECONDS)


async def _forget(stack: Stack, redis: Redis) -> None:
    """Who is forgotten is not known to the generation that is kept either."""
    own = (await Generations(redis, stack.settings).get(1)).overlaid(stack.settings)
    key = Keys(own.store, 1).sessions(hash_names([GONE.encode()]))[0]
    assert await redis.exists(key)
    async with (
        aiohttp.ClientSession(stack.http_url) as http,
        http.delete(f"/v1/users/{GONE}") as answer,
    ):
        assert answer.status == 202
    limit = time.monotonic() + SECONDS
    while await redis.exists(key):
        assert time.monotonic() < limit
        await asyncio.sleep(0.02)


def _of(settings: Settings, number: int) -> Keys:
    return Keys(settings.store, number)


async def _until_answered_by(stack: Stack, number: int) -> None:
    assert stack.server is not None
    log = stack.server.log
    limit = time.monotonic() + SECONDS
    while f"now={number}" not in log.read_text().rsplit("another generation answers", 1)[-1]:
        assert time.monotonic() < limit
        await asyncio.sleep(0.05)


async def _until_still(redis: Redis, settings: Settings, number: int) -> None:
    """Wait until nobody works on a generation: what was killed takes its children along."""
    writer, topic = StoreWriter(redis, settings, number), settings.kafka.events_topic
    last: list[int] = []
    same = 0
    limit = time.monotonic() + SECONDS
    while same < 20:
        marks = [(await writer.read_marks(topic, p)).lowest for p in range(4)]
        same = same + 1 if marks == last else 0
        last = marks
        assert time.monotonic() < limit
        await asyncio.sleep(0.1)
