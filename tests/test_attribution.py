"""What came of which answer, in a real Redis: whatever the order in which two topics are read,
whoever reads them twice, and whatever Redis forgets, counts are those of a slow oracle.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisGone

from config.overlay import recorded
from config.settings import ExperimentsSettings, Settings, load_settings
from processors import metrics
from processors.apply import ReadAgain
from processors.attribution import AnswerRecords, AttributionApplier, EventRecords
from store.attribution import AttributionWriter, VariantCounts, read_outcomes
from store.connect import connect
from store.forget import KeptGenerations
from store.generations import Generations, first_generation
from store.keys import Keys
from store.scripts import Call, Scripts
from store.snapshot import read_header, restore, save
from streams.columns import U64, hash_id
from streams.event import Event
from streams.records import Record, RecordBatch, Records
from streams.shown import Shown

HOUR = 3_600_000
DAY = 24 * HOUR
START = 1_700_000_000_000
PARTITIONS = 2
WINDOW_HOURS = 6.0
SEEDS = range(8)
EVENTS, SHOWN = "the-events", "the-answers"
Outcomes = dict[str, dict[str, VariantCounts]]


@dataclass(frozen=True)
class Step:
    """A record that is there to be read."""

    topic: str
    partition: int
    record: Record
    what: Shown | Event


@pytest.fixture
def own(settings: Settings) -> Settings:
    kafka = settings.kafka.model_copy(
        update={"events_topic": EVENTS, "recommendations_topic": SHOWN}
    )
    rules = ExperimentsSettings(window_hours=WINDOW_HOURS, clicks=["click", "view"])
    store = settings.store.model_copy(update={"shards": 3})
    return settings.model_copy(update={"kafka": kafka, "experiments": rules, "store": store})


@pytest_asyncio.fixture
async def redis(own: Settings) -> AsyncIterator[Redis]:
    client = connect(own)
    yield client
    await client.aclose()


def appliers(redis: Redis, own: Settings) -> dict[str, AttributionApplier]:
    writer = AttributionWriter(redis, own)
    return {
        EVENTS: AttributionApplier(writer, EventRecords(own), "event"),
        SHOWN: AttributionApplier(writer, AnswerRecords(own), "answer"),
    }


async def outcomes(redis: Redis, own: Settings) -> Outcomes:
    return await read_outcomes(redis, Keys(own.store))


class Log:
    """Two topics with two partitions, keyed by user."""

    def __init__(self) -> None:
        self.steps: dict[tuple[str, int], list[Step]] = {
            (topic, number): [] for topic in (EVENTS, SHOWN) for number in range(PARTITIONS)
        }

    def add(self, what: Shown | Event, broker: int, user: str | None = None) -> None:
        """At the end of its partition; at the broker's time."""
        assert what.user_id is not None
        user = what.user_id if user is None else user
        topic = EVENTS if isinstance(what, Event) else SHOWN
        partition = hash_id(user) // 16 % PARTITIONS
        steps = self.steps[topic, partition]
        record = Record(len(steps), broker, user.encode(), msgspec.json.encode(what))
        steps.append(Step(topic, partition, record, what))

    def batch(self, topic: str, partition: int, begin: int, end: int) -> RecordBatch:
        some = [step.record for step in self.steps[topic, partition][begin:end]]
        return RecordBatch(topic, partition, begin, Records.of(some))


def random_log(random: Random, count: int = 250) -> Log:
    """Users who are shown answers of two experiments, and click and buy, some long after, some of
    what nobody showed them; several records come twice. The broker has answers up to a minute late,
    and some events before the answers that led to them.
    """
    said: list[tuple[int, Shown | Event]] = []
    users = [f"user-{n}" for n in range(5)]
    of = {
        user: {
            one: random.choice("ab") for one in ("home", "cart", "none") if random.random() < 0.8
        }
        for user in users
    }
    answers: list[Shown] = []
    now = START
    for number in range(count):
        now += random.randrange(HOUR)
        user = random.choice(users)
        mine = [one for one in answers if one.user_id == user]
        if random.random() < 0.4 or not mine:
            items = [f"i{random.randrange(15)}" for _ in range(4)]
            one = random.choice([*of[user], *of[user], "none"])
            variant = of[user].get(one)
            if variant is not None and random.random() < 0.05:
                variant = random.choice("ab")  # weights were changed meanwhile
            named = one if variant is not None and one != "none" else None
            shown = Shown(
                f"r{number}",
                now,
                user,
                items,
                experiment=named,
                variant=variant if named else None,
            )
            answers.append(shown)
            said += [(now + random.randrange(60_000), shown)] * (1 + (random.random() < 0.1))
        else:
            led = random.choice(mine[-4:])
            kind = random.choice(["click", "view", "purchase", "cart"])
            event = Event(
                user,
                random.choice([*led.items, *led.items, "elsewhere"]),
                kind,
                now - random.randrange(1000),
                event_id=f"e{number}" if random.random() < 0.7 else None,
                recommendation_id=led.recommendation_id if random.random() < 0.5 else None,
            )
            times = 1 + (event.event_id is not None and random.random() < 0.3)
            said += [(now + n * 1000, event) for n in range(times)]
            if random.random() < 0.3 and led is answers[-1]:
                said.append(
                    (
                        led.timestamp,
                        msgspec.structs.replace(
                            event, event_id=f"soon{number}", timestamp=led.timestamp + 1
                        ),
                    )
                )
    log = Log()
    for broker, what in sorted(said, key=lambda one: one[0]):
        log.add(what, broker)
    return log


