"""A Faust transport that hands over whole record batches and reads from where the store says.

Stock Faust awaits four tasks for every record and trusts its own acknowledgements. Here a poll
yields one message for each partition, whose value is a `RecordBatch`; and a partition that is
assigned is read from the position that `Positions` names, whatever Kafka's group offset says. The
group offset is still committed, for tools that show lag.

Faust counts messages in `stream_buffer_maxsize`; with batches a handful is plenty, and it is what
holds the reader back when the folding is slower.
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
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass
from typing import Any, cast

import structlog
import uvloop
from aiokafka.errors import ConsumerStoppedError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.connection import use_connections
from streams.fetched import take_fetched
from streams.records import Records, concatenate_records

__all__ = ["BatchTransport", "Positions", "RecordBatch", "join_batches"]

log = structlog.get_logger("headwater.transport")

use_connections()

_FETCH_WAIT_MS, _FETCH_BYTES = 15, 32_768
"""The broker answers once it has so much, or after so long: a fetch for each few records would
cost it more than the records do."""

_STOP_SECONDS = 2.0

Positions = Callable[[str, int], Awaitable[int]]
"""The offset from which a partition (topic, number) has to be read on."""


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Consecutive records of one partition."""

    topic: str
    partition: int
    start: int
    """The position that was asked for. Less than the first record's offset where the log has a
    gap: a transaction's marker, a compacted record, or records that retention took."""
    records: Records

    @property
    def last(self) -> int:
        """Offset of the last record."""
        return int(self.records.offset[-1])

    def cut(self, most: int) -> tuple[RecordBatch, RecordBatch]:
        """The first `most` records, and the others; there must be more."""
        first = RecordBatch(self.topic, self.partition, self.start, self.records.span(0, most))
        rest = self.records.span(most, len(self.records))
        return first, RecordBatch(self.topic, self.partition, first.last + 1, rest)


def join_batches(batches: Sequence[RecordBatch]) -> RecordBatch:
    """Batches of one partition, each beginning where the one before ends, as one."""
    first = batches[0]
    records = concatenate_records([batch.records for batch in batches])
    return RecordBatch(first.topic, first.partition, first.start, records)


class _NoReadOffsets(MutableMapping[TP, int | None]):
    """Faust drops messages below the highest offset it has seen, also right after a seek back; the
    store's marks decide that here."""

    def __getitem__(self, key: TP) -> int | None:
        return None

    def __setitem__(self, key: TP, value: int | None) -> None:
        pass

    def __delitem__(self, key: TP) -> None:
        pass

    def __iter__(self) -> Iterator[TP]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def pop(self, key: TP, default: Any = None) -> Any:
        return default


class _BatchThread(driver.AIOKafkaConsumerThread):
    """Reads Kafka in whole batches and without long waits.

    A fetch leaves out partitions whose last records are still to be taken. If all that have
    traffic are left out, it waits at the broker for the others, as long as it may, and nothing
    can be fetched until it returns: 1.5 s in stock Faust.
    """

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust has no settings for these.
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # noqa: SLF001
        consumer._fetch_min_bytes = _FETCH_BYTES  # noqa: SLF001
        # What an aborted transaction left in the log did not happen.
        consumer._isolation_level = "read_committed"  # noqa: SLF001
        return consumer

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: set[TP] | None,
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's own signature
        max_records: int | None = None,
    ) -> dict[TP, Records]:
        """`max_records` are enough for one partition."""
        if not self.consumer.flow_active:
            return {}
        fetcher = consumer._fetcher  # noqa: SLF001 - as Faust's own method does
        if consumer._closed or fetcher._closed:  # noqa: SLF001
            raise ConsumerStoppedError
        with fetcher._subscriptions.fetch_context():  # noqa: SLF001
            return await take_fetched(fetcher, active_partitions, timeout or 0.0, max_records or 1)


class BatchConsumer(driver.Consumer):
    """Yields `RecordBatch`es; seeks to the store's positions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _NoReadOffsets()
        self._start_positions()

    def _start_positions(self) -> None:
        self._position: dict[TP, int] = {}
        self._seeks: dict[TP, int] = {}
        self._applied: dict[TP, int] = {}
        self._reread: set[TP] = set()
        self._gap_seen: dict[TP, int] = {}

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        thread_loop = uvloop.new_event_loop()
        return _BatchThread(self, loop=self.loop, thread_loop=thread_loop, beacon=self.beacon)

    async def getmany(
        self,
        timeout: float,  # noqa: ASYNC109 - Faust's own signature
    ) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """One message for each partition that has records.

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
        generation = self.app.consumer_generation_id
        if not records:
            return
        self._reread.update(records)
        for tp, some in records.items():
            if (
                self.should_stop
                or not self.flow_active
                or self.app.consumer_generation_id != generation
            ):
                return
            if active is not None and tp not in active and tp not in self._buffered_partitions:
                continue
            if self._seeks.get(tp) != seeks.get(tp) or not self._follows(tp, int(some.offset[0])):
                continue
            self._reread.discard(tp)
            yield tp, self._message(tp, some, generation)

    def _follows(self, tp: TP, offset: int) -> bool:
        """Whether records that begin here are the next ones; a gap is believed when seen twice.

        Earlier ones than were asked for come from a log that ends before: what else they may mean
        is for `cut` to find out, and until then they are not read.
        """
        expected = self._position.get(tp, offset)
        if offset == expected:
            self._gap_seen.pop(tp, None)
            return True
        if self._gap_seen.get(tp) == expected:
            if offset > expected:
                return True
            cast(BatchTransport, self.transport).cut(tp.topic, tp.partition)
        self._gap_seen[tp] = expected
        return False

    def _message(self, tp: TP, records: Records, generation: int) -> ConsumerMessage:
        start = self._position.get(tp, int(records.offset[0]))
        batch = RecordBatch(tp.topic, tp.partition, start, records)
        self._position[tp] = batch.last + 1
        self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            batch.last,
            int(records.timestamp[-1]) / 1000.0,
            0,
            (),
            None,
            batch,
            None,
            0,
            0,
            tp,
            generation_id=generation,
        )

    async def seek_to(self, topic: str, partition: int, offset: int) -> None:
        """Read a partition on from `offset`; what was fetched before is dropped.

        Nothing happens for a partition that is no longer ours: its next owner seeks by itself.
        """
        tp = TP(topic, partition)
        if tp not in self.assignment():
            return
        # Counted before and after: a poll that overlaps the seek on either side is recognised.
        self._seeks[tp] = self._seeks.get(tp, 0) + 1
        self._position[tp] = offset
        await self.seek_wait({tp: offset})
        self._position[tp] = offset
        self._seeks[tp] += 1

    async def perform_seek(self) -> None:
        """Seek every assigned partition to where the store says."""
        assignment = list(self.assignment())
        for gone in set(self._position) - set(assignment):
            del self._position[gone]
        await self._seek_all(assignment)

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

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what was known of partitions that go."""
        for tp in revoked:
            self._applied.pop(tp, None)
        await super().on_partitions_revoked(revoked)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: batches have gaps between their last offsets by nature."""

    def _new_offset(self, tp: TP) -> int | None:
        """What is committed to Kafka for lag tools: what the store contains."""
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        applied = self._applied.get(tp)
        return None if applied is None else applied + 1


class BatchTransport(driver.Transport):
    """Makes `BatchConsumer`s. `positions` and `cut` must be set before the app starts."""

    Consumer = BatchConsumer
    positions: Positions
    cut: Callable[[str, int], None]
    """Is told of a partition (topic, number) that ends before where it was read to."""
