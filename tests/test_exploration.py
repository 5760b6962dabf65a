"""New items in a real Redis: how they enter and leave, how exposures are counted, who is shown."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisGone

from config.errors import StreamError
from config.settings import DEFAULT_TENANT, Settings
from processors.apply import ReadAgain
from processors.exposure import ExposureApplier
from serving import metrics
from serving.exposures import Exposures
from serving.recommend import Recommender, Scored
from serving.wanted import Choice
from store.commit import CatalogueEntry, Target
from store.connect import connect
from store.exposures import ExposureWriter, read_new_items
from store.keys import Keys
from store.reader import StoreReader
from store.scripts import Call, Scripts
from store.writer import StoreWriter
from streams.columns import U64, hash_id
from streams.dead import DeadLetters
from streams.decode import RejectedRecord
from streams.producer import Headers, RecordProducer, Report
from streams.records import Record, RecordBatch, Records
from streams.shown import Shown
from tests.oracle import Click
from tests.test_store import commit

SHOWN = "recommendations"
NOW = 1_700_000_000_000
EVERYTHING = 10**9


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = connect(settings)
    yield client
    await client.aclose()


def exploring(settings: Settings, **explore: Any) -> Settings:
    return settings.model_copy(update={"explore": settings.explore.model_copy(update=explore)})


def hashed(*names: str) -> U64:
    return np.array([hash_id(name) for name in names], np.uint64)


class Shop:
    """A catalogue and its visitors, each step a batch of its own."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.redis, self.settings = redis, settings
        self.keys = Keys(settings.store)
        self.writer = StoreWriter(redis, settings)
        self._events = self._entries = 0

    async def put(self, *names: str, settings: Settings | None = None) -> None:
        entries = [(name, b'{"item_id":"%b"}' % name.encode()) for name in names]
        await self._commit(settings, entries)

    async def delete(self, *names: str) -> None:
        await self._commit(None, [(name, None) for name in names])

    async def _commit(
        self, settings: Settings | None, entries: Sequence[tuple[str, bytes | None]]
    ) -> None:
        writer = self.writer if settings is None else StoreWriter(self.redis, settings)
        marks = await writer.read_catalogue_marks("items", 0)
        self._entries += len(entries)
        outcome = await writer.commit_catalogue(
            Target("items", 0, self._entries),
            marks,
            [CatalogueEntry(hash_id(name), value) for name, value in entries],
        )
        assert not outcome.refused

    async def visit(self, *names: str) -> None:
        """One batch with an event of each item."""
        first, self._events = self._events, self._events + len(names)
        log = [
            Click(first + n, f"u{(first + n) % 7}", name, "view", NOW + 1000 * (first + n))
            for n, name in enumerate(names)
        ]
        await commit(self.writer, self.settings, log)

    async def new(self, given_up: int = EVERYTHING) -> dict[int, int]:
        """Exposures of the new items, by hash."""
        found = await read_new_items(self.redis, self.keys, given_up)
        assert found.count == len(found.item)
        assert (np.diff(found.exposures) >= 0).all()
        return dict(zip(found.item.tolist(), found.exposures.astype(int).tolist(), strict=True))


def of(**exposures: int) -> dict[int, int]:
    return {hash_id(name): times for name, times in exposures.items()}


@pytest.fixture
def shop(redis: Redis, settings: Settings) -> Shop:
    return Shop(redis, exploring(settings, events=5))