def oracle(log: Log, own: Settings) -> Outcomes:
    """Every event against every answer of its user."""
    window = int(own.experiments.window_hours * HOUR)
    shown = [step for steps in log.steps.values() for step in steps if step.topic == SHOWN]
    done = [step for steps in log.steps.values() for step in steps if step.topic == EVENTS]
    found: Outcomes = {}
    variant_of: dict[tuple[str, str], str] = {}
    answers: dict[str, Shown] = {}
    acted: dict[str, set[tuple[str, str]]] = {"clickers": set(), "buyers": set()}

    def counts(experiment: str, variant: str) -> VariantCounts:
        return found.setdefault(experiment, {}).setdefault(variant, VariantCounts())

    for step in shown:
        one = step.what
        assert isinstance(one, Shown)
        if one.experiment is None or one.variant is None or one.recommendation_id in answers:
            continue
        assert one.user_id is not None
        answers[one.recommendation_id] = one
        counts(one.experiment, one.variant).answers += 1
        if (one.user_id, one.experiment) not in variant_of:
            variant_of[one.user_id, one.experiment] = one.variant
            counts(one.experiment, one.variant).users += 1
    known = set()
    for step in done:
        event = step.what
        assert isinstance(event, Event)
        assert isinstance(event.timestamp, int)
        name = (event.user_id, event.event_id or (step.partition, step.record.offset))
        if name in known or event.type not in ("click", "view", "purchase"):
            continue
        known.add(name)
        led = {
            one.experiment
            for one in answers.values()
            if one.user_id == event.user_id
            and event.timestamp <= one.timestamp + window
            and (
                event.recommendation_id == one.recommendation_id
                if event.recommendation_id
                else one.timestamp <= event.timestamp and event.item_id in one.items
            )
        }
        for experiment in led:
            assert experiment is not None
            mine = counts(experiment, variant_of[event.user_id, experiment])
            bought = event.type == "purchase"
            mine.purchases += bought
            mine.clicks += not bought
            people = acted["buyers" if bought else "clickers"]
            if (event.user_id, experiment) not in people:
                people.add((event.user_id, experiment))
                mine.buyers += bought
                mine.clickers += not bought
    return found


class FaultyScripts(Scripts):
    """Calls of which some arrive, or whose answers get lost."""

    faults: Random
    broken = ""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        if self.broken:
            name = "commit_outcomes"
            assert self.broken in self._source[name]
            self._source[name] = self._source[name].replace(self.broken, "")
            self._sha[name] = _sha(self._source[name])

    async def call(self, calls: Sequence[Call]) -> list[Any]:
        fault = self.faults.random()
        if fault > 0.2:
            return await super().call(calls)
        arrive = [call for call in calls if self.faults.random() < 0.5] if fault > 0.1 else calls
        if arrive:
            await super().call(arrive)
        raise RedisGone("gone")


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


