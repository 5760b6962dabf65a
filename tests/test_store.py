"""What is committed to a real Redis and what is read back, against the oracle."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from config.errors import StoreError
from config.settings import Settings
from processors.cooccurrence import decay_rate
from processors.fold import Folded, FoldRules, TotalDeltas, fold_batch, item_deltas, total_deltas
from processors.popularity import GRANULARITIES, WINDOWS
from processors.repeats import CELLS
from serving.candidates import NOTHING
from serving.recommend import Recommender
from serving.wanted import Choice
from store.commit import CatalogueEntry, Marks, Outcome, Target
from store.connect import connect
from store.forget import UserSweep
from store.keys import FIRST_GENERATION, Keys, id_bytes
from store.layout import unpack_statistics
from store.lists import sum_lists
from store.reader import StoreReader
from store.scripts import Scripts, broken_off
from store.writer import StoreWriter
from streams.columns import U64, hash_id
from tests.oracle import Click, Oracle, columns_of, random_log, rank
from tests.test_fold import number, rows_of
from tests.test_layout import added_to

TOPIC = "log"


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = connect(settings)
    yield client
    await client.aclose()


def hashes(names: list[str]) -> U64:
    return np.array(sorted(hash_id(name) for name in names), np.uint64)


async def commit(writer: StoreWriter, settings: Settings, log: list[Click]) -> Folded:
    """Fold a batch and commit it, as partition 0."""
    rules = FoldRules(settings)
    events = columns_of(log, settings)
    marks = await writer.read_marks(TOPIC, 0)
    target = Target(TOPIC, 0, log[-1].offset)
    before, _ = await writer.read_sessions([target], np.unique(events.user))
    folded = fold_batch(before, events, rules)
    names = {hash_id(click.item): click.item.encode() for click in log}
    everything = np.ones(len(log), np.bool_)
    items = item_deltas(folded, rules, lambda _, o: np.ones(len(o), np.bool_))
    outcome = await writer.commit_items(
        [target], [marks], items, total_deltas(folded, everything), names
    )
    assert not outcome.refused
    if outcome.long_lists or outcome.grown_lists:
        await writer.compact([*outcome.long_lists, *outcome.grown_lists])
    stored = await writer.commit_users([target], [marks], folded.sessions)
    assert not stored.refused
    return folded


async def assert_store_is(
    oracle: Oracle,
    redis: Redis,
    settings: Settings,
    names: dict[int, str] | None = None,
    generation: int = FIRST_GENERATION,
) -> None:
    """Everything that is stored of a generation equals what the oracle says, and nothing else is
    stored of it. `settings` are those with which it was counted.
    """
    keys = Keys(settings.store, generation)
    kinds = list(settings.events.weights)
    writer = StoreWriter(redis, settings, generation)
    users = {hash_id(name): name for name in oracle.histories}
    table, _ = await writer.read_sessions([Target(TOPIC, 0, 0)], hashes(list(oracle.histories)))
    for user, rows in rows_of(table).items():
        told = [(t, i, e, g, kinds[k]) for t, i, e, g, k in rows]
        assert told == oracle.rows(users[user]), users[user]

    prefixes = [*keys.items, *keys.users, keys.stats]
    found: dict[bytes, list[tuple[bytes, bytes]]] = {}
    async for key in redis.scan_iter(match=keys.own_pattern, count=1000):
        if key.startswith(tuple(keys.experiments)):
            continue  # counted by themselves
        prefix = next(p for p in prefixes if key.startswith(p))
        rest = key[len(prefix) :]
        found.setdefault(rest[:1], []).append((key, rest[1:]))
    assert set(found) <= set(b"%c" % letter for letter in b"nbxlprswtohmky")
    assert len(found.get(b"s", [])) == len(users)

    at = oracle.latest + 5.0
    rate = decay_rate(_half_life(settings))
    counts = {}
    for kind, letter in (("viewed", b"n"), ("bought", b"b")):
        stored = {int.from_bytes(name, "little"): key for key, name in found.get(letter, [])}
        values: Any = await redis.mget(list(stored.values())) if stored else []
        lists = sum_lists(values, rate)
        for place, item in enumerate(stored):
            for k in range(int(lists.start[place]), int(lists.start[place + 1])):
                decay = np.exp(-rate * (at - int(lists.time[place])))
                pair = kind, item, int(lists.neighbour[k])
                counts[*pair, "forward"] = float(lists.forward[k] * decay)
                counts[*pair, "backward"] = float(lists.backward[k] * decay)
    assert counts == pytest.approx(oracle.all_counts(at), rel=1e-4)
    stored = {int.from_bytes(name, "little"): key for key, name in found.get(b"x", [])}
    values = await redis.mget(list(stored.values()))
    known = zip(stored, unpack_statistics(values), strict=True)
    # Of an item whose events were duplicates alone, only the name stands there.
    statistics = {item: found for item, found in known if found["events"]}
    assert {i: int(s["events"]) for i, s in statistics.items()} == {
        hash_id(item): n for item, n in oracle.events_of.items()
    }
    assert {i: int(s["sessions"]) for i, s in statistics.items() if s["sessions"]} == {
        hash_id(item): n for item, n in oracle.sessions_with.items()
    }
    recent = {
        i: float(s["recent"] * np.exp(-20 * rate * (at - int(s["recent_at"]))))
        for i, s in statistics.items()
    }
    assert recent == pytest.approx(
        {hash_id(item): oracle.recent(item, at) for item in oracle.events_of}, rel=1e-4
    )

    trend: dict[tuple[int, int, int], float] = {}

    def add(granularity: int, bucket: int, item: int, weight: float) -> None:
        cell = granularity, bucket, item
        trend[cell] = trend.get(cell, 0.0) + weight

    for key, rest in found.get(b"r", []):
        granularity, bucket = (int(part) for part in rest.split(b":"))
        totals_of: Any = await redis.get(key)
        for item, weight in struct.iter_unpack("<Qf", totals_of[8:]):
            add(granularity, bucket, item, weight)
    for key, _ in found.get(b"l", []):
        log: Any = await redis.get(key)
        for item, weight, bucket in struct.iter_unpack("<QfI", log):
            for granularity, length in enumerate(GRANULARITIES):
                add(granularity, bucket * 300 // length.seconds, item, weight)
    # What no window reaches any more may be gone.
    first = [oracle.latest // g.seconds - g.buckets + 1 for g in GRANULARITIES]
    assert {cell: w for cell, w in trend.items() if cell[1] >= first[cell[0]]} == pytest.approx(
        {(g, b, hash_id(i)): w for (g, b, i), w in oracle.trend.items() if b >= first[g]}
    )

    totals = {k.decode(): int(v) for k, v in (await _hash(redis, keys.stats + b"t")).items()}
    assert totals == {
        "sessions": oracle.sessions,
        "events": oracle.events,
        "latest": oracle.latest,
    }
    for letter, cells in ((b"o", oracle.opportunities), (b"h", oracle.hits)):
        value: Any = await redis.get(keys.stats + letter) or b""
        counted = struct.unpack(f">{len(value) // 8}q", value)
        assert {cell: count for cell, count in enumerate(counted) if count} == {
            number(cell): n for cell, n in cells.items() if n
        }
    if names is not None:
        ids = np.array(list(names), np.uint64)
        texts = await StoreReader(redis, settings, generation).texts(ids)
        assert [text.item_id for text in texts] == list(names.values())


def _half_life(settings: Settings) -> float:
    return settings.fold.half_life_days


async def _hash(redis: Redis, key: bytes) -> dict[bytes, bytes]:
    found: Any = await redis.hgetall(key)
    return dict(found)


def small_lists(settings: Settings, **store: Any) -> Settings:
    """Settings that compact lists early."""
    update = {"neighbours": 10, "compact_factor": 1.2, "shards": 3, **store}
    return settings.model_copy(update={"store": settings.store.model_copy(update=update)})


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_committed_is_read(seed: int, settings: Settings, redis: Redis) -> None:
    random = Random(seed)
    settings = small_lists(settings, shards=random.choice([1, 3, 8]))
    writer = StoreWriter(redis, settings)
    log = random_log(random, settings, 150)
    at = 0
    while at < len(log):
        size = random.choice([1, 5, 40])
        await commit(writer, settings, log[at : at + size])
        at += size
    oracle = Oracle(settings).learn(log)
    names = {hash_id(click.item): click.item for click in log}
    await assert_store_is(oracle, redis, settings, names)
    await assert_reader_is(oracle, redis, settings)


async def assert_reader_is(oracle: Oracle, redis: Redis, settings: Settings) -> None:
    """The server's reads and its answers."""
    reader = StoreReader(redis, settings)
    totals = await reader.totals()
    assert totals["events"] == oracle.events
    knowledge = await reader.knowledge()
    assert knowledge.sessions == oracle.sessions
    prior = {
        (d, t, b): oracle.prior((d, t, b))
        for d in range(1, 31)
        for t in range(1, 4)
        for b in range(6)
    }
    assert len(knowledge.prior) == CELLS == len(prior)
    for cell, expected in prior.items():
        assert knowledge.prior[number(cell)] == pytest.approx(expected)
    weights: dict[str, dict[str, float]] = {}
    for a, b in list(oracle.parts):
        weights.setdefault(a, {})[b] = oracle.weight(a, b, oracle.latest)
    item_names = {hash_id(item): item for item in oracle.events_of}
    recommender = Recommender(reader, settings)
    items = list(oracle.events_of)
    for session in ([items[0]], [*items[:3], *items[:2]], ["nobody saw this", items[-1]]):
        choice = Choice(n=3, session=np.array([hash_id(i) for i in session], np.uint64))
        (found,) = await recommender.recommend_all([choice])
        scores = rank(settings, session, weights, oracle.sessions_with, oracle.sessions, prior)
        wanted = sorted(scores.values(), reverse=True)[:3]
        assert found.score.tolist()[: len(wanted)] == pytest.approx(wanted, abs=1e-5)
        for item, score in list(zip(found.item.tolist(), found.score.tolist(), strict=True))[
            : len(wanted)
        ]:
            name = item_names.get(item, "nobody saw this")
            assert scores[name] == pytest.approx(score, abs=1e-5)
    for window, granularity in WINDOWS.items():
        last = oracle.latest // GRANULARITIES[granularity].seconds
        buckets = range(last - GRANULARITIES[granularity].buckets + 1, last + 1)
        sums: dict[int, float] = {}
        for (g, bucket, name), weight in oracle.trend.items():
            if g == granularity and bucket in buckets:
                sums[hash_id(name)] = sums.get(hash_id(name), 0) + weight
        trending = await reader.trending(window)
        assert trending.category == [None] * len(trending.item)
        told = list(zip(trending.item.tolist(), trending.weight.tolist(), strict=True))
        assert told == sorted(sums.items(), key=lambda row: (-row[1], row[0]))


