"""Three ways to learn and to answer, for `headwater evaluate` to compare.

All of them fold with the same code and rank with the same Ranker. `FoldWay` keeps counts in this
process, `RedisWay` commits them to a real Redis and reads them as servers do, `HttpWay` sends
events to Kafka and asks the server of a whole deployment of its own.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ClassVar, Self

import aiohttp
import numpy as np
import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from commands.feed import send_events
from commands.process import in_thread
from commands.protocol import Question, Split, TrainingEvents, hashed, user_name
from commands.stack import Stack
from config.errors import ServiceError
from config.redis_server import RedisServer
from config.settings import Settings
from processors.compaction import Compaction
from processors.fold import Folded, FoldRules, fold_batch, item_deltas, total_deltas
from processors.learner import Learner, Teacher, sample, sampled, share_of
from processors.memory import MemoryCounts
from processors.session import empty_table
from processors.standing import rank_of
from serving.candidates import session_items
from serving.rank import ranked
from serving.recommend import Recommender
from store.commit import Target
from store.connect import connect
from store.keys import Keys
from store.reader import StoreReader
from store.writer import StoreWriter
from streams.columns import hash_id
from streams.event import Event

__all__ = ["WAYS", "FoldWay", "HttpWay", "RedisWay", "Way"]

Report = Callable[[int], None]

DEPTH = 40
"""Items asked for: enough to see every tie that could push an answer past rank 20."""
_COUNTED_SECONDS = 120.0
_TOPIC = "evaluation"


class Way(ABC):
    """One way; an async context manager that leaves nothing behind."""

    concurrency: ClassVar[int] = 1
    """Questions asked at the same time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._open.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    @abstractmethod
    async def _start(self) -> None:
        """Start what is needed and have `self._open` end it."""

    @abstractmethod
    async def learn(self, split: Split, report: Report) -> None:
        """Learn the training sessions; `report` hears how many events were sent or folded."""

    @abstractmethod
    async def rank(self, question: Question) -> int:
        """Rank of a question's answer, from 1; 0 where it is not among the first DEPTH items."""


