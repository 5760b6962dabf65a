"""Exact commits under crashes, zombies and a Redis that loses its end, as a random model.

Two appliers work on the same two partitions at once. Each call to Redis waits for its turn, and one
seeded random generator says whose turn it is, which calls of a commit still reach Redis before a
crash, whose answers get lost, when Redis forgets its scripts or falls back to an earlier state: as
a whole, or, as in a Redis Cluster, those of its shards alone that lie on one of three nodes. An
applier that gets no turn for long is a zombie: it goes on with the marks and sessions that it read.
At the end one applier reads on from the lowest marks, and everything must equal the oracle.

The same model run on broken protocols must fail: that is what the mutations are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisGone

from config.overlay import recorded
from config.settings import Settings
from processors import apply, compaction, fold
from processors.apply import EventApplier, ReadAgain
from processors.fold import Folded, ItemDeltas, TotalDeltas
from processors.session import SessionTable
from store import trends
from store.commit import Lesson, Marks, Outcome, Target
from store.connect import connect
from store.forget import KeptGenerations
from store.generations import Generations, first_generation
from store.keys import Keys
from store.scripts import Call, Scripts
from store.writer import StoreWriter
from streams.columns import Bool, Tombstones, hash_id
from streams.dead import DeadLetters
from streams.decode import RejectedRecord
from streams.records import Record, RecordBatch, Records
from tests.oracle import (
    BASE,
    Click,
    Forget,
    Oracle,
    clicks_of,
    random_log,
    record_of,
    with_tombstones,
)
from tests.test_store import TOPIC, assert_store_is, small_lists

PARTITIONS = 2
SEEDS = 40
EVENTS = 140
Mutate = Callable[[str], str]


class Crashed(Exception):
    """A worker that is gone."""


class Graveyard(DeadLetters):
    """Dead letters in a set."""

    def __init__(self) -> None:
        self.buried: set[tuple[int, int]] = set()

    async def bury(self, source: str, partition: int, rejected: Sequence[RejectedRecord]) -> None:
        """Remember where they came from."""
        self.buried |= {(partition, dead.record.offset) for dead in rejected}


class Turns:
    """Holds an owner until the model lets it go on."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self._go = asyncio.Event()

    async def wait(self) -> None:
        """The owner's side."""
        self.waiting.set()
        await self._go.wait()
        self._go.clear()

    async def grant(self, task: asyncio.Task[None]) -> None:
        """The model's side; returns when the owner waits again or is done."""
        self.waiting.clear()
        self._go.set()
        await self.settle(task)

    async def settle(self, task: asyncio.Task[None]) -> None:
        """Until the owner waits or is done."""
        waits = asyncio.create_task(self.waiting.wait())
        await asyncio.wait({waits, task}, return_when=asyncio.FIRST_COMPLETED)
        waits.cancel()


class FaultyScripts(Scripts):
    """Calls of which some arrive, or whose answers get lost."""

    def __init__(self, redis: Redis, turns: Turns, faults: Random | None, mutate: Mutate) -> None:
        super().__init__(redis)
        self._turns, self._faults = turns, faults
        self._source = {name: mutate(text) for name, text in self._source.items()}
        self._sha = {name: _sha(text) for name, text in self._source.items()}

    async def call(self, calls: Sequence[Call]) -> list[Any]:
        """As the real one, or less."""
        await self._turns.wait()
        fault = self._faults.random() if self._faults else 1.0
        if fault > 0.16:
            return await super().call(calls)
        assert self._faults is not None
        share = self._faults.choice([0.0, 0.5, 1.0])
        await super().call([one for one in calls if self._faults.random() < share])
        raise Crashed if fault < 0.08 else RedisGone("the answer got lost")


class FaultyWriter(StoreWriter):
    """Waits for its turn before each read and each call."""

    def __init__(
        self,
        redis: Redis,
        settings: Settings,
        turns: Turns,
        faults: Random | None,
        mutate: Mutate,
    ) -> None:
        super().__init__(redis, settings)
        self.turns = turns
        self._scripts = FaultyScripts(redis, turns, faults, mutate)

    async def _read(self, groups: list[list[bytes]]) -> list[list[bytes | None]]:
        await self.turns.wait()
        return await super()._read(groups)