async def test_nothing_is_known_of_an_empty_store(settings: Settings, redis: Redis) -> None:
    reader = StoreReader(redis, settings)
    assert await reader.totals() == {}
    assert (await reader.knowledge()).sessions == 0
    assert len((await reader.history(hash_id("u"))).item) == 0
    assert await reader.neighbours(hashes(["a", "b"])) == [NOTHING, NOTHING]
    popularity = await reader.popularity(reader.interner.index(hashes(["a", "b"])))
    assert (popularity.sessions.tolist(), popularity.recent.tolist()) == ([0, 0], [0, 0])
    assert (await reader.knowledge()).model is None
    assert len((await reader.bought(hash_id("a"))).index) == 0
    assert await reader.neighbours(hashes([])) == []
    assert [t.item_id for t in await reader.texts(hashes(["a"]))] == [""]
    for window in WINDOWS:
        assert len((await reader.trending(window)).item) == 0
    choice = Choice(n=5, user=hash_id("u"))
    (found,) = await Recommender(reader, settings).recommend_all([choice])
    assert len(found.item) == 0
    marks = await StoreWriter(redis, settings).read_marks(TOPIC, 0)
    assert marks.lowest == -1


async def test_commits_are_fenced(settings: Settings, redis: Redis) -> None:
    settings = small_lists(settings)
    writer = StoreWriter(redis, settings)
    log = [Click(n, f"u{n % 3}", f"i{n % 4}", "view", 10**12 + n) for n in range(20)]
    stale = await writer.read_marks(TOPIC, 0)
    await commit(writer, settings, log[:10])
    rules = FoldRules(settings)
    events = columns_of(log[:12], settings)
    folded = fold_batch(
        (await writer.read_sessions([Target(TOPIC, 0, 0)], np.unique(events.user)))[0],
        events,
        rules,
    )
    items = item_deltas(folded, rules, lambda _, o: np.ones(len(o), np.bool_))
    totals = total_deltas(folded, np.ones(12, np.bool_))

    async def try_both(last: int, marks: Marks) -> list[Outcome]:
        target = Target(TOPIC, 0, last)
        return [
            await writer.commit_items([target], [marks], items, totals, {}),
            await writer.commit_users([target], [marks], folded.sessions),
        ]

    for outcome in await try_both(11, stale):
        assert outcome.refused
        assert set(outcome.contained[0].tolist()) == {9}
    for last in (9, 4):
        for outcome in await try_both(last, stale):
            assert not outcome.refused
            assert set(outcome.contained[0].tolist()) == {9}
    # Another partition and another topic have marks of their own.
    assert (await writer.read_marks(TOPIC, 1)).lowest == -1
    assert (await writer.read_marks("other", 0)).lowest == -1
    assert (await writer.read_marks(TOPIC, 0)).lowest == 9
    await assert_store_is(Oracle(settings).learn(log[:10]), redis, settings)


