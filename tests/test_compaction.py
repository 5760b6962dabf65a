"""When lists are compacted, on a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NoRedis

from config.settings import Settings
from processors.compaction import Compaction
from store.commit import Compacted, Outcome
from store.connect import connect
from store.keys import Keys
from store.lists import ENTRY_BYTES, HEAD_BYTES
from store.scripts import Scripts
from store.writer import StoreWriter
from streams.columns import hash_id
from tests.oracle import Click
from tests.test_store import commit, small_lists

BACKLOG, FEW = 20_000, 5


class Telling(StoreWriter):
    """Tells what its commits named, and compacts nothing."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        super().__init__(redis, settings)
        self.outcome: Outcome | None = None

    async def commit_items(self, *args: Any) -> Outcome:
        self.outcome = await super().commit_items(*args)
        return self.outcome

    async def compact(self, lists: list[bytes]) -> Compacted:
        return Compacted(0, [])


@pytest.fixture
def small(settings: Settings) -> Settings:
    """A list is long past 20 neighbours; 10 are kept."""
    return small_lists(settings, compact_factor=2.0)


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = connect(settings)
    yield client
    await client.aclose()


def hub_list(settings: Settings) -> bytes:
    return Keys(settings.store).neighbours(np.array([hash_id("hub")], np.uint64))[0]


async def view_pairs(writer: StoreWriter, settings: Settings, first: int, count: int) -> None:
    """Sessions of two views, of the hub and of another item each, as one batch."""
    log = [
        Click(2 * n + which, f"u{n}", item, "view", 1_700_000_000_000 + n * 1000 + which)
        for n in range(first, first + count)
        for which, item in enumerate(("hub", f"i{n}"))
    ]
    await commit(writer, settings, log)


async def test_a_list_is_named_once_it_grows_past_its_bound_and_past_twice_of_it(
    small: Settings, redis: Redis
) -> None:
    writer = Telling(redis, small)
    named = []
    for batch in range(6):
        await view_pairs(writer, small, 10 * batch, 10)
        assert writer.outcome is not None
        named.append((len(writer.outcome.grown_lists), len(writer.outcome.long_lists)))
        for key in (*writer.outcome.grown_lists, *writer.outcome.long_lists):
            assert key == hub_list(small)
    # Ten neighbours and a head a batch count as 10.5: past 20.5 after two, past 41 after four.
    assert named == [(0, 0), (1, 0), (0, 0), (0, 1), (0, 1), (0, 1)]


async def test_a_backlog_puts_off_what_has_only_grown(
    small: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = StoreWriter(redis, small)
    key = hub_list(small)
    telling = Telling(redis, small)
    await view_pairs(telling, small, 0, 21)
    assert telling.outcome is not None
    long = await redis.strlen(key)
    assert long > HEAD_BYTES + 20 * ENTRY_BYTES
    compacting = Compaction(writer)
    await compacting.after(telling.outcome, BACKLOG)
    await compacting.some()
    assert await redis.strlen(key) == long
    # A second later, the worker has caught up.
    monkeypatch.setattr("processors.compaction.time.monotonic", lambda: 1e12)
    await compacting.after(Outcome(False, np.zeros(0, np.int64), [], []), FEW)
    assert await redis.strlen(key) == long
    await compacting.some()
    assert await redis.strlen(key) == HEAD_BYTES + 10 * ENTRY_BYTES
    await redis.set(key, b"")
    await compacting.some()
    assert await redis.get(key) == b"", "a list is compacted once for each time it is named"


async def test_what_is_long_is_compacted_in_a_backlog_too(small: Settings, redis: Redis) -> None:
    telling = Telling(redis, small)
    await view_pairs(telling, small, 0, 50)
    assert telling.outcome is not None
    assert telling.outcome.long_lists == [hub_list(small)]
    await Compaction(StoreWriter(redis, small)).after(telling.outcome, BACKLOG)
    assert await redis.strlen(hub_list(small)) == HEAD_BYTES + 10 * ENTRY_BYTES


async def test_what_grows_while_it_is_compacted_is_compacted_again(
    small: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling, key = Telling(redis, small), hub_list(small)
    await view_pairs(telling, small, 0, 21)
    first = telling.outcome
    assert first is not None
    assert first.grown_lists == [key]
    send = Scripts.call

    async def late(self: Scripts, calls: Any) -> Any:
        """Between reading and replacing, another batch takes the list to twice its bound."""
        monkeypatch.setattr(Scripts, "call", send)
        await view_pairs(telling, small, 100, 19)
        return await send(self, calls)

    compacting = Compaction(StoreWriter(redis, small))
    await compacting.after(first, FEW)
    monkeypatch.setattr(Scripts, "call", late)
    await compacting.some()
    second = telling.outcome
    assert second is not None
    assert second.grown_lists == second.long_lists == [], "no commit names it"
    assert await redis.strlen(key) > HEAD_BYTES + 20 * ENTRY_BYTES
    await compacting.some()
    assert await redis.strlen(key) == HEAD_BYTES + 10 * ENTRY_BYTES


async def test_what_redis_did_not_compact_is_not_forgotten(
    small: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling, key = Telling(redis, small), hub_list(small)
    await view_pairs(telling, small, 0, 21)
    assert telling.outcome is not None
    compacting = Compaction(StoreWriter(redis, small))
    await compacting.after(telling.outcome, FEW)

    async def lost(self: Scripts, calls: Any) -> Any:
        raise NoRedis

    with monkeypatch.context() as patch:
        patch.setattr(Scripts, "call", lost)
        with pytest.raises(NoRedis):
            await compacting.some()
    await compacting.finish()
    assert await redis.strlen(key) == HEAD_BYTES + 10 * ENTRY_BYTES