class ClusterWriter(FaultyWriter):
    """Keeps what it replaces, as on a Redis Cluster."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._undo_seconds = 3600


class UsersFirst(FaultyWriter):
    """A broken protocol: commits users before items."""

    _items: tuple[ItemDeltas, TotalDeltas, dict[int, bytes], Lesson | None]

    async def commit_items(
        self,
        targets: Sequence[Target],
        marks: Sequence[Marks],
        items: ItemDeltas,
        totals: TotalDeltas,
        names: dict[int, bytes],
        lesson: Lesson | None = None,
    ) -> Outcome:
        """Only remember them."""
        self._items = items, totals, names, lesson
        self._before = [Marks(one.items, one.users, one.totals) for one in marks]
        contained = [np.full(len(marks[0].items) + 1, one.last) for one in targets]
        return Outcome(False, np.array(contained), [], [])

    async def commit_users(
        self, targets: Sequence[Target], marks: Sequence[Marks], sessions: SessionTable
    ) -> Outcome:
        """Users, then items."""
        stored = await super().commit_users(targets, marks, sessions)
        if stored.refused:
            return stored
        items = await super().commit_items(targets, self._before, *self._items)
        return items if items.refused else stored


class Ledger:
    """Learns from every event of some batches: what it learned is the list of them."""

    def __init__(self, redis: Redis, settings: Settings, turns: Turns, random: Random) -> None:
        self._redis, self._turns, self._random = redis, turns, random
        self._key = Keys(settings.store).taught
        self._open = False

    async def lesson(self, folded: Folded) -> Lesson | None:
        """What stands there, and the events of this batch."""
        assert not self._open, "a lesson is asked for before the last one is done"
        if self._random.random() < 0.4:
            return None
        await self._turns.wait()
        known: Any = await self._redis.get(self._key) or b""
        # Another worker's turn may come between reading and committing.
        await self._turns.wait()
        self._open = True
        events = zip(folded.events.user.tolist(), folded.events.offset.tolist(), strict=True)
        more = b"".join(struct.pack("<QQ", user, offset) for user, offset in events)
        version = self._random.randbytes(8)
        return Lesson(known[:8], version + known[8:] + more)

    def done(self, committed: bool) -> None:
        """The next batch may come."""
        assert self._open
        self._open = False


class Model:
    """A log, a Redis, owners that come and go."""

    def __init__(
        self,
        seed: int,
        redis: Redis,
        settings: Settings,
        writer: type[FaultyWriter] = FaultyWriter,
        mutate: Mutate = str,
        nodes: int = 1,
    ) -> None:
        """Each shard lies on one of `nodes`, which fall back alone or all together."""
        self.random = Random(seed)
        self.nodes = nodes
        self.node_of: dict[bytes, int] = {}
        """By shards' prefixes."""
        self.redis, self.settings = redis, settings
        self.writer, self.mutate = writer, mutate
        self.dead = Graveyard()
        self.log: list[list[Record]] = [[] for _ in range(PARTITIONS)]
        self.events: list[list[Click | Forget]] = [[] for _ in range(PARTITIONS)]
        """What of the log is good, tombstones included."""
        self.bad: set[tuple[int, int]] = set()
        self.counts = {
            "turns": 0,
            "crashes": 0,
            "falls": 0,
            "reread": 0,
            "learned": 0,
            "together": 0,
            "forgotten": 0,
        }
        for one in with_tombstones(self.random, random_log(self.random, settings, EVENTS, users=6)):
            self._append(one)

    def _append(self, one: Click | Forget) -> None:
        partition = hash_id(one.user) // 1000 % PARTITIONS
        log = self.log[partition]
        offset = log[-1].offset + 1 if log else 0
        if self.random.random() < 0.05:
            offset += self.random.randrange(1, 4)  # a transaction's marker, say
        if self.random.random() < 0.06:
            log.append(Record(offset, BASE, b"?", b"{"))
            self.bad.add((partition, offset))
            offset += 1
        mine = replace(one, offset=offset)
        log.append(record_of(mine))
        self.events[partition].append(mine)
        self.counts["forgotten"] += isinstance(mine, Forget)

    async def run(self) -> None:
        """Chaos, then recovery, then the comparison; AssertionError where state is not exact."""
        pattern = Keys(self.settings.store).pattern
        keys = [key async for key in self.redis.scan_iter(match=pattern, count=1000)]
        if keys:
            await self.redis.delete(*keys)
        # Beside the live generation, one that is kept: users are forgotten there at once.
        generations = Generations(self.redis, self.settings)
        await generations.ensure_live(first_generation(self.settings))
        await generations.create("earliest", recorded(self.settings), {}, "ready")
        owners = [await self._owner() for _ in range(2)]
        kept: list[dict[bytes, bytes]] = [{} for _ in range(self.nodes)]
        luck = [self.random.choice([1, 1, 4, 40]) for _ in owners]
        try:
            for _ in range(self.random.randrange(60, 260)):
                place = self.random.choices(range(len(owners)), luck)[0]
                turns, task = owners[place]
                self.counts["turns"] += 1
                if task.done():
                    if not isinstance(task.exception(), Crashed | None):
                        task.result()
                    self.counts["crashes"] += task.exception() is not None
                    owners[place] = await self._owner()
                    continue
                await turns.grant(task)
                chance = self.random.random()
                # All at once, or one of them.
                alone = self.random.randrange(self.nodes) if self.random.random() < 0.7 else None
                some = range(self.nodes) if alone is None else [alone]
                if chance < 0.04 * self.nodes:
                    for node in some:
                        kept[node] = await self._dump(pattern, node)
                elif chance < 0.04 * self.nodes + 0.02:
                    self.counts["falls"] += 1
                    for node in some:
                        await self._fall_back(pattern, node, kept[node])
                elif chance > 0.98:
                    await self.redis.script_flush()
        finally:
            for _, task in owners:
                task.cancel()
            await asyncio.gather(*(task for _, task in owners), return_exceptions=True)
        await self._recover()
        await self._compare()

    async def _owner(self) -> tuple[Turns, asyncio.Task[None]]:
        turns = Turns()
        writer = self.writer(self.redis, self.settings, turns, self.random, self.mutate)
        task = asyncio.create_task(self._work(writer, self.random))
        await turns.settle(task)
        return turns, task

    async def _work(self, writer: FaultyWriter, random: Random) -> None:
        """What a worker does with both partitions until it has read them."""
        ledger = Ledger(self.redis, self.settings, writer.turns, random)
        forget = KeptGenerations(self.redis, self.settings).forget
        applier = EventApplier(self.settings, writer, self.dead, ledger, forget)
        position = [await applier.position(TOPIC, p) for p in range(PARTITIONS)]
        while True:
            open_ones = [p for p in range(PARTITIONS) if self._after(p, position[p])]
            if not open_ones:
                return
            batches = []
            for p in random.sample(open_ones, random.randint(1, len(open_ones))):
                records = self._after(p, position[p])[: random.choice([1, 3, 8, 30])]
                batches.append(RecordBatch(TOPIC, p, position[p], Records.of(records)))
            results = await applier.apply(batches)
            self.counts["together"] += len(batches) > 1
            for batch, result in zip(batches, results, strict=True):
                if isinstance(result, ReadAgain):
                    self.counts["reread"] += 1
                    position[batch.partition] = result.offset
                else:
                    position[batch.partition] = batch.last + 1
            with contextlib.suppress(RedisGone):
                await applier.compaction.some()

    def _after(self, partition: int, offset: int) -> list[Record]:
        return [record for record in self.log[partition] if record.offset >= offset]

    async def _recover(self) -> None:
        turns = Turns()
        writer = self.writer(self.redis, self.settings, turns, None, self.mutate)
        task = asyncio.create_task(self._work(writer, self.random))
        await turns.settle(task)
        for _ in range(3000):
            if task.done():
                break
            await turns.grant(task)
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            pytest.fail("the worker makes no progress")
        task.result()

    async def _compare(self) -> None:
        clean = StoreWriter(self.redis, self.settings)
        for p in range(PARTITIONS):
            last = self.log[p][-1].offset if self.log[p] else -1
            marks = await clean.read_marks(TOPIC, p)
            assert {*marks.items.tolist(), *marks.users.tolist(), marks.totals} == {last}
        log = [one for some in self.events for one in some]
        clicks = clicks_of(log)
        names = {hash_id(click.item): click.item for click in clicks}
        oracle = Oracle(self.settings).learn(log)
        await assert_store_is(oracle, self.redis, self.settings, names)
        await self._compare_lessons(clicks)
        assert self.dead.buried == self.bad

    async def _compare_lessons(self, clicks: list[Click]) -> None:
        """No event was learned from twice; and some were."""
        ledger: Any = await self.redis.get(Keys(self.settings.store).taught) or b""
        learned = list(struct.iter_unpack("<QQ", ledger[8:]))
        self.counts["learned"] += len(learned)
        assert len(learned) == len(set(learned)), "an event was learned from twice"
        assert set(learned) <= {(hash_id(click.user), click.offset) for click in clicks}

    async def _keys_of(self, pattern: bytes, node: int) -> list[bytes]:
        keys = [key async for key in self.redis.scan_iter(match=pattern, count=1000)]
        return [key for key in sorted(keys) if self._node(key[: key.index(b"}") + 1]) == node]

    def _node(self, prefix: bytes) -> int:
        return self.node_of.setdefault(prefix, self.random.randrange(self.nodes))

    async def _dump(self, pattern: bytes, node: int) -> dict[bytes, bytes]:
        keys = await self._keys_of(pattern, node)
        pipeline = self.redis.pipeline(transaction=True)
        for key in keys:
            pipeline.dump(key)
        return dict(zip(keys, await pipeline.execute(), strict=True))

    async def _fall_back(self, pattern: bytes, node: int, kept: dict[bytes, bytes]) -> None:
        """A node comes back as it was: what was written since is lost."""
        keys = await self._keys_of(pattern, node)
        pipeline = self.redis.pipeline(transaction=True)
        if keys:
            pipeline.delete(*keys)
        for key, value in kept.items():
            pipeline.restore(key, 0, value)
        await pipeline.execute()


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
async def redis(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Redis, Settings]]:
    """A client, and settings under which lists are compacted often and lose nothing by it."""
    monkeypatch.setattr(apply, "_FIRST_PAUSE", 0.0)
    monkeypatch.setattr(trends, "_LOG_BYTES", 200)
    monkeypatch.setattr(compaction, "_SECONDS", 0.0)
    monkeypatch.setattr(apply, "log", structlog.wrap_logger(None, processors=[_drop]))
    client = connect(settings)
    yield client, small_lists(settings)
    await client.aclose()


