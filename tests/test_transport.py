"""Records that the client handed over but that were not passed on are read again, never skipped.

The client is a stand-in with a log of offsets: what matters here is the order of its calls, which
a real one leaves to chance. The real one is in `test_recovery.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from config.settings import load_settings
from processors.worker import _faust_app
from streams.records import Record, RecordBatch, Records
from streams.transport import BatchConsumer

PARTITION, OTHER = TP("events", 0), TP("events", 1)
CONTAINED = 1
"""The position of which the store says that it is read on from there."""


class Client(BatchConsumer):
    """A consumer whose client hands over `take` records at each poll from where it stands."""

    should_stop = False

    def __init__(self, offsets: list[int]) -> None:
        self.offsets = offsets
        self.stands_at = 0
        self.take = 2
        self.meanwhile: Callable[[], Any] | None = None
        self.beside: dict[TP, list[int]] = {}
        self.flow_active = True
        self.member = "a member of the group"
        self.ours = {PARTITION}
        self.asked: list[TP] = []
        self.gone: list[TP] = []
        self.app = SimpleNamespace(consumer_generation_id=0)
        self.transport = SimpleNamespace(
            positions=self._position_of, gone=lambda *place: self.gone.append(TP(*place))
        )
        self._thread = SimpleNamespace(_ensure_consumer=self._kafka)
        self._start_positions()

    def _kafka(self) -> Any:
        return SimpleNamespace(
            _coordinator=SimpleNamespace(member_id=self.member),
            partitions_for_topic={"events": {0, 1, 2, 3}}.get,
        )

    async def _position_of(self, topic: str, partition: int) -> int:
        self.asked.append(TP(topic, partition))
        return CONTAINED

    def assignment(self) -> set[TP]:
        return self.ours

    async def settle(self, assigned: set[TP]) -> None:
        self.ours = assigned
        await super().settle(assigned)

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        self.stands_at = partitions.get(PARTITION, self.stands_at)

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:  # noqa: ASYNC109
        found = [Record(o, 0, None, None) for o in self.offsets if o >= self.stands_at][: self.take]
        if found:
            self.stands_at = found[-1].offset + 1
        if self.meanwhile is not None:
            await self.meanwhile()
        polled = {PARTITION: found} if found else {}
        for tp, offsets in self.beside.items():
            polled[tp] = [Record(offset, 0, None, None) for offset in offsets]
        return {tp: Records.of(some) for tp, some in polled.items()}, self.ours

    async def poll(self) -> RecordBatch | None:
        """The batch of one poll, if one is passed on."""
        async for _, message in self.getmany(0.1):
            batch: RecordBatch
            (batch,) = message.value
            return batch
        return None


def offsets(batch: RecordBatch | None) -> list[int]:
    assert batch is not None
    found: list[int] = batch.records.offset.tolist()
    return found


@pytest.fixture
async def client() -> Client:
    made = Client([0, 1, 2, 3, 4, 5])
    await made.settle({PARTITION})
    await made.seek_to("events", 0, 0)
    return made


async def test_batches_follow_each_other(client: Client) -> None:
    for expected in ([0, 1], [2, 3], [4, 5]):
        batch = await client.poll()
        assert offsets(batch) == expected
        assert batch is not None
        assert batch.start == expected[0]
    assert await client.poll() is None


async def test_a_poll_brings_one_message_of_each_topic(client: Client) -> None:
    items = TP("items", 0)
    client.ours = {PARTITION, OTHER, items}
    await client.seek_to("events", 1, 7)
    await client.seek_to("items", 0, 3)
    client.beside = {items: [3], OTHER: [7, 8]}

    async def move() -> None:
        await client.seek_to("events", 0, 1)

    found = [message.value async for _, message in client.getmany(0.1)]
    assert [[offsets(batch) for batch in batches] for batches in found] == [[[0, 1], [7, 8]], [[3]]]
    # Of one that was told to be read from elsewhere, nothing is passed on; of the others, all is.
    client.meanwhile, client.beside = move, {OTHER: [9]}
    found = [message.value async for _, message in client.getmany(0.1)]
    assert [[offsets(batch) for batch in batches] for batches in found] == [[[9]]]


async def test_what_part_of_a_topic_is_read_here(client: Client) -> None:
    client.ours = {PARTITION, OTHER, TP("items", 0)}
    await client.perform_seek()
    assert client.share("events") == 0.5
    assert client.share("items") == 1  # Kafka has not said how many there are
    await client.settle({OTHER})
    assert client.share("events") == 0.25


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


async def test_what_stays_in_a_rebalance_is_read_on_from_where_it_was(client: Client) -> None:
    assert offsets(await client.poll()) == [0, 1]
    client.stands_at = 0  # the client forgets
    await client.settle({PARTITION, OTHER})
    await client.perform_seek()
    assert client.asked == [OTHER]
    assert offsets(await client.poll()) == [2, 3]
    assert not client.gone


async def test_what_waits_to_be_folded_is_kept_when_a_group_has_settled() -> None:
    """It was read already, and nobody reads it again: of a partition that has no more records,
    nothing would show that some are lacking.
    """
    app = _faust_app(load_settings(kafka={"bootstrap": "127.0.0.1:1"}), None)
    waiting = app.FlowControlQueue(maxsize=1, clear_on_resume=True)
    app.flow_control.resume()
    waiting.put_nowait("batches")
    app.flow_control.resume()
    assert waiting.get_nowait() == "batches"


async def test_what_goes_while_it_is_taken_is_not_passed_on(client: Client) -> None:
    async def lose() -> None:
        await client.settle({OTHER})

    client.applied("events", 0, 1)
    client.meanwhile = lose
    assert await client.poll() is None
    client.meanwhile = None
    assert client.gone == [PARTITION]
    assert not client.contained()
    assert not client.reads("events", 0)
    assert await client.poll() is None


async def test_what_comes_is_not_read_before_the_store_says_from_where(client: Client) -> None:
    await client.settle({OTHER})
    await client.settle({PARTITION})
    client.stands_at = 4  # where Kafka's group offset is
    assert await client.poll() is None
    await client.perform_seek()
    assert client.asked == [PARTITION]
    assert offsets(await client.poll()) == [1, 2]


async def test_who_was_taken_for_dead_asks_the_store_for_all(client: Client) -> None:
    assert offsets(await client.poll()) == [0, 1]
    client.member = "the same worker, by another name"
    await client.settle({PARTITION})
    assert client.gone == [PARTITION]
    await client.perform_seek()
    assert client.asked == [PARTITION]
    assert offsets(await client.poll()) == [1, 2]


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