async def test_users_are_refused_once_redis_lost_their_items(
    settings: Settings, redis: Redis
) -> None:
    settings = small_lists(settings)
    writer = StoreWriter(redis, settings)
    log = [Click(n, f"u{n % 3}", f"i{n % 4}", "view", 10**12 + n) for n in range(20)]
    await commit(writer, settings, log[:10])
    keys = [key async for key in redis.scan_iter(match=Keys(settings.store).pattern, count=1000)]
    kept = {key: await redis.dump(key) for key in keys}
    rules = FoldRules(settings)
    events = columns_of(log[10:], settings)
    marks = await writer.read_marks(TOPIC, 0)
    target = Target(TOPIC, 0, 19)
    before, _ = await writer.read_sessions([target], np.unique(events.user))
    folded = fold_batch(before, events, rules)
    items = item_deltas(folded, rules, lambda _, o: np.ones(len(o), np.bool_))
    totals = total_deltas(folded, np.ones(10, np.bool_))
    assert not (await writer.commit_items([target], [marks], items, totals, {})).refused
    await redis.delete(*[key async for key in redis.scan_iter(match=Keys(settings.store).pattern)])
    for key, value in kept.items():
        assert value is not None
        await redis.restore(key, 0, value)
    assert (await writer.commit_users([target], [marks], folded.sessions)).refused
    again = Target(TOPIC, 0, 19)
    assert not (await writer.commit_items([again], [marks], items, totals, {})).refused
    assert (await writer.commit_users([target], [marks], folded.sessions)).refused
    assert not (await writer.commit_users([again], [marks], folded.sessions)).refused
    await assert_store_is(Oracle(settings).learn(log), redis, settings)