class FoldWay(Way):
    """Counts in memory."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._counts = MemoryCounts(settings)

    async def _start(self) -> None:
        """Nothing runs outside this process."""

    async def learn(self, split: Split, report: Report) -> None:
        rules = FoldRules(self.settings)
        events = split.events(self.settings.fold.half_life_days)
        for folded in _fold(split, events, rules, self.settings.worker.max_poll_records):
            self._teach(folded)
            everything = np.ones(len(folded.events), np.bool_)
            self._counts.apply(
                item_deltas(folded, rules, lambda items, _: np.ones(len(items), np.bool_)),
                total_deltas(folded, everything),
            )
            report(int(folded.events.offset[-1]) + 1)
            await asyncio.sleep(0)  # lets a signal through

    async def rank(self, question: Question) -> int:
        items = hashed(question.session)
        session = session_items(items, len(items), self.settings.rank.session_items)
        asked = self._counts.ask(session)
        found = ranked(asked.query, asked.model, DEPTH)
        answer = hash_id(question.answer)
        await asyncio.sleep(0)
        return rank_of(self._counts.interner.ids(found.index) == answer, found.score)

    def _teach(self, folded: Folded) -> None:
        """What `processors.learner.Learner` does, with counts in memory."""
        counts = self._counts
        n = len(folded.prefixes.row)
        share = share_of(self.settings.learn, counts.knowledge().events)
        random = np.random.default_rng(int(folded.events.offset[0]))
        rows = sample(n, share, n, random)
        teacher = Teacher(counts.taught)
        most = self.settings.rank.session_items
        for sessions, items in sampled(folded, rows, most, counts.interner):
            batch = counts.ask_all(sessions, weighed=True)
            for slot, item in enumerate(items):
                teacher.predict(batch.of(slot).query, item)
        teacher.finish()


class RedisWay(Way):
    """A Redis: the one of the settings, under a namespace of its own, else one started here."""

    async def _start(self) -> None:
        if self.settings.redis.url is None:
            home = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="headwater-")))
            server = RedisServer(home / "redis")
            self._open.callback(server.stop)
            server.start()
            self.settings = _with(self.settings, "redis", {"url": server.url})
        self.settings = _with(
            self.settings, "store", {"namespace": f"evaluate{secrets.token_hex(4)}"}
        )
        redis = connect(self.settings)
        self._open.push_async_callback(redis.aclose)
        self._open.push_async_callback(_drop, redis, Keys(self.settings.store).pattern)
        self._writer = StoreWriter(redis, self.settings)
        self._redis = redis

    async def learn(self, split: Split, report: Report) -> None:
        rules = FoldRules(self.settings)
        writer = self._writer
        events = split.events(self.settings.fold.half_life_days)
        marks = await writer.read_marks(_TOPIC, 0)
        compaction = Compaction(writer)
        reader = StoreReader(self._redis, self.settings)
        # Nothing else is going on here that learning could hold up.
        learner = Learner(
            Recommender(reader, self.settings), reader, self.settings, per_second=None
        )
        for folded in _fold(split, events, rules, self.settings.worker.max_poll_records):
            last = int(folded.events.offset[-1])
            targets = [Target(_TOPIC, 0, last)]
            everything = np.ones(len(folded.events), np.bool_)
            items = item_deltas(folded, rules, lambda items, _: np.ones(len(items), np.bool_))
            totals = total_deltas(folded, everything)
            names = {item: events.names[item].encode() for item in items.item.tolist()}
            try:
                reader.forget()
                lesson = await learner.lesson(folded)
                outcome = await writer.commit_items(targets, [marks], items, totals, names, lesson)
                learner.done(committed=not outcome.refused)
                outcome.move_items([marks])
                stored = await writer.commit_users(targets, [marks], folded.sessions)
                stored.move_users([marks])
                await compaction.after(outcome, len(folded.events))
            except RedisError as error:
                raise ServiceError(f"Redis did not take a batch: {error}") from error
            if outcome.refused or stored.refused:
                raise ServiceError("Redis refused a batch: has it lost what it had just taken?")
            report(last + 1)
        await compaction.finish()
        reader.forget()
        self._recommender = Recommender(reader, self.settings)

    async def rank(self, question: Question) -> int:
        items = hashed(question.session)
        session = session_items(items, len(items), self.settings.rank.session_items)
        try:
            found = await self._recommender.rank(session, DEPTH)
        except RedisError as error:
            raise ServiceError(f"Redis does not answer: {error}") from error
        return rank_of(found.item == hash_id(question.answer), found.score)


class HttpWay(Way):
    """Kafka, Redis, workers and a server of its own, in a folder of its own."""

    concurrency = 16

    async def _start(self) -> None:
        home = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="headwater-")))
        own = _with(self.settings, "services", {"data_dir": home})
        own = _with(own, "kafka", {"bootstrap": None})
        own = _with(own, "redis", {"url": None})
        own = _with(own, "http", {"host": "127.0.0.1", "port": 0})
        self._stack = await self._open.enter_async_context(Stack(own))
        self.settings = self._stack.settings
        self._redis = connect(self.settings)
        self._open.push_async_callback(self._redis.aclose)
        timeout = aiohttp.ClientTimeout(total=30)
        self._http = await self._open.enter_async_context(aiohttp.ClientSession(timeout=timeout))

    async def learn(self, split: Split, report: Report) -> None:
        expected = sum(len(session) for session in split.sessions)
        events = self._events(split)
        stop = threading.Event()
        sending = asyncio.create_task(
            in_thread(lambda: send_events(self.settings, events, stop=stop), stop.set)
        )
        counting = asyncio.create_task(self._until_counted(expected, report))
        try:
            await asyncio.gather(sending, counting)
        finally:
            sending.cancel()
            counting.cancel()
            await asyncio.gather(sending, counting, return_exceptions=True)

    async def rank(self, question: Question) -> int:
        try:
            async with self._http.post(
                f"{self._stack.http_url}/v1/recommendations",
                data=orjson.dumps({"session": question.session, "n": DEPTH}),
                headers={"content-type": "application/json"},
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServiceError(f"the server does not answer: {error!r}") from error
        if answer.status != 200:
            raise ServiceError(
                f"the server answered {answer.status}: {body[:300].decode(errors='replace')}"
            )
        items = orjson.loads(body)["items"]
        return rank_of(
            np.array([one["item_id"] == question.answer for one in items], np.bool_),
            np.array([one["score"] for one in items], np.float64),
        )

    def _events(self, split: Split) -> Iterator[Event]:
        kind = next(iter(self.settings.events.weights))
        times = split.times(self.settings.fold.half_life_days).tolist()
        for number, (moment, session) in enumerate(zip(times, split.sessions, strict=True)):
            for item in session:
                yield Event(user_name(number), item, kind, moment)

    async def _until_counted(self, expected: int, report: Report) -> None:
        reader = StoreReader(self._redis, self.settings)
        counted, moved = 0, time.monotonic()
        while counted < expected:
            await _first(asyncio.sleep(0.05), self._stack.failed())
            now_counted = (await reader.totals()).get("events", 0)
            if now_counted != counted:
                counted, moved = now_counted, time.monotonic()
                report(counted)
            elif time.monotonic() - moved > _COUNTED_SECONDS:
                raise ServiceError(
                    f"{counted:,} of {expected:,} events counted, and nothing more for "
                    f"{_COUNTED_SECONDS:.0f} s: the workers refuse or lose events"
                )


WAYS: dict[str, type[Way]] = {"fold": FoldWay, "redis": RedisWay, "http": HttpWay}


def _fold(split: Split, events: TrainingEvents, rules: FoldRules, size: int) -> Iterator[Folded]:
    """The training events folded, batch by batch; every user is in one batch alone."""
    for batch in split.batches(events.columns, size):
        yield fold_batch(empty_table(np.unique(batch.user)), batch, rules)


def _with(settings: Settings, group: str, values: Mapping[str, object]) -> Settings:
    changed = getattr(settings, group).model_copy(update=values)
    return settings.model_copy(update={group: changed})


async def _drop(redis: Redis, pattern: bytes) -> None:
    """Delete the keys of a namespace."""
    keys: list[bytes] = []
    async for key in redis.scan_iter(match=pattern, count=1000):
        keys.append(key)
        if len(keys) == 1000:
            await redis.unlink(*keys)
            keys.clear()
    if keys:
        await redis.unlink(*keys)


async def _first(*waits: Awaitable[None]) -> None:
    """Return, or raise, with whichever ends first."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