def _drop(*_: Any) -> dict[str, Any]:
    raise structlog.DropEvent


@pytest.mark.parametrize("nodes", [1, 3])
async def test_every_run_ends_exact(nodes: int, redis: tuple[Redis, Settings]) -> None:
    counts: dict[str, int] = {}
    writer: type[FaultyWriter] = FaultyWriter if nodes == 1 else ClusterWriter
    for seed in range(SEEDS):
        model = Model(seed, *redis, writer=writer, nodes=nodes)
        try:
            await model.run()
        except BaseException:
            print(f"seed {seed}: {model.counts}")
            raise
        counts = {name: counts.get(name, 0) + n for name, n in model.counts.items()}
    print(f"seeds 0…{SEEDS - 1}: {counts}")
    # Else the runs were too tame to say anything.
    assert min(counts.values()) >= SEEDS / 2


def _without(line: str) -> Mutate:
    def mutate(text: str) -> str:
        fenced = "{APPLIED, contained" in text
        if text.count(line) != fenced:  # no AssertionError, which would pass for a finding
            raise ValueError("the line to break is gone")
        return text.replace(line, "")

    return mutate


_take = Tombstones.take
REFUSAL = "if not continued then return {REFUSED, contained} end"
LOST = "if pass and redis.call('GET', pass) ~= ARGV[#ARGV] then return {REFUSED, contained} end"
REPEAT = "if #moves == 0 then return {CONTAINED, contained} end"
MOVE = "redis.call('MSET', unpack(moved))"
PART = "if contained[i] ~= offsets[1][i] then continued = false end"