async def test_scripts_are_loaded_again_after_redis_forgot_them(
    settings: Settings, redis: Redis
) -> None:
    settings = small_lists(settings)
    writer = StoreWriter(redis, settings)
    log = [Click(n, "u", f"i{n % 7}", "view", 10**12 + n) for n in range(30)]
    for at in range(0, 30, 10):
        await redis.script_flush()
        await commit(writer, settings, log[at : at + 10])
    await assert_store_is(Oracle(settings).learn(log), redis, settings)


def chunk(time: int, *entries: tuple[int, float, float]) -> bytes:
    return struct.pack("<II", len(entries), time) + b"".join(
        struct.pack("<Qff", *entry) for entry in entries
    )


async def test_compaction_keeps_sums_and_the_heaviest(settings: Settings, redis: Redis) -> None:
    settings = small_lists(settings)
    writer = StoreWriter(redis, settings)
    key, other = Keys(settings.store).neighbours(np.array([700, 701], np.uint64))
    log = []
    for neighbour in range(100, 130):
        for n in range(3):
            both = neighbour - 99, (neighbour % 2) / 4
            log.append(chunk(1_700_000_000 - n, (neighbour, *both)))
    Random(1).shuffle(log)
    await redis.set(key, b"".join(log))
    before = sum_lists([b"".join(log)], decay_rate(30))
    assert (await writer.compact([key])).replaced == 1
    value: Any = await redis.get(key)
    after = sum_lists([value], decay_rate(30))
    assert len(value or b"") == 8 + 16 * 10
    assert after.neighbour.tolist() == list(range(120, 130))
    assert after.forward.tolist() == pytest.approx(before.forward.tolist()[-10:], rel=1e-6)
    assert after.backward.tolist() == pytest.approx(before.backward.tolist()[-10:], rel=1e-6)
    assert (await writer.compact([other, key, key])).replaced == 1
    assert await redis.get(key) == value
    assert await redis.exists(other) == 0