class TestNewItems:
    async def test_one_leaves_with_the_event_that_proves_it(self, shop: Shop) -> None:
        await shop.visit("never in the catalogue", "late", "late", "late", "late", "known")
        await shop.visit(*["known"] * 4)
        assert await shop.new() == {}
        await shop.put("a", "b", "late", "known")
        assert await shop.new() == of(a=0, b=0, late=0)
        await shop.visit("a", "a", "a", "b")
        await shop.visit("a")
        assert await shop.new() == of(a=0, b=0, late=0)
        await shop.visit("a", "a", "late")
        assert await shop.new() == of(b=0)
        await shop.put("a", "late", "known")
        assert await shop.new() == of(b=0)

    async def test_a_lower_bound_holds_once_the_entry_is_set_again(self, shop: Shop) -> None:
        await shop.put("a", "b")
        await shop.visit("a", "a", "a")
        await shop.put("a", "b", settings=exploring(shop.settings, events=3))
        assert await shop.new() == of(b=0)

    async def test_one_leaves_with_its_entry(self, shop: Shop) -> None:
        await shop.put("a", "b")
        await count(shop, ["a", "a", "b"])
        await shop.delete("a")
        await count(shop, ["a", "b"], first=3)
        assert await shop.new() == of(b=2)
        await shop.put("a")
        assert await shop.new() == of(a=0, b=2)

    async def test_one_that_was_given_up_does_not_come_back(self, shop: Shop) -> None:
        await shop.put("a", "b")
        await count(shop, ["a"] * 3 + ["b"] * 2)
        assert await shop.new(given_up=3) == of(b=2)
        await shop.put("a", "b")
        assert await shop.new(given_up=3) == of(b=2)
        assert await shop.new() == of(a=3, b=2)
        await shop.visit(*["a"] * 5)
        assert await shop.new() == of(b=2)

    async def test_those_shown_least_are_at_hand_and_all_are_counted(self, shop: Shop) -> None:
        names = [f"i{n}" for n in range(300)]
        await shop.put(*names)
        often = names[:120]
        await count(shop, often)
        found = await read_new_items(shop.redis, shop.keys, 200)
        assert found.count == 300
        assert len(found.item) == 50 * shop.settings.store.shards
        assert not set(found.item.tolist()) & {hash_id(name) for name in often}


class Letters(DeadLetters):
    """Dead letters by offset, with their reasons."""

    def __init__(self) -> None:
        self.reasons: dict[int, str] = {}

    async def bury(self, source: str, partition: int, rejected: Sequence[RejectedRecord]) -> None:
        assert (source, partition) == (SHOWN, 0)
        self.reasons |= {dead.record.offset: dead.rejection.reason for dead in rejected}


def shown(offset: int, *items: str) -> Record:
    value = msgspec.json.encode(Shown(f"r{offset}", NOW, explored=list(items)))
    return Record(offset, NOW, b"u", value)


def batch_of(records: Sequence[Record], start: int | None = None) -> RecordBatch:
    return RecordBatch(SHOWN, 0, records[0].offset if start is None else start, Records.of(records))


async def count(shop: Shop, items: list[str], first: int = 0) -> None:
    """Count items as shown, by a record each."""
    applier = ExposureApplier(ExposureWriter(shop.redis, shop.settings), Letters())
    batch = batch_of([shown(first + n, item) for n, item in enumerate(items)])
    assert await applier.apply(batch) == batch.last


class FaultyScripts(Scripts):
    """Calls of which some arrive, and whose answers get lost."""

    faults: Random

    async def call(self, calls: Sequence[Call]) -> list[Any]:
        if self.faults.random() < 0.5:
            await super().call([one for one in calls if self.faults.random() < 0.6])
            raise RedisGone("the answer got lost")
        return await super().call(calls)


