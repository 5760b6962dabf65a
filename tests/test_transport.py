"""Records that the client handed over but that were not passed on are read again, never skipped.

The client is a stand-in with a log of offsets: what matters here is the order of its calls, which
a real one leaves to chance. The real one is in `test_recovery.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from streams.records import Record, Records
from streams.transport import BatchConsumer, RecordBatch

PARTITION = TP("events", 0)


class Client(BatchConsumer):
    """A consumer whose client hands over `take` records at each poll from where it stands."""

    should_stop = False

    def __init__(self, offsets: list[int]) -> None:
        self.offsets = offsets
        self.stands_at = 0
        self.take = 2
        self.meanwhile: Callable[[], Any] | None = None
        self.flow_active = True
        self.app = SimpleNamespace(
            consumer_generation_id=1,
            monitor=SimpleNamespace(track_tp_end_offset=lambda *_: None),
        )
        self._start_positions()
        self._buffered_partitions: set[TP] = set()

    def highwater(self, tp: TP) -> int:
        return self.offsets[-1] + 1

    def assignment(self) -> set[TP]:
        return {PARTITION}

    async def seek_wait(self, partitions: dict[TP, int]) -> None:
        self.stands_at = partitions[PARTITION]

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:  # noqa: ASYNC109
        found = [Record(o, 0, None, None) for o in self.offsets if o >= self.stands_at][: self.take]
        if found:
            self.stands_at = found[-1].offset + 1
        if self.meanwhile is not None:
            await self.meanwhile()
        return ({PARTITION: Records.of(found)} if found else {}), {PARTITION}

    async def poll(self) -> RecordBatch | None:
        """The batch of one poll, if one is passed on."""
        async for _, message in self.getmany(0.1):
            batch: RecordBatch = message.value
            return batch
        return None


def offsets(batch: RecordBatch | None) -> list[int]:
    assert batch is not None
    found: list[int] = batch.records.offset.tolist()
    return found


@pytest.fixture
async def client() -> Client:
    made = Client([0, 1, 2, 3, 4, 5])
    await made.seek_to("events", 0, 0)
    return made


async def test_batches_follow_each_other(client: Client) -> None:
    for expected in ([0, 1], [2, 3], [4, 5]):
        batch = await client.poll()
        assert offsets(batch) == expected
        assert batch is not None
        assert batch.start == expected[0]
    assert await client.poll() is None


async def test_what_is_taken_while_the_flow_stands_still_is_read_again(client: Client) -> None:
    async def stop() -> None:
        client.flow_active = False

    client.meanwhile = stop
    assert await client.poll() is None
    client.meanwhile, client.flow_active = None, True
    assert offsets(await client.poll()) == [0, 1]


async def test_what_is_taken_during_a_seek_is_read_again(client: Client) -> None:
    async def seek() -> None:
        await client.seek_to("events", 0, 2)
        client.stands_at = 4  # the poll took what came after the seek

    client.meanwhile = seek
    assert await client.poll() is None
    client.meanwhile = None
    assert offsets(await client.poll()) == [2, 3]


async def test_what_is_taken_in_another_generation_is_read_again(client: Client) -> None:
    async for _ in client.getmany(0.1):
        client.app.consumer_generation_id = 2
    client.stands_at = 4  # a poll whose outcome nobody saw
    assert await client.poll() is None
    assert offsets(await client.poll()) == [2, 3]


async def test_a_gap_of_the_log_is_believed_when_seen_twice() -> None:
    client = Client([0, 1, 7, 8])
    await client.seek_to("events", 0, 0)
    assert offsets(await client.poll()) == [0, 1]
    assert await client.poll() is None
    batch = await client.poll()
    assert offsets(batch) == [7, 8]
    assert batch is not None
    assert batch.start == 2


async def test_a_gap_that_was_none_is_not_remembered(client: Client) -> None:
    client.stands_at = 2
    assert await client.poll() is None
    assert offsets(await client.poll()) == [0, 1]
    await client.seek_to("events", 0, 0)
    client.stands_at = 2
    assert await client.poll() is None
    assert offsets(await client.poll()) == [0, 1]