def _unfenced(text: str) -> str:
    # A batch that is contained moves no mark.
    text = text.replace(MOVE, f"if #moved > 0 then {MOVE} end")
    return _without(REPEAT)(_without(REFUSAL)(text))


def _lessons_first(text: str) -> str:
    """The lesson goes in though the batch is refused or contained."""
    begin = text.find("local model = ")
    if begin < 0:
        return text
    lesson = text[begin:].replace("return {APPLIED, contained, 1}", "")
    lesson = lesson.replace("return {APPLIED, contained, 0}", "")
    known = "local prefix = KEYS[parts + 1]\n"
    return text[:begin].replace(known, known + lesson) + "return {APPLIED, contained}"


def _first_part_alone(text: str) -> str:
    """Whether the batch continues what is there is asked of its first part alone."""
    return text.replace(PART, f"if i == 1 then {PART} end")


def _take_all(folded: fold.Folded, rules: fold.FoldRules, _newer: Any) -> ItemDeltas:
    return fold.item_deltas(folded, rules, lambda _, rows: np.ones(len(rows), np.bool_))


def _take_all_tombstones(self: Tombstones, where: Bool, events: Bool) -> Tombstones:
    return _take(self, np.ones(len(where), np.bool_), events)


def _never(_: Marks) -> bool:
    return False


