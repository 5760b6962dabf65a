"""A Faust transport that hands over whole record batches and reads from where the store says.

Stock Faust awaits four tasks for every record and trusts its own acknowledgements. Here a poll
yields one message for each topic, whose value is a list of `RecordBatch`es; and a partition that is
assigned is read from the position that `Positions` names, whatever Kafka's group offset says. The
group offset is still committed, for tools that show lag.

A group that settles anew who reads what stops nobody. Stock Faust lets go of everything until all
members have said that they are there, which takes as long as the slowest needs, or a dead one's
session. Here a partition is read, and committed, until its reader is told that it is another's; one
that stays is read on. Kafka hands records to whoever asks, and the store refuses what another one
was first with, so that no more than an attempt is lost where two do the same for a moment.

Faust counts messages in `stream_buffer_maxsize`, and one is plenty: it is what holds the reader
back when the folding is slower.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from itertools import groupby
from operator import attrgetter
from typing import Any, cast

import structlog
import uvloop
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.client import BatchThread, GoOn, NoReadOffsets
from streams.connection import use_connections
from streams.records import RecordBatch, Records

__all__ = ["BatchTransport", "Positions"]

log = structlog.get_logger("headwater.transport")

use_connections()

_STOP_SECONDS = 2.0

Positions = Callable[[str, int], Awaitable[int]]
"""The offset from which a partition (topic, number) has to be read on."""


class BatchConsumer(driver.Consumer):
    """Yields `RecordBatch`es; seeks to the store's positions."""

    RebalanceListener = GoOn

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = NoReadOffsets()
        self._start_positions()

    def _start_positions(self) -> None:
        self._position: dict[TP, int] = {}
        self._seeks: dict[TP, int] = {}
        self._applied: dict[TP, int] = {}
        self._reread: set[TP] = set()
        self._gap_seen: dict[TP, int] = {}
        self._member = ""

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        thread_loop = uvloop.new_event_loop()
        return BatchThread(self, loop=self.loop, thread_loop=thread_loop, beacon=self.beacon)

    async def getmany(
        self,
        timeout: float,  # noqa: ASYNC109 - Faust's own signature
    ) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """One message for each topic that has records: `RecordBatch`es, one of each partition.

        The client's position moves on whenever it hands records over, also when they are not
        passed on from here. Such a partition is read again from where it was (`_reread`), or its
        next records would look as if they followed.
        """
        for tp in list(self._reread):
            if tp in self._position:
                await self.seek_to(tp.topic, tp.partition, self._position[tp])
            self._reread.discard(tp)
        seeks = dict(self._seeks)
        records, active = await self._wait_next_records(timeout)
        if not records:
            return
        self._reread.update(records)
        # Of tenants' topics there may be hundreds: each partition is looked at once.
        for _, of_topic in groupby(sorted(records), attrgetter("topic")):
            if self.should_stop or not self.flow_active:
                return
            batches: list[RecordBatch] = []
            for tp in of_topic:
                some = records[tp]
                if (
                    (active is None or tp in active)
                    and self._seeks.get(tp) == seeks.get(tp)
                    and self._follows(tp, int(some.offset[0]))
                ):
                    self._reread.discard(tp)
                    batches.append(self._batch(tp, some))
            if batches:
                message = self._message(batches)
                yield message.tp, message

    def _follows(self, tp: TP, offset: int) -> bool:
        """Whether records that begin here are the next ones; a gap is believed when seen twice.

        Earlier ones than were asked for come from a log that ends before: what else they may mean
        is for `cut` to find out, and until then they are not read.
        """
        expected = self._position.get(tp)
        if expected is None:
            return False  # it is not ours any more, or not known yet from where to read it
        if offset == expected:
            self._gap_seen.pop(tp, None)
            return True
        if self._gap_seen.get(tp) == expected:
            if offset > expected:
                return True
            cast(BatchTransport, self.transport).cut(tp.topic, tp.partition)
        self._gap_seen[tp] = expected
        return False

    def _batch(self, tp: TP, records: Records) -> RecordBatch:
        batch = RecordBatch(tp.topic, tp.partition, self._position[tp], records)
        self._position[tp] = batch.last + 1
        return batch

    def _message(self, batches: list[RecordBatch]) -> ConsumerMessage:
        """Faust takes it for one of the first batch's partition."""
        first = batches[0]
        return ConsumerMessage(
            first.topic,
            first.partition,
            first.last,
            int(first.records.timestamp[-1]) / 1000.0,
            0,
            (),
            None,
            batches,
            None,
            0,
            0,
            TP(first.topic, first.partition),
            generation_id=self.app.consumer_generation_id,
        )

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: a message waits for its place, and meanwhile nobody polls. Without a partition
        left to ask for, Faust would look again after a second.
        """

    async def seek_to(self, topic: str, partition: int, offset: int) -> None:
        """Read a partition on from `offset`; what was fetched before is dropped.

        Nothing happens for a partition that is no longer ours: its next owner seeks by itself.
        """
        tp = TP(topic, partition)
        if tp not in self.assignment():
            return
        await self._seek_together({tp: offset})

    async def _seek_together(self, offsets: Mapping[TP, int]) -> None:
        # Counted before and after: a poll that overlaps the seek on either side is recognised.
        for tp, offset in offsets.items():
            self._seeks[tp] = self._seeks.get(tp, 0) + 1
            self._position[tp] = offset
        with contextlib.suppress(IllegalStateError):  # it went, and we will be told
            await self.seek_wait(offsets)
        for tp, offset in offsets.items():
            self._seeks[tp] += 1
            if tp in self._position:  # else it went meanwhile
                self._position[tp] = offset

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Go on with what stays before Faust sets up what comes."""
        await self.settle(assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    async def settle(self, assigned: set[TP]) -> None:
        """Read on what stays of what was ours, and forget what goes.

        Whoever was taken for dead has another name in the group now, and what it reads was perhaps
        another's meanwhile: that begins anew.
        """
        coordinator = self._thread._ensure_consumer()._coordinator  # noqa: SLF001 - as Faust does
        stay = assigned if coordinator.member_id == self._member else set()
        self._member = coordinator.member_id
        for tp in set(self._position) - stay:
            del self._position[tp]
            self._applied.pop(tp, None)
            cast(BatchTransport, self.transport).gone(tp.topic, tp.partition)
        # The client has forgotten its positions.
        await self._seek_together(dict(self._position))

    def reads(self, topic: str, partition: int) -> bool:
        """Whether a partition is ours."""
        return TP(topic, partition) in self._position

    def share(self, topic: str) -> float:
        """What part of a topic's partitions is ours; 1 where it is not known how many there are."""
        consumer = self._thread._ensure_consumer()  # noqa: SLF001 - as Faust does
        every = consumer.partitions_for_topic(topic)
        # Of these alone: with hundreds of tenants there are thousands of positions.
        return sum(TP(topic, one) in self._position for one in every) / len(every) if every else 1.0

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        """Nothing: what has no position is not read. Faust stops everything after a rebalance, and
        whoever looks just then waits for a second.
        """

    async def perform_seek(self) -> None:
        """Seek what is newly ours to where the store says."""
        await self._seek_all([tp for tp in self.assignment() if tp not in self._position])

    async def seek_topics(self, topics: Collection[str]) -> None:
        """The same with the assigned partitions of these topics."""
        await self._seek_all([tp for tp in self.assignment() if tp.topic in topics])

    async def _seek_all(self, assignment: Sequence[TP]) -> None:
        transport = cast(BatchTransport, self.transport)
        for tp in assignment:
            offset = await transport.positions(tp.topic, tp.partition)
            await self.seek_to(tp.topic, tp.partition, offset)
            self.applied(tp.topic, tp.partition, offset - 1)
            log.info("partition assigned", topic=tp.topic, partition=tp.partition, offset=offset)

    def applied(self, topic: str, partition: int, offset: int) -> None:
        """Tell that the store contains the partition up to `offset`.

        Nothing happens for a partition that is no longer ours.
        """
        tp = TP(topic, partition)
        if tp in self.assignment():
            self._applied[tp] = offset

    def contained(self) -> list[tuple[str, int, int]]:
        """(topic, partition, offset) as `applied` told of them."""
        return [(tp.topic, tp.partition, offset) for tp, offset in self._applied.items()]

    def highwater(self, tp: TP) -> int | None:
        """The log's end of a partition; None where that is not known, or somebody else's."""
        # The thread below may lose it while it is asked.
        with contextlib.suppress(AssertionError, AttributeError):
            end: int | None = super().highwater(tp)
            return end
        return None

    async def verify_all_partitions_active(self) -> None:
        """Nothing: the worker's watchdog looks, and does not trip over a partition that goes."""

    def lag(self) -> Iterable[tuple[str, int, int, int]]:
        """(topic, partition, offset that the store contains, records behind the log's end) of
        every assigned partition of which that is known.
        """
        for tp in self.assignment():
            end, applied = self.highwater(tp), self._applied.get(tp)
            if end is not None and applied is not None:
                yield tp.topic, tp.partition, applied, max(0, end - applied - 1)

    async def on_stop(self) -> None:
        """Tell Kafka the offsets, where it can still be told: after a crash, the thread that would
        do it is gone, and Faust's own waits for it forever. Only lag tools miss them.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await super().on_stop()

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: batches have gaps between their last offsets by nature."""

    def _filter_tps_with_pending_acks(self, topics: object = None) -> Iterator[TP]:
        return iter(list(self._applied))

    def _new_offset(self, tp: TP) -> int | None:
        """What is committed to Kafka for lag tools: what the store contains."""
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        applied = self._applied.get(tp)
        return None if applied is None else applied + 1


class BatchTransport(driver.Transport):
    """Makes `BatchConsumer`s. What it tells and asks must be set before the app starts."""

    Consumer = BatchConsumer
    positions: Positions
    gone: Callable[[str, int], None]
    """Is told of a partition (topic, number) that is not read here any more."""
    cut: Callable[[str, int], None]
    """Is told of a partition (topic, number) that ends before where it was read to."""