async def test_compaction_replaces_only_what_it_read(settings: Settings, redis: Redis) -> None:
    scripts = Scripts(redis)
    key, second = Keys(settings.store).neighbours(np.array([700, 700 + 8], np.uint64))
    one, two, three = (chunk(1_700_000_000, (100 + n, 1.0, 0.0)) for n in range(3))

    async def replace(old: bytes, new: bytes) -> list[Any]:
        reply: list[Any] = (await scripts.call([("compact", [key], [2008, old, new])]))[0]
        return reply

    await redis.set(key, one + two)
    await redis.append(key, three)
    assert await replace(one + two, b"S" * 16) == [1, []]
    assert await redis.get(key) == b"S" * 16 + three
    # A worker that read before the other's compaction changes nothing.
    assert await replace(one + two, b"T" * 16) == [0, []]
    assert await replace(one + two + three + one, b"T" * 16) == [0, []]
    assert await redis.get(key) == b"S" * 16 + three
    await redis.delete(key)
    assert await replace(one, b"T" * 16) == [0, []]
    assert await redis.exists(key) == 0
    await redis.mset({key: one, second: two})
    both: list[Any] = [2008, three, b"T" * 16, two, b"U" * 16]
    assert await scripts.call([("compact", [key, second], both)]) == [[1, []]]
    assert await redis.mget(key, second) == [one, b"U" * 16]


@pytest.mark.parametrize("length", [8, 640, 1000, 1004, 1005, 1608, 2008, 2009, 5000])
async def test_compaction_leaves_room_for_what_comes(
    length: int, settings: Settings, redis: Redis
) -> None:
    key = Keys(settings.store).neighbours(np.array([700], np.uint64))[0]
    old, new = b"old", Random(length).randbytes(length)
    await redis.set(key, old)
    grown = [key] if length > 2008 else []
    assert await Scripts(redis).call([("compact", [key], [2008, old, new])]) == [[1, grown]]
    assert await redis.get(key) == new
    if 1004 < length <= 2008:
        # Else what is appended doubles the buffer, and a list takes 3.2 KB and not 2.
        await redis.append(key, b"." * (2008 - length))
        assert (await redis.memory_usage(key) or 0) < 2500


