"""Lanes: every batch once and in order, joined while they wait, and never too much at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from processors import lanes
from processors.lanes import Lanes
from streams.records import Record, RecordBatch, Records

MOST = 10


def batch(begin: int, end: int, *, partition: int = 0, start: int | None = None) -> RecordBatch:
    """Records `begin` … `end - 1`."""
    records = Records.of([Record(n, 0, None, b"%d" % n) for n in range(begin, end)])
    return RecordBatch("events", partition, begin if start is None else start, records)


class Applied:
    """What lanes apply, one batch at each `step`."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[Sequence[RecordBatch]] = asyncio.Queue()
        self.go = asyncio.Semaphore(0)
        self.failures: list[BaseException] = []
        self.lanes = Lanes(self.apply, self.failures.append, MOST)

    async def apply(self, parts: Sequence[RecordBatch]) -> None:
        self.begun.put_nowait(parts)
        await self.go.acquire()

    async def put(self, *batches: RecordBatch) -> None:
        """Hand over each by itself: the loop turns before the next one."""
        for one in batches:
            await self.lanes.put(one)
            await asyncio.sleep(0)

    async def step(self) -> list[tuple[int, int, list[int]]]:
        """Partition, start and offsets of the parts that are applied next; the first batch that
        is being applied then ends.
        """
        parts = await self.begun.get()
        self.go.release()
        for one in parts:
            offsets = one.records.offset.tolist()
            assert [record.value for record in one.records] == [b"%d" % n for n in offsets]
        return [(one.partition, one.start, one.records.offset.tolist()) for one in parts]


@pytest.fixture
async def applied(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Applied]:
    monkeypatch.setattr(lanes, "_REST_SECONDS", 0.0)
    one = Applied()
    yield one
    one.lanes.close()


async def test_what_is_put_at_once_is_one_batch(applied: Applied) -> None:
    for partition in (3, 0, 2):
        await applied.lanes.put(batch(0, 1, partition=partition))
    assert await applied.step() == [(3, 0, [0]), (0, 0, [0]), (2, 0, [0])]
    await applied.lanes.put(batch(1, 2, partition=3))
    await applied.lanes.put(batch(1, 2, partition=0))
    assert await applied.step() == [(3, 1, [1]), (0, 1, [1])]


async def test_plenty_of_one_partition_goes_alone(
    applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_PLENTY", 3)
    await applied.lanes.put(batch(0, 3))
    await applied.lanes.put(batch(0, 1, partition=1))
    await applied.lanes.put(batch(0, 1, partition=2))
    assert await applied.step() == [(0, 0, [0, 1, 2])]
    assert await applied.step() == [(1, 0, [0]), (2, 0, [0])]


async def test_what_waits_is_joined(applied: Applied) -> None:
    await applied.lanes.put(batch(0, 1))
    (first,) = await applied.begun.get()
    assert first.records.offset.tolist() == [0]
    for n in range(1, 4):
        await applied.lanes.put(batch(n, n + 1))
    applied.go.release()
    assert await applied.step() == [(0, 1, [1, 2, 3])]


async def test_at_most_so_many_at_once(applied: Applied) -> None:
    put = asyncio.create_task(applied.lanes.put(batch(3, 28, start=1)))
    assert await applied.step() == [(0, 1, list(range(3, 13)))]
    assert await applied.step() == [(0, 13, list(range(13, 23)))]
    await put
    await applied.lanes.put(batch(28, 30))
    assert await applied.step() == [(0, 23, list(range(23, 30)))]


async def test_what_does_not_follow_is_not_joined(applied: Applied) -> None:
    await applied.put(batch(5, 6), batch(7, 8, start=6), batch(2, 4), batch(4, 6))
    seen = [await applied.step() for _ in range(3)]
    assert seen == [[(0, 5, [5])], [(0, 6, [7])], [(0, 2, [2, 3, 4, 5])]]


async def test_batches_overlap_but_not_too_many(applied: Applied) -> None:
    await applied.put(*(batch(0, 1, partition=partition) for partition in range(6)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert applied.begun.qsize() == 4
    # What had to wait goes together, with what came meanwhile.
    await applied.lanes.put(batch(1, 2, partition=5))
    seen = [await applied.step() for _ in range(5)]
    assert seen[:4] == [[(partition, 0, [0])] for partition in range(4)]
    assert seen[4] == [(4, 0, [0]), (5, 0, [0, 1])]


async def test_a_lane_is_in_one_batch_at_a_time(applied: Applied) -> None:
    await applied.put(batch(0, 1), batch(1, 2), batch(0, 1, partition=1))
    for _ in range(10):
        await asyncio.sleep(0)
    assert applied.begun.qsize() == 2
    seen = [await applied.step() for _ in range(3)]
    assert seen == [[(0, 0, [0])], [(1, 0, [0])], [(0, 1, [1])]]


async def test_who_waited_longest_comes_first_where_not_all_have_room(
    applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_AT_ONCE", 1)
    await applied.put(batch(0, 1, partition=9))
    await applied.put(*(batch(0, 4, partition=partition) for partition in (2, 0, 3, 1)))
    assert await applied.step() == [(9, 0, [0])]
    assert await applied.step() == [(2, 0, [0, 1, 2, 3]), (0, 0, [0, 1, 2, 3]), (3, 0, [0, 1])]
    assert await applied.step() == [(1, 0, [0, 1, 2, 3]), (3, 2, [2, 3])]


async def test_a_lane_that_ends_lets_go_of_who_waits_for_it(applied: Applied) -> None:
    await applied.lanes.put(batch(0, 1))
    await applied.begun.get()
    await applied.lanes.put(batch(1, 1 + MOST))
    waits = asyncio.create_task(applied.lanes.put(batch(11, 12)))
    await asyncio.sleep(0)
    assert not waits.done()
    applied.lanes.drop("events", 0)
    await waits
    # A partition that comes back gets a lane of its own.
    await applied.lanes.put(batch(3, 4))
    assert await applied.step() == [(0, 3, [3])]
    assert applied.failures == []


async def test_small_batches_rest_and_large_ones_do_not(
    applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_REST_SECONDS", 3600.0)
    await applied.lanes.put(batch(0, 1))
    assert await applied.step() == [(0, 0, [0])]
    await applied.lanes.put(batch(1, 3))
    await applied.lanes.put(batch(0, 1, partition=1))
    for _ in range(10):
        await asyncio.sleep(0)
    assert applied.begun.empty()
    await applied.lanes.put(batch(3, MOST))
    assert await applied.step() == [(0, 1, list(range(1, MOST))), (1, 0, [0])]


async def test_what_rested_is_applied(applied: Applied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_REST_SECONDS", 0.02)
    clock = asyncio.get_running_loop().time
    begin = clock()
    await applied.put(batch(0, 1), batch(0, 1, partition=1))
    assert await applied.step() == [(0, 0, [0])]
    assert await applied.step() == [(1, 0, [0])]
    assert clock() - begin >= 0.019


async def test_an_error_is_told() -> None:
    failures: asyncio.Queue[BaseException] = asyncio.Queue()

    async def fail(_: Sequence[RecordBatch]) -> None:
        raise LookupError

    failing = Lanes(fail, failures.put_nowait, MOST)
    await failing.put(batch(0, 1))
    async with asyncio.timeout(5):
        assert isinstance(await failures.get(), LookupError)
    failing.close()