def _without_deleting(text: str) -> str:
    return text.replace("call('DEL', some[n + 1])", "")


@pytest.mark.parametrize(
    "broken",
    [
        "users before items",
        "offset not checked",
        "gaps not refused",
        "gaps of one part not refused",
        "repeats added again",
        "users after lost items",
        "lessons outside the fence",
        "tombstones taken again",
        "tombstones left out",
        "users ahead of a node that fell back",
        "users ahead of what is known of counts",
    ],
)
async def test_the_model_catches(
    broken: str, redis: tuple[Redis, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate: Mutate = str
    writer: type[FaultyWriter] = FaultyWriter
    nodes, first = 1, 0
    match broken:
        case "users before items":
            # Items leave the pass that users need; without it the order alone would matter.
            writer, mutate = UsersFirst, _without(LOST)
        case "offset not checked":
            mutate = _unfenced
        case "gaps not refused":
            mutate = _without(REFUSAL)
        case "gaps of one part not refused":
            mutate = _first_part_alone
        case "users after lost items":
            mutate = _without(LOST)
        case "lessons outside the fence":
            mutate = _lessons_first
        case "repeats added again":
            monkeypatch.setattr(apply, "item_deltas", _take_all)
        case "tombstones taken again":
            monkeypatch.setattr(Tombstones, "take", _take_all_tombstones)
        case "tombstones left out":
            mutate = _without_deleting
        case "users ahead of a node that fell back":
            monkeypatch.setattr(Marks, "users_ahead", property(_never))
            writer, nodes = ClusterWriter, 3
        case "users ahead of what is known of counts":
            monkeypatch.setattr(Marks, "users_ahead", property(_never))
            first = 30  # it takes three workers, of whom one is slow, and a fall at the right time
    for seed in range(first, SEEDS):
        model = Model(seed, *redis, writer=writer, mutate=mutate, nodes=nodes)
        try:
            await model.run()
        except (AssertionError, pytest.fail.Exception) as found:
            print(f"caught with seed {seed}: {str(found).splitlines()[0]}")
            return
    pytest.fail(f"{SEEDS} runs ended exact with {broken}")
