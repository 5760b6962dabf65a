"""Lanes: every batch once and in order, joined while they wait, and never too much at once."""

from __future__ import annotations

import asyncio

import pytest

from processors import lanes
from processors.lanes import Lanes
from streams.records import Record, Records
from streams.transport import RecordBatch

MOST = 10


def batch(begin: int, end: int, *, partition: int = 0, start: int | None = None) -> RecordBatch:
    """Records `begin` … `end - 1`."""
    records = Records.of([Record(n, 0, None, b"%d" % n) for n in range(begin, end)])
    return RecordBatch("events", partition, begin if start is None else start, records)


class Applied:
    """What lanes apply, one batch at each `step`."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[RecordBatch] = asyncio.Queue()
        self.go = asyncio.Semaphore(0)
        self.failures: list[BaseException] = []
        self.lanes = Lanes(self.apply, self.failures.append, MOST)

    async def apply(self, one: RecordBatch) -> None:
        self.begun.put_nowait(one)
        await self.go.acquire()

    async def step(self) -> tuple[int, list[int]]:
        """Start and offsets of the batch that is applied next, which then ends."""
        one = await self.begun.get()
        self.go.release()
        assert [record.value for record in one.records] == [
            b"%d" % offset for offset in one.records.offset
        ]
        return one.start, one.records.offset.tolist()


@pytest.fixture
async def applied() -> Applied:
    return Applied()


async def test_what_waits_is_joined(applied: Applied) -> None:
    async with asyncio.timeout(5):
        await applied.lanes.put(batch(0, 1))
        first = await applied.begun.get()
        assert first.records.offset.tolist() == [0]
        for n in range(1, 4):
            await applied.lanes.put(batch(n, n + 1))
        applied.go.release()
        assert await applied.step() == (1, [1, 2, 3])
    applied.lanes.close()


async def test_at_most_so_many_at_once(applied: Applied) -> None:
    async with asyncio.timeout(5):
        await applied.lanes.put(batch(3, 28, start=1))
        assert await applied.step() == (1, list(range(3, 13)))
        assert await applied.step() == (13, list(range(13, 23)))
        await applied.lanes.put(batch(28, 30))
        assert await applied.step() == (23, list(range(23, 30)))
    applied.lanes.close()


async def test_what_does_not_follow_is_not_joined(applied: Applied) -> None:
    async with asyncio.timeout(5):
        for one in (batch(5, 6), batch(7, 8, start=6), batch(2, 4), batch(4, 6)):
            await applied.lanes.put(one)
        assert await applied.step() == (5, [5, 7])
        assert await applied.step() == (2, [2, 3, 4, 5])
    applied.lanes.close()


async def test_lanes_overlap_but_not_all_of_them(applied: Applied) -> None:
    async with asyncio.timeout(5):
        for partition in range(6):
            await applied.lanes.put(batch(0, 1, partition=partition))
        for _ in range(10):
            await asyncio.sleep(0)
        assert applied.begun.qsize() == 4
        # Whoever had to wait takes with it what came meanwhile.
        await applied.lanes.put(batch(1, 2, partition=5))
        seen = [await applied.step() for _ in range(6)]
        assert seen == [(0, [0])] * 5 + [(0, [0, 1])]
    applied.lanes.close()


async def test_a_lane_that_ends_lets_go_of_who_waits_for_it(applied: Applied) -> None:
    async with asyncio.timeout(5):
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
        assert await applied.step() == (3, [3])
    assert applied.failures == []
    applied.lanes.close()


async def test_a_small_batch_rests_and_a_large_one_does_not(
    applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_REST_SECONDS", 3600.0)
    async with asyncio.timeout(5):
        await applied.lanes.put(batch(0, 1))
        assert await applied.step() == (0, [0])
        await applied.lanes.put(batch(1, 3))
        for _ in range(10):
            await asyncio.sleep(0)
        assert applied.begun.empty()
        await applied.lanes.put(batch(3, 1 + MOST))
        assert await applied.step() == (1, list(range(1, 1 + MOST)))
        # Another lane is not held up.
        await applied.lanes.put(batch(0, 1, partition=1))
        assert await applied.step() == (0, [0])
    applied.lanes.close()


async def test_an_error_ends_its_lane_and_is_told() -> None:
    failures: asyncio.Queue[BaseException] = asyncio.Queue()

    async def fail(_: RecordBatch) -> None:
        raise LookupError

    failing = Lanes(fail, failures.put_nowait, MOST)
    await failing.put(batch(0, 1))
    async with asyncio.timeout(5):
        assert isinstance(await failures.get(), LookupError)
    failing.close()