class TestExposures:
    async def test_malformed_records_are_buried_and_the_others_counted(self, shop: Shop) -> None:
        good = b'{"recommendation_id":"r","timestamp":1,"explored":["a"],"more":{}}'
        bad = {
            None: "empty",
            b"": "not_json",
            b"\xff": "not_json",
            good[:-1]: "not_json",
            good.replace(b"{}", b"[" * 100_000): "not_json",
            b"[]": "invalid",
            b"{}": "invalid",
            good.replace(b'["a"]', b'"a"'): "invalid",
            good.replace(b'["a"]', b'["a",""]'): "invalid",
            good.replace(b'["a"]', b"[%b]" % b",".join([b'"a"'] * 101)): "invalid",
            good.replace(b"1", b"-1"): "invalid",
            good.replace(b'"r"', b'"%b"' % (b"r" * 65)): "invalid",
        }
        await shop.put("a", "b")
        records = [Record(n, NOW, None, value) for n, value in enumerate(bad)]
        more = [Record(20, NOW, b"u", good), shown(21), shown(22, "a", "b", "a", "unknown")]
        letters = Letters()
        applier = ExposureApplier(ExposureWriter(shop.redis, shop.settings), letters)
        assert await applier.position(SHOWN, 0) == 0
        assert await applier.apply(batch_of([*records, *more])) == 22
        assert await applier.position(SHOWN, 0) == 23
        assert letters.reasons == dict(enumerate(bad.values()))
        assert await shop.new() == of(a=3, b=1)

    async def test_what_does_not_follow_is_read_again(self, shop: Shop) -> None:
        await shop.put("a")
        applier = ExposureApplier(ExposureWriter(shop.redis, shop.settings), Letters())
        assert await applier.apply(batch_of([shown(7, "a")])) == ReadAgain(0)
        # The log itself begins later: retention took what came before.
        assert await applier.apply(batch_of([shown(7, "a")], start=0)) == 7
        assert await applier.apply(batch_of([shown(9, "a")])) == ReadAgain(8)
        assert await applier.apply(batch_of([shown(7, "a")])) == 7
        assert await shop.new() == of(a=1)

    async def test_a_commit_that_another_overtook_changes_nothing(self, shop: Shop) -> None:
        await shop.put("a")
        writer = ExposureWriter(shop.redis, shop.settings)
        stale = await writer.read_marks(SHOWN, 0)
        await count(shop, ["a"] * 3)
        late = await writer.commit(Target(SHOWN, 0, 5), stale, hashed("a"), np.array([5]))
        assert late.refused
        again = await writer.commit(Target(SHOWN, 0, 1), stale, hashed("a"), np.array([1]))
        assert not again.refused
        assert await shop.new() == of(a=3)

    @pytest.mark.parametrize("seed", range(6))
    async def test_each_counts_once_however_often_it_comes(
        self, seed: int, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        random = Random(seed)
        shards = settings.store.model_copy(update={"shards": 3})
        shop = Shop(redis, settings.model_copy(update={"store": shards}))
        names = [f"i{n}" for n in range(9)]
        await shop.put(*names)
        items = [random.choices(names, k=random.randrange(3)) for _ in range(120)]
        records = [shown(n, *some) for n, some in enumerate(items)]
        wanted = Counter(name for some in items for name in some)
        monkeypatch.setattr("processors.item_topics._RETRY_SECONDS", 0)
        monkeypatch.setattr(FaultyScripts, "faults", random, raising=False)
        monkeypatch.setattr("store.exposures.Scripts", FaultyScripts)
        appliers = [
            ExposureApplier(ExposureWriter(redis, shop.settings), Letters()) for _ in range(2)
        ]
        kept: dict[bytes, Any] = {}
        lost = random.randrange(20, 100)
        while (at := await appliers[0].position(SHOWN, 0)) < len(records):
            if not kept and at > lost // 2:
                found = [key async for key in redis.scan_iter(match=shop.keys.pattern)]
                kept = {key: await redis.dump(key) for key in found}
            if at > lost > 0:
                lost = 0  # once, Redis comes back without its end
                for key, value in kept.items():
                    await redis.restore(key, 0, value, replace=True)
            # Both read from somewhere before or behind where the store is.
            batches = []
            for _ in appliers:
                start = max(0, min(at + random.randrange(-15, 4), len(records) - 1))
                batches.append(batch_of(records[start : start + random.randrange(1, 25)]))
            await asyncio.gather(
                *(one.apply(batch) for one, batch in zip(appliers, batches, strict=True))
            )
        assert await shop.new() == of(**{name: wanted[name] for name in names})

    async def test_what_kafka_does_not_take_is_counted_and_holds_nothing_up(self) -> None:
        class Refusing(RecordProducer):
            def __init__(self) -> None:
                self.records: list[tuple[str, bytes | None, bytes | None]] = []

            def publish(
                self,
                topic: str,
                key: bytes | None,
                value: bytes | None,
                headers: Headers | None = None,
                report: Report | None = None,
            ) -> None:
                self.records.append((topic, key, value))
                assert report is not None
                if len(self.records) == 1:
                    raise StreamError("not now")
                if len(self.records) == 2:
                    report("not now")

        def counted() -> tuple[float, float]:
            both = [one.labels(DEFAULT_TENANT) for one in (metrics.UNTOLD, metrics.UNPUBLISHED)]
            return both[0]._value.get(), both[1]._value.get()  # noqa: SLF001

        before = counted()
        producer = Refusing()
        exposures = Exposures(producer, SHOWN, everything=True)
        exposures.tell("r1", None, ["b", "a"], cost=0.25)
        exposures.tell("r2", "u", ["c"])
        assert not producer.records
        exposures.flush()
        assert counted() == (before[0] + 1, before[1] + 2)
        [one, two] = producer.records
        assert (one[:2], two[:2]) == ((SHOWN, b"r1"), (SHOWN, b"u"))
        found = [msgspec.json.decode(value or b"", type=Shown) for _, _, value in (one, two)]
        assert [each.explored for each in found] == [["a"], []]
        assert [each.items for each in found] == [["b", "a"], ["c"]]
        # From the third on, Kafka says nothing: so many may wait, and no more.
        for _ in range(20_010):
            exposures.tell("r3", "u", ["c"])
        exposures.flush()
        assert counted() == (before[0] + 1, before[1] + 12)


NEW = [f"new-{n}" for n in range(6)]
KNOWN = [f"known-{n}" for n in range(30)]


class TestRecommendations:
    @pytest.fixture(autouse=True)
    async def stocked(self, shop: Shop) -> None:
        """All sessions are alike, and six items are new."""
        await shop.visit(*KNOWN * 6)
        await shop.put(*KNOWN, *NEW)

    async def ask(
        self, shop: Shop, choice: Choice, times: int, **explore: Any
    ) -> tuple[Scored, list[Scored]]:
        """The best answer, and the explored ones of so many."""
        settings = exploring(shop.settings, **{"share": 0.3, **explore})
        print("seed 7")
        reader = StoreReader(shop.redis, settings)
        recommender = Recommender(reader, settings, np.random.default_rng(7))
        best = await recommender.best(choice)
        assert best.explored is None
        explored = []
        for _ in range(times):
            (found,) = await recommender.recommend_all([choice])
            if found.explored is None:
                assert found.item.tolist() == best.item.tolist()
            else:
                explored.append(found)
            assert found.score.tolist() == best.score.tolist()
        return best, explored

    async def test_the_share_is_what_was_set_and_the_last_place_alone_gives_way(
        self, shop: Shop
    ) -> None:
        choice = Choice(10, session=hashed("known-3", "known-4"), explain=True)
        best, explored = await self.ask(shop, choice, 1000)
        assert len(explored) == pytest.approx(300, abs=60)  # four standard deviations
        times = Counter(int(found.item[-1]) for found in explored)
        assert set(times) == set(hashed(*NEW).tolist())
        assert min(times.values()) > 25
        assert best.why is not None
        for found in explored:
            assert found.item[:-1].tolist() == best.item[:-1].tolist()
            assert found.explored == best.score[-1]
            assert found.why is not None
            assert [w.factor for w in found.why[:-1]] == [w.factor for w in best.why[:-1]]
            last = found.why[-1]
            assert last.factor * (last.co_occurrence + last.repeat).sum() + last.trending == (
                pytest.approx(float(found.score[-1]))
            )

    async def test_weights_of_what_is_trending_cost_their_share(self, shop: Shop) -> None:
        best, explored = await self.ask(shop, Choice(20), 100)
        assert explored
        assert explored[0].explored == pytest.approx(float(best.score[-1] / best.score.sum()))

    @pytest.mark.parametrize(
        ("choice", "explore"),
        [
            (Choice(4), {}),
            (Choice(1, session=hashed("known-1")), {}),
            (Choice(20, exclude=hashed(*NEW)), {}),
            (Choice(20, exclude=hashed(*KNOWN[:26])), {"share": 0.5}),
            (Choice(20), {"share": 0}),
            (Choice(20), {"exposures": 0}),
        ],
    )
    async def test_never(self, choice: Choice, explore: dict[str, Any], shop: Shop) -> None:
        best, explored = await self.ask(shop, choice, 200, **explore)
        assert len(best.item)
        assert explored == []

    async def test_what_is_left_out_or_in_the_answer_is_not_tried(self, shop: Shop) -> None:
        await shop.visit("new-0", "known-0", "new-0")
        choice = Choice(40, session=hashed("known-0"), exclude=hashed("new-1", "new-2"))
        best, explored = await self.ask(shop, choice, 200)
        assert hash_id("new-0") in best.item.tolist()
        assert {int(found.item[-1]) for found in explored} == set(hashed(*NEW[3:]).tolist())