async def read_all(redis: Redis, own: Settings, log: Log, random: Random) -> None:
    """Two workers read all partitions in an order of their own, and from wherever they think."""
    workers = [appliers(redis, own) for _ in range(2)]
    tends = random.choice([0.5, 0.02, 0.98])  # to one topic before the other, or neither
    kept: dict[bytes, tuple[bytes, int]] | None = None
    lost = False
    reads = 0
    while True:
        at = {}
        for name in log.steps:
            at[name] = await workers[0][name[0]].position(*name, -1)
        open_ones = [name for name, steps in log.steps.items() if at[name] < len(steps)]
        if not open_ones:
            return
        reads += 1
        if reads == 15:
            kept = await dump(redis, own)
        if reads == 30 and kept is not None and not lost:
            lost = True  # Redis comes back without its end
            await bring_back(redis, own, kept)
            continue
        wanted = EVENTS if random.random() < tends else SHOWN
        some = [name for name in open_ones if name[0] == wanted] or open_ones
        topic = some[0][0]
        some = [name for name in some if name[0] == topic]
        tasks = []
        for worker in workers:
            batches = []
            for name in random.sample(some, random.randint(1, len(some))):
                end = len(log.steps[name])
                begin = max(0, min(at[name] + random.randrange(-12, 3), end - 1))
                batches.append(log.batch(*name, begin, begin + random.randrange(1, 25)))
            tasks.append(worker[topic].apply(batches))
        await asyncio.gather(*tasks)


async def dump(redis: Redis, own: Settings) -> dict[bytes, tuple[bytes, int]]:
    found = {}
    async for key in redis.scan_iter(match=Keys(own.store).pattern):
        value = await redis.dump(key)
        assert value is not None
        found[key] = value, max(0, await redis.pttl(key))
    return found


async def bring_back(redis: Redis, own: Settings, kept: dict[bytes, tuple[bytes, int]]) -> None:
    async for key in redis.scan_iter(match=Keys(own.store).pattern):
        await redis.delete(key)
    for key, (value, left) in kept.items():
        await redis.restore(key, left, value)


