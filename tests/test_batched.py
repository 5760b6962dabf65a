"""Work of one moment done together: who gets which answer, and which error."""

from __future__ import annotations

import asyncio

import pytest

from config.errors import StoreError
from store.shared import Batched


class Worker:
    """Doubles numbers once it is let; remembers what it was asked together."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.let = asyncio.Event()
        self.let.set()

    async def work(self, numbers: list[int]) -> list[int]:
        self.asked.append(numbers)
        await self.let.wait()
        if -1 in numbers:
            raise StoreError("one of them is broken")
        if -2 in numbers:
            raise ConnectionError("nobody is there")
        return [2 * number for number in numbers]


async def ask_together(
    worker: Worker, batched: Batched[int, int], numbers: list[int]
) -> list[int | BaseException]:
    """The answers; the first question is under way while the others are asked."""
    worker.let.clear()
    asks = [asyncio.create_task(batched.get(number)) for number in numbers]
    await asyncio.sleep(0)
    worker.let.set()
    return await asyncio.gather(*asks, return_exceptions=True)


async def test_what_is_asked_meanwhile_goes_together_in_order() -> None:
    worker = Worker()
    batched = Batched(worker.work, most=3)
    worker.let.clear()
    asks = [asyncio.create_task(batched.get(number)) for number in (1, 2, 2, 5, 6)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = asyncio.create_task(batched.get(7))
    await asyncio.sleep(0)
    worker.let.set()
    assert await asyncio.gather(*asks, later) == [2, 4, 4, 10, 12, 14]
    assert worker.asked == [[1], [2, 2, 5], [6, 7]]
    assert await batched.get(9) == 18


async def test_where_far_more_wait_more_go_together() -> None:
    worker = Worker()
    batched = Batched(worker.work, most=2)
    answers = await ask_together(worker, batched, list(range(60)))
    assert answers == [2 * number for number in range(60)]
    assert [len(one) for one in worker.asked] == [1, 16, 16, 13, 7, 3, 2, 2]
    assert [number for one in worker.asked for number in one] == list(range(60))


async def test_one_broken_value_fails_nobody_else() -> None:
    worker = Worker()
    batched = Batched(worker.work, most=10)
    answers = await ask_together(worker, batched, [0, 1, -1, 3])
    assert (answers[0], answers[1], answers[3]) == (0, 2, 6)
    assert isinstance(answers[2], StoreError)
    assert worker.asked == [[0], [1, -1, 3], [1], [-1], [3]]


async def test_an_outage_fails_all_at_once() -> None:
    worker = Worker()
    batched = Batched(worker.work, most=10)
    alone, *together = await ask_together(worker, batched, [1, 2, -2, 3])
    assert alone == 2
    assert [type(one) for one in together] == [ConnectionError] * 3
    assert worker.asked == [[1], [2, -2, 3]]
    with pytest.raises(ConnectionError):
        await batched.get(-2)
    assert await batched.get(4) == 8


async def test_who_gives_up_is_not_worked_for() -> None:
    worker = Worker()
    batched = Batched(worker.work, most=1)
    worker.let.clear()
    first = asyncio.create_task(batched.get(1))
    second = asyncio.create_task(batched.get(2))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    worker.let.set()
    assert await first == 2
    assert await batched.get(3) == 6
    assert worker.asked == [[1], [3]]


async def test_as_many_batches_as_allowed_are_under_way() -> None:
    worker = Worker()
    batched = Batched(worker.work, most=10, at_once=2)
    worker.let.clear()
    asks = []
    for number in (1, 2, 3, 4):
        asks.append(asyncio.create_task(batched.get(number)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert worker.asked == [[1], [2]]
    worker.let.set()
    assert await asyncio.gather(*asks) == [2, 4, 6, 8]
    assert worker.asked == [[1], [2], [3, 4]]


@pytest.mark.parametrize("at_once", [1, 2])
async def test_who_asks_when_a_batch_has_just_ended_is_answered(at_once: int) -> None:
    batched = Batched(Worker().work, most=10, at_once=at_once)

    async def ask_again(number: int) -> int:
        return sum([await batched.get(number) for _ in range(50)])

    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(ask_again(number) for number in range(7)))
    assert answers == [100 * number for number in range(7)]


async def test_who_asks_alone_and_gives_up_leaves_nobody_waiting() -> None:
    worker = Worker()
    batched = Batched(worker.work, most=10)
    worker.let.clear()
    first = asyncio.create_task(batched.get(1))
    await asyncio.sleep(0)
    second = asyncio.create_task(batched.get(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    worker.let.set()
    async with asyncio.timeout(5):
        assert await second == 4
    assert worker.asked == [[1], [2]]