async def test_an_append_between_reading_and_replacing_stays(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_lists(settings)
    writer = StoreWriter(redis, settings)
    key = Keys(settings.store).neighbours(np.array([700], np.uint64))[0]
    entry = chunk(1_700_000_000, (100, 1.0, 0.5))
    await redis.set(key, entry * 30)
    send = Scripts.call

    async def late(self: Scripts, calls: Any) -> Any:
        await redis.append(key, entry)
        return await send(self, calls)

    monkeypatch.setattr(Scripts, "call", late)
    assert (await writer.compact([key])).replaced == 1
    value: Any = await redis.get(key)
    found = sum_lists([value], decay_rate(30))
    assert (found.forward.tolist(), found.backward.tolist()) == ([31.0], [15.5])


async def test_trending_is_rolled_up(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.trends.DEPTH", 5)
    settings = small_lists(settings, neighbours=100)
    random = Random(5)
    log = random_log(random, settings, 400, users=9)
    log = [replace(click, item=f"i{random.randrange(40)}") for click in log]
    oracle = Oracle(settings)
    writer = StoreWriter(redis, settings)
    keys = Keys(settings.store)
    logs = [keys.trend_log(prefix) for prefix in keys.items]
    for at in range(0, 400, 50):
        await commit(writer, settings, log[at : at + 50])
        oracle.learn(log[at : at + 50])
        if at % 150:
            assert (await writer.compact(logs)).replaced == 3
            assert await redis.exists(*logs) == 0
        await assert_store_is(oracle, redis, settings)
    # Readers look at the heaviest alone.
    for key in [key async for key in redis.scan_iter(match=keys.pattern) if b"}r" in key]:
        value: Any = await redis.get(key)
        weights = [weight for _, weight in struct.iter_unpack("<Qf", value[8:])]
        assert sorted(weights[:5]) == sorted(weights)[-5:]


async def test_what_no_window_reaches_is_not_kept(settings: Settings, redis: Redis) -> None:
    settings = small_lists(settings, shards=1)
    writer, keys = StoreWriter(redis, settings), Keys(settings.store)
    log = keys.trend_log(keys.items[0])
    for hours in (0, 1, 30, 24 * 12, 2):  # the last one is late
        await redis.set(log, struct.pack("<QfI", 100, 2.0, 12 * hours))
        assert (await writer.compact([log])).replaced == 1
    await redis.set(log, struct.pack("<QfIQfI", 100, 2.0, 12 * 290, 100, 2.0, 12))
    assert (await writer.compact([log])).replaced == 1
    left = [key async for key in redis.scan_iter(match=keys.pattern) if b"}r" in key]
    wanted = [(0, 12 * 290), (1, 288), (1, 290), (2, 12)]
    assert sorted(left) == sorted(keys.trend(keys.items[0], *one) for one in wanted)


async def test_a_log_is_rolled_up_once(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers at the same time, an append in between, and a Redis that fell back."""
    settings = small_lists(settings, shards=1)
    keys = Keys(settings.store)
    log = keys.trend_log(keys.items[0])
    bucket = keys.trend(keys.items[0], 0, 5)
    one, two = (struct.pack("<QfI", 100 + n, 2.0, 5) for n in range(2))
    await redis.set(log, one)
    writers = [StoreWriter(redis, settings) for _ in range(2)]
    send, waiting = Scripts.call, asyncio.Barrier(2)

    async def together(self: Scripts, calls: Any) -> Any:
        await waiting.wait()
        await redis.set(log, one + two)
        return await send(self, calls)

    with monkeypatch.context() as patch:
        patch.setattr(Scripts, "call", together)
        both = await asyncio.gather(*(w.compact([log]) for w in writers))
        assert sorted(one.replaced for one in both) == [0, 1]
    assert await redis.get(log) == two
    value: Any = await redis.get(bucket)
    assert value[8:] == struct.pack("<Qf", 100, 2.0)

    async def late(self: Scripts, calls: Any) -> Any:
        await redis.set(log, one)  # as long, but another log
        return await send(self, calls)

    with monkeypatch.context() as patch:
        patch.setattr(Scripts, "call", late)
        assert (await writers[0].compact([log])).replaced == 0
    assert await redis.get(bucket) == value
    assert (await writers[0].compact([log])).replaced == 1
    value = await redis.get(bucket)
    assert value[8:] == struct.pack("<Qf", 100, 4.0)
    assert (await writers[0].compact([log])).replaced == 0


async def test_names_and_catalogue(settings: Settings, redis: Redis) -> None:
    writer = StoreWriter(redis, settings)
    names = ["ä", "\0", "😀" * 128, "plain"]
    await commit(
        writer, settings, [Click(n, "u", name, "view", 10**12) for n, name in enumerate(names)]
    )
    ids = np.array([hash_id(name) for name in names], np.uint64)
    entries = [CatalogueEntry(hash_id(name), b'{"n":%d}' % n) for n, name in enumerate(names[:3])]
    marks = await writer.read_catalogue_marks("items", 0)
    target = Target("items", 0, 5)
    twice = CatalogueEntry(hash_id("plain"), b"first"), CatalogueEntry(hash_id("plain"), b"second")
    assert not (await writer.commit_catalogue(target, marks, [*entries, *twice])).refused
    texts = await StoreReader(redis, settings).texts(ids)
    assert [t.item_id for t in texts] == names
    assert [t.catalogue for t in texts] == [b'{"n":0}', b'{"n":1}', b'{"n":2}', b"second"]
    late = await writer.commit_catalogue(Target("items", 0, 9), marks, [])
    assert late.refused
    marks = await writer.read_catalogue_marks("items", 0)
    gone = [CatalogueEntry(hash_id("ä"), None)]
    assert not (await writer.commit_catalogue(Target("items", 0, 9), marks, gone)).refused
    texts = await StoreReader(redis, settings).texts(ids[:1])
    assert (texts[0].item_id, texts[0].catalogue) == ("ä", None)
    assert set((await writer.read_catalogue_marks("items", 0)).tolist()) == {9}


async def test_a_name_stays_whatever_is_counted_of_its_item(
    settings: Settings, redis: Redis
) -> None:
    """Whoever has named an item leaves the name out from then on; after a restart, or where a
    shard had counted the item's events already, the name comes alone or once more.
    """
    writer = StoreWriter(redis, settings)
    ids = {name: hash_id(name) for name in "ab"}
    totals = TotalDeltas(0, 0, 0, np.zeros(CELLS, np.int64), np.zeros(CELLS, np.int64))
    told = []
    for last, (counted, named) in enumerate([("", "a"), ("ab", ""), ("ab", "b"), ("", "ab")]):
        marks = await writer.read_marks(TOPIC, 0)
        deltas = added_to({ids[name]: (1, 2, 1.0, 1_700_000_000) for name in counted})
        names = {ids[name]: name.encode() for name in named}
        target = Target(TOPIC, 0, last)
        assert not (await writer.commit_items([target], [marks], deltas, totals, names)).refused
        texts = await StoreReader(redis, settings).texts(np.array(list(ids.values()), np.uint64))
        told.append([text.item_id for text in texts])
    assert told == [["a", ""], ["a", ""], ["a", "b"], ["a", "b"]]
    keys = Keys(settings.store).statistics(np.array(list(ids.values()), np.uint64))
    values: Any = await redis.mget(keys)
    assert unpack_statistics(values).tolist() == [(2, 4, 2.0, 1_700_000_000)] * 2


async def test_users_are_forgotten_after_their_days(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_lists(settings, user_days=30)
    writer, sweep = StoreWriter(redis, settings), UserSweep(redis, settings)
    first_day = 65_530  # days are kept in 16 bits
    users = {n: f"u{n}" for n in range(0, 60, 5)}
    for n, user in users.items():
        # The events are old: what counts is when they were written.
        monkeypatch.setattr("store.writer.this_day", lambda n=n: first_day + n)
        await commit(writer, settings, [Click(n, user, "i", "view", 10**12)])
    for today in (first_day + 59, first_day + 70):
        monkeypatch.setattr("store.forget.this_day", lambda today=today: today)
        await sweep.step()
        while not await sweep.step():
            pass
        session = Keys(settings.store).sessions
        left = await redis.mget([session(hashes([user]))[0] for user in users.values()])
        assert [n for n, value in zip(users, left, strict=True) if value] == [
            n for n in users if today - (first_day + n) <= 30
        ]
    # Whoever comes again is kept.
    monkeypatch.setattr("store.writer.this_day", lambda: first_day + 89)
    await commit(writer, settings, [Click(99, "u50", "i", "view", 10**12)])
    monkeypatch.setattr("store.forget.this_day", lambda: first_day + 119)
    while not await sweep.step():
        pass
    keys = [key async for key in redis.scan_iter(match=Keys(settings.store).pattern)]
    kept = [key for key in keys if key.startswith(tuple(Keys(settings.store).session_heads()))]
    assert kept == Keys(settings.store).sessions(hashes(["u50"]))


async def test_each_tenants_users_are_forgotten_after_its_own_days(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_lists(settings, user_days=30)
    space = f"{settings.store.namespace}:books"
    store = settings.store.model_copy(update={"namespace": space, "user_days": 60})
    books = settings.of_tenant("books", {"store": store})
    monkeypatch.setattr("store.writer.this_day", lambda: 100)
    for one in (settings, books):
        await commit(StoreWriter(redis, one), one, [Click(0, "u", "i", "view", 10**12)])
    sweep = UserSweep(redis, settings, books)
    (of_default,), (of_books,) = (
        Keys(one.store).sessions(hashes(["u"])) for one in (settings, books)
    )
    for today, left in ((130, [True, True]), (131, [False, True]), (161, [False, False])):
        monkeypatch.setattr("store.forget.this_day", lambda today=today: today)
        while not await sweep.step():
            pass
        assert [value is not None for value in await redis.mget(of_default, of_books)] == left


async def test_trending_is_forgotten_once_its_windows_are_over(
    settings: Settings, redis: Redis
) -> None:
    writer, keys = StoreWriter(redis, settings), Keys(settings.store)
    await commit(writer, settings, [Click(0, "u", "i", "view", 10**12)])
    # By what it was rolled up into.
    assert (await writer.compact([keys.trend_log(prefix) for prefix in keys.items])).replaced == 1
    for shard, prefix in enumerate(keys.items):
        for granularity in GRANULARITIES:
            place = GRANULARITIES.index(granularity)
            bucket = 10**9 // granularity.seconds
            left = await redis.ttl(keys.trend(prefix, place, bucket))
            if hash_id("i") % keys.shards == shard:
                assert 0 <= granularity.keep_seconds - left < 60
            else:
                assert left == -2


async def test_what_others_wrote_is_no_session(settings: Settings, redis: Redis) -> None:
    keys = Keys(settings.store)
    await redis.set(keys.sessions(hashes(["u"]))[0], b"something else")
    with pytest.raises(StoreError, match=r"store\.namespace"):
        await StoreReader(redis, settings).history(hash_id("u"))
    await redis.set(keys.neighbours(hashes(["i"]))[0], b"something else")
    with pytest.raises(StoreError, match=r"store\.namespace"):
        await StoreReader(redis, settings).neighbours(hashes(["i"]))


async def test_a_commit_that_broke_off_is_not_tried_again(settings: Settings, redis: Redis) -> None:
    """Its mark stands, so that who tries again would believe that all of it is there."""
    await redis.lpush(Keys(settings.store).neighbours(hashes(["i"]))[0], b"of others")
    log = [Click(0, "u", "i", "view", 10**12), Click(1, "u", "j", "view", 10**12 + 1)]
    with pytest.raises(StoreError, match=r"commit_items in its midst.*replay --activate"):
        await commit(StoreWriter(redis, settings), settings, log)


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("command not allowed. script: 1f, on @user_script:7."),
        ReadOnlyError("You can't write against a read only replica. script: 1f, on @user_script:7"),
        ResponseError("MISCONF Errors writing to the AOF file. script: 1f, on @user_script:7."),
        ResponseError("HELD a snapshot of this shard is being taken"),
    ],
)
def test_a_commit_that_wrote_nothing_may_be_tried_again(error: ResponseError) -> None:
    assert broken_off(error, "commit_items") is None


async def test_lists_are_read_again_once_they_are_old(settings: Settings, redis: Redis) -> None:
    http = settings.http.model_copy(update={"list_cache_ms": 0})
    fresh = StoreReader(redis, settings.model_copy(update={"http": http}))
    http = settings.http.model_copy(update={"list_cache_ms": 10_000})
    cached = StoreReader(redis, settings.model_copy(update={"http": http}))
    writer = StoreWriter(redis, settings)
    for n in range(2):
        log = [Click(2 * n + k, f"u{n}", f"i{k}", "view", 10**12) for k in range(2)]
        await commit(writer, settings, log)
        counts = [(await r.neighbours(hashes(["i0"])))[0] for r in (fresh, cached)]
        assert [known.forward[0] / 2**-0.3 for known in counts] == pytest.approx([n + 1, 1])


async def test_many_requests_at_once_read_each_key_once_and_right(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = StoreWriter(redis, settings)
    log = [Click(n, f"u{n // 4}", f"i{n % 9}", "view", 10**12) for n in range(80)]
    await commit(writer, settings, log)
    # A reader that keeps few lists forgets some while others wait for theirs.
    monkeypatch.setattr("store.reader._KEPT_LISTS", 2)
    http = settings.http.model_copy(update={"list_cache_ms": 10_000})
    reader = StoreReader(redis, settings.model_copy(update={"http": http}))
    wanted = [np.array([hash_id(f"i{n % 9}"), hash_id("i0")], np.uint64) for n in range(60)]
    await reader.neighbours(wanted[0])
    answers = await asyncio.gather(*(reader.neighbours(items) for items in wanted))
    oracle = Oracle(settings).learn(log)
    for n, answer in enumerate(answers):
        for item, known in zip((f"i{n % 9}", "i0"), answer, strict=True):
            found = dict(
                zip(reader.interner.ids(known.index).tolist(), known.strength, strict=True)
            )
            assert found == pytest.approx(
                {
                    hash_id(b): oracle.weight(a, b, oracle.latest) ** settings.rank.count_power
                    for a, b in list(oracle.parts)
                    if a == item
                },
                rel=1e-5,
            )


def test_keys_name_their_shard(settings: Settings) -> None:
    keys = Keys(settings.store.model_copy(update={"namespace": "hw", "shards": 8}))
    ids = np.array([16, 17, 2**64 - 1], np.uint64)
    assert keys.shard_of(ids).tolist() == [0, 1, 7]
    assert keys.neighbours(ids)[1] == b"hw{1.i1}n" + struct.pack("<Q", 17)
    assert keys.sessions(ids)[2] == b"hw{1.u7}s" + b"\xff" * 8
    assert keys.trend(keys.items[0], 1, 5) == b"hw{1.i0}r1:5"
    assert keys.mark(keys.stats, "events", 3) == b"hw{1.g}w:events:3"
    assert id_bytes(ids)[0] == struct.pack("<Q", 16)
