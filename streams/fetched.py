# ruff: noqa: SLF001 - aiokafka has no other door to what it fetched
"""Takes records out of aiokafka by the thousand.

aiokafka hands records over one by one, through a Python generator that makes an object of eleven
fields of each. Its Cython reader below that gives all records of a batch of the log at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from faust.types import TP

from streams.records import Records, concatenate_records

__all__ = ["take_fetched"]


async def take_fetched(
    fetcher: Fetcher,
    active: set[TP] | None,
    timeout: float,  # noqa: ASYNC109 - as Faust hands it over
    enough: int,
) -> dict[TP, Records]:
    """What was fetched of each partition in `active` (None: of all); waits `timeout` s for some.

    Of a partition whole batches of the log are taken until there are `enough` records. aiokafka's
    own `fetched_records` stops at so many in all, and then the other partitions wait for this one;
    and it hands nothing over while a group settles anew who reads what.
    Raises aiokafka's errors for a fetch that failed.
    """
    limit = time.monotonic() + timeout
    while True:
        taken: dict[TP, Records] = {}
        for tp, result in list(fetcher._records.items()):
            if active and tp not in active:
                if not fetcher._subscriptions.is_assigned(tp):
                    del fetcher._records[tp]
                continue
            if isinstance(result, FetchResult):
                records = _take(result, tp, enough)
                if not result.has_more():
                    _fetch_on(fetcher, tp)
                if records is not None:
                    taken[tp] = records
            elif not taken:
                _fetch_on(fetcher, tp)
                result.check_raise()
        left = limit - time.monotonic()
        if taken or left <= 0:
            return taken
        waiter = fetcher._create_fetch_waiter()
        done, _ = await asyncio.wait([waiter], timeout=left)
        if not done or fetcher._closed:
            waiter.cancel()
            return {}
        waiter.result()


def _fetch_on(fetcher: Fetcher, tp: TP) -> None:
    del fetcher._records[tp]
    fetcher._notify(fetcher._wait_consume_future)


def _take(result: FetchResult, tp: TP, enough: int) -> Records | None:
    """Records of one partition; `result` moves on past them."""
    if not result.has_more() or not result.check_assignment(tp):
        return None
    fetched = result._partition_records
    parts: list[Records] = []
    found = 0
    while found < enough and fetched._records.has_next():
        batch = fetched._records.next_batch()
        if fetched._check_crcs and not batch.validate_crc():
            result._update_position()
            result._partition_records = None  # it is fetched once more
            if not parts:
                raise CorruptRecordException(f"a batch of {tp} fails its checksum")
            break
        if _counts(fetched, batch):
            part = Records.of(batch)
            # A fetch brings whole batches, also when it was to begin in the midst of one.
            part = part.span(int(part.offset.searchsorted(fetched.next_fetch_offset)), len(part))
            if len(part):
                parts.append(part)
                found += len(part)
        fetched.next_fetch_offset = batch.next_offset
    else:
        result._update_position()
        if not fetched._records.has_next():
            result._partition_records = None
    return concatenate_records(parts) if parts else None


def _counts(fetched: PartitionRecords, batch: Any) -> bool:
    """Whether a batch of the log has records that were meant: not a transaction's markers, and not
    what an aborted one left. aiokafka's own iterator does the same for each batch it opens.
    """
    if fetched._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        fetched._consume_aborted_up_to(batch.base_offset)
        aborted = fetched._aborted_producers
        if batch.is_control_batch:
            if fetched._contains_abort_marker(batch):
                aborted.discard(batch.producer_id)
        elif batch.is_transactional and batch.producer_id in aborted:
            return False
    return not batch.is_control_batch