@pytest.mark.parametrize("seed", SEEDS)
async def test_counts_are_those_of_the_oracle(
    seed: int, redis: Redis, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(seed)
    log = random_log(random)
    monkeypatch.setattr("processors.attribution._RETRY_SECONDS", 0)
    monkeypatch.setattr("processors.attribution._AT_ONCE", random.choice([4, 500]))
    monkeypatch.setattr(FaultyScripts, "faults", random, raising=False)
    monkeypatch.setattr("store.attribution.Scripts", FaultyScripts)
    await read_all(redis, own, log, random)
    wanted = oracle(log, own)
    assert await outcomes(redis, own) == wanted
    assert sum(one.clicks + one.purchases for of in wanted.values() for one in of.values()) > 8


@pytest.mark.parametrize(
    "broken",
    [
        "if not continued then return {REFUSED, contained} end",
        "table.insert(user.events, event)",
        "for _, one in ipairs(user.events) do known = known or one[1] == event[1] end",
        "if event[3] > answer[3] + window then return false end",
    ],
)
async def test_a_broken_script_is_noticed(
    broken: str, redis: Redis, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.attribution._RETRY_SECONDS", 0)
    monkeypatch.setattr("store.attribution.Scripts", FaultyScripts)
    monkeypatch.setattr(FaultyScripts, "broken", broken)
    for seed in SEEDS:
        random = Random(seed)
        log = random_log(random)
        monkeypatch.setattr(FaultyScripts, "faults", random, raising=False)
        async with asyncio.timeout(20):
            await read_all(redis, own, log, random)
        if await outcomes(redis, own) != oracle(log, own):
            return
        await bring_back(redis, own, {})
    pytest.fail("counts are right all the same")


def answer(name: str, user: str, at: int, *items: str, variant: str = "a") -> Shown:
    return Shown(name, START + at, user, list(items), experiment="home", variant=variant)


def click(user: str, item: str, at: int, led: str | None = None, kind: str = "click") -> Event:
    return Event(user, item, kind, START + at, recommendation_id=led)


async def apply(redis: Redis, own: Settings, log: Log, *topics: str) -> None:
    known = appliers(redis, own)
    for topic in topics:
        for name, steps in log.steps.items():
            if name[0] == topic and steps:
                assert await known[topic].apply([log.batch(*name, 0, len(steps))]) == [
                    len(steps) - 1
                ]


@pytest.mark.parametrize("order", [(EVENTS, SHOWN), (SHOWN, EVENTS)])
async def test_what_counts_for_an_answer(
    order: tuple[str, str], redis: Redis, own: Settings
) -> None:
    log = Log()
    for shown in (answer("r1", "ann", 0, "a", "b"), answer("r2", "ben", 0, "a", variant="b")):
        log.add(shown, shown.timestamp)
    counting = [
        click("ann", "elsewhere", 1000, "r1"),  # it says so
        click("ann", "a", 1000),  # it was shown
        click("ann", "b", 6 * HOUR, kind="purchase"),
        click("ben", "x", -HOUR // 2, "r2"),  # clocks differ
    ]
    not_counting = [
        click("ann", "c", 1000),  # not shown
        click("ann", "a", -1),  # before it was shown
        click("ann", "a", 6 * HOUR + 1),  # too late
        click("ann", "a", 6 * HOUR + 1, "r1"),
        click("ann", "a", 1000, "r2"),  # somebody else's
        click("ann", "a", 1000, "r3"),  # an answer of no experiment
        click("ann", "a", 1000, kind="cart"),
        click("eve", "a", 1000),
    ]
    for event in counting + not_counting:
        assert isinstance(event.timestamp, int)
        log.add(event, max(START, event.timestamp))
    for broken in (b"{", b'{"user_id":"ann"}', b'{"type":"click","recommendation_id":"r1"}'):
        for name, steps in log.steps.items():
            record = Record(len(steps), START, b"ann", broken)
            steps.append(Step(*name, record, counting[0]))
    await apply(redis, own, log, *order)
    assert await outcomes(redis, own) == {
        "home": {"a": VariantCounts(1, 1, 2, 1, 1, 1), "b": VariantCounts(1, 1, 1, 0, 1, 0)}
    }


async def test_without_shown_items_only_what_carries_the_id_counts(
    redis: Redis, own: Settings
) -> None:
    rules = own.experiments.model_copy(update={"shown_items": False})
    own = own.model_copy(update={"experiments": rules})
    log = Log()
    log.add(answer("r1", "ann", 0, "a"), START)
    log.add(click("ann", "a", 10), START + 10)
    log.add(click("ann", "a", 20, "r1"), START + 20)
    await apply(redis, own, log, EVENTS, SHOWN)
    assert await outcomes(redis, own) == {"home": {"a": VariantCounts(1, 1, 1, 0, 1, 0)}}


async def keys_of(redis: Redis, own: Settings, user: str) -> list[bytes]:
    found = [key async for key in redis.scan_iter(match=Keys(own.store).pattern)]
    end = hash_id(user).to_bytes(8, "little")
    return sorted(key for key in found if key.endswith(end))


async def test_a_forgotten_user_is_forgotten_here_too(redis: Redis, own: Settings) -> None:
    log = Log()
    log.add(answer("r1", "ann", 0, "a"), START)
    log.add(click("ann", "a", 10), START + 10)
    await apply(redis, own, log, SHOWN, EVENTS)
    assert len(await keys_of(redis, own, "ann")) == 2
    before = await outcomes(redis, own)

    partition = hash_id("ann") // 16 % PARTITIONS
    gone = Record(1, START + 20, b"ann", None)
    known = appliers(redis, own)
    batch = RecordBatch(EVENTS, partition, 1, Records.of([gone]))
    assert await known[EVENTS].apply([batch]) == [1]
    # That somebody was forgotten, and when, is all that is left, for a while.
    [left] = await keys_of(redis, own, "ann")
    assert 0 < await redis.pttl(left) <= 6 * HOUR + 3 * DAY
    value = await redis.get(left)
    assert value is not None
    assert len(value) < 16
    assert await outcomes(redis, own) == before

    # An answer from before that comes late is an answer, and of nobody who is remembered.
    late = [answer("r0", "ann", 5, "a"), answer("r5", "ann", 30, "a", variant="b")]
    records = [
        Record(1 + n, START + 40, b"ann", msgspec.json.encode(one)) for n, one in enumerate(late)
    ]
    assert await known[SHOWN].apply([RecordBatch(SHOWN, partition, 1, Records.of(records))]) == [2]
    event = Record(
        2, START + 50, b"ann", msgspec.json.encode(click("ann", "a", 31, kind="purchase"))
    )
    assert await known[EVENTS].apply([RecordBatch(EVENTS, partition, 2, Records.of([event]))]) == [
        2
    ]
    assert await outcomes(redis, own) == {
        "home": {"a": VariantCounts(1, 2, 1, 0, 1, 0), "b": VariantCounts(1, 1, 0, 1, 0, 1)}
    }


async def test_kept_generations_forget_users_of_experiments(redis: Redis, own: Settings) -> None:
    log = Log()
    log.add(answer("r1", "ann", 0, "a"), START)
    await apply(redis, own, log, SHOWN)
    generations = Generations(redis, own)
    await generations.ensure_live(first_generation(own))
    other = await generations.create("earliest", recorded(own), {}, "ready")
    await generations.activate(other)
    await KeptGenerations(redis, own).forget(np.array([hash_id("ann")], np.uint64))
    assert await keys_of(redis, own, "ann") == []


async def test_a_snapshot_takes_all_of_it_along(redis: Redis, own: Settings) -> None:
    log = Log()
    log.add(answer("r1", "ann", 0, "a"), START)
    log.add(answer("r2", "ben", 0, "a", variant="b"), START)
    await apply(redis, own, log, SHOWN)
    one = first_generation(own)
    file = io.BytesIO()
    async for _ in save(redis, own, one, "cluster", file):
        pass
    file.seek(0)
    other = msgspec.structs.replace(one, number=2)
    async for _ in restore(redis, own, read_header(own, "cluster", file), other, file):
        pass
    found = await read_outcomes(redis, Keys(own.store, 2))
    assert found == await outcomes(redis, own)
    # What happens next finds what was shown, and the mark from which to go on.
    log.add(click("ann", "a", 10), START + 10)
    writer = AttributionWriter(redis, own, 2)
    events = AttributionApplier(writer, EventRecords(own), "event")
    partition = hash_id("ann") // 16 % PARTITIONS
    await events.apply([log.batch(EVENTS, partition, 0, 1)])
    assert (await writer.read_marks(SHOWN, partition)).min() >= 0
    assert (await read_outcomes(redis, Keys(own.store, 2)))["home"]["a"].clicks == 1
    for key in Keys(own.store, 2).of_experiments(_hashes("ben")):
        assert await redis.pttl(key) > 0


async def test_journals_stay_short(redis: Redis, own: Settings) -> None:
    """What is old goes once the other topic is read past it, and one user has only so many."""
    known = appliers(redis, own)
    partition = hash_id("ann") // 16 % PARTITIONS
    key = next(key for key in Keys(own.store).of_experiments(_hashes("ann")) if b"}j" in key)

    async def add(topic: str, at: int, *what: Shown | Event) -> None:
        marks = await known[topic].position(topic, partition, -1)
        records = [
            Record(marks + n, START + at, b"ann", msgspec.json.encode(one))
            for n, one in enumerate(what)
        ]
        await known[topic].apply([RecordBatch(topic, partition, marks, Records.of(records))])

    await add(SHOWN, 0, answer("r0", "ann", 0, "a"))
    await add(EVENTS, 1, click("ann", "b", 1))
    both = await redis.get(key)
    for days in range(1, 30):
        await add(SHOWN, days * DAY, answer(f"r{days}", "ann", days * DAY, "a"))
        await add(EVENTS, days * DAY + 1, click("ann", "b", days * DAY + 1))
    assert both is not None
    found = await redis.get(key)
    assert found is not None
    assert len(found) < 3 * len(both)

    before = metrics.CUT._value.get()  # noqa: SLF001
    many = [answer(f"many{n}", "ann", 30 * DAY + n, "a") for n in range(500)]
    await add(SHOWN, 30 * DAY, *many)
    assert metrics.CUT._value.get() - before >= 300  # noqa: SLF001
    assert (await outcomes(redis, own))["home"]["a"].answers == 530


def _hashes(user: str) -> U64:
    return np.array([hash_id(user)], np.uint64)


async def test_a_store_that_has_counted_before_is_not_read_anew(
    redis: Redis, own: Settings
) -> None:
    """Attribution that is switched on begins where counting is, also after it did nothing yet."""
    known = appliers(redis, own)[EVENTS]
    assert await known.position(EVENTS, 0, 41) == 42
    assert await known.position(EVENTS, 0, 99) == 42
    assert await known.contained(EVENTS, 0) == 41
    record = Record(50, START, b"ann", msgspec.json.encode(click("ann", "a", 0)))
    batch = RecordBatch(EVENTS, 0, 50, Records.of([record]))
    assert await known.apply([batch]) == [ReadAgain(42)]
    assert await known.position(EVENTS, 1, -1) == 0
    assert await known.position(EVENTS, 1, 30) == 0


def test_a_byte_search_finds_what_may_matter() -> None:
    found = load_settings(experiments={"clicks": ["click"]})
    matters = EventRecords(found)
    values = {
        b'{"user_id":"u","item_id":"i","type":"click","timestamp":1}': 1,
        b'{"user_id":"u","item_id":"i","type":"cl\\u0069ck","timestamp":1}': 1,
        b'{"user_id":"u","item_id":"i","type":"purchase","timestamp":1}': 1,
        b'{"user_id":"u","item_id":"i","type":"view","timestamp":1}': 0,
        b'{"user_id":"other","item_id":"i","type":"click","timestamp":1}': 0,
        b'{"user_id":"u","item_id":"click","type":"view","timestamp":1}': 0,
    }
    for value, count in values.items():
        batch = RecordBatch(EVENTS, 0, 0, Records.of([Record(0, START, b"u", value)]))
        assert len(list(matters(0, batch))) == count, value
