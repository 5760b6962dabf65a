"""The client below the transport: a thread that reads Kafka in whole batches, and goes on reading
while its group settles who reads what.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from aiokafka.errors import ConsumerStoppedError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.utils.queues import FlowControlEvent

from streams.fetched import take_fetched
from streams.records import Records

__all__ = ["BatchThread", "GoOn", "KeepsWaiting", "NoReadOffsets"]

_FETCH_WAIT_MS, _FETCH_BYTES = 15, 32_768
"""The broker answers once it has so much, or after so long: a fetch for each few records would
cost it more than the records do."""

_LEAVE_SECONDS, _COMMIT_SECONDS = 2.0, 2.0


class NoReadOffsets(MutableMapping[TP, int | None]):
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


class GoOn(driver.ConsumerRebalanceListener):
    """Is told by the client that the group settles anew who reads what, and what came of it."""

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Nothing: they may well stay, and nobody else reads them yet."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Hand over to `BatchConsumer.on_partitions_assigned`.

        Faust's number of the group's generation stays as it is: whoever has waited since an earlier
        one would be thrown away for it, also of partitions that stay.
        """
        thread = self._thread
        thread.app.on_rebalance_start()
        # Who is told to end meanwhile takes nothing on, and nobody would answer.
        await thread.wait(
            thread.on_partitions_assigned(
                driver.ensure_TPset(assigned), thread.app.consumer_generation_id
            )
        )


class KeepsWaiting(FlowControlEvent):
    """Holds messages back until the first partitions are there."""

    def clear(self) -> None:
        """Nothing. Faust throws away what waits whenever its group has settled, since it reads
        everything again from then on; here what stays is read on, and what waits would be missed
        until the next record of its partition shows that something is lacking.
        """


class BatchThread(driver.AIOKafkaConsumerThread):
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

    async def on_thread_stop(self) -> None:
        """Leave the group, as long as that takes no longer than it may: the client waits for a
        group that is settling, and that waits for its slowest member.

        Where the broker has gone, the client is told by fetches that it cancels itself that they
        are, and takes it for its own end; this thread would die of it, and the worker wait for it.
        """
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await super().on_thread_stop()

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Tell Kafka how far the group is, for those who ask Kafka: the store knows by itself. The
        client would wait for a broker that has gone, and whoever is told to end for the client.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_COMMIT_SECONDS):
                return bool(await super()._commit(offsets))
        return False

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
