"""Notices a worker that is stuck: its lag grows while it commits nothing.

Whatever the reason, a process that begins anew is likelier to get on than one that waits; and what
ends with an error is seen. Knows neither Faust nor the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["PartitionState", "Watchdog"]


@dataclass(frozen=True, slots=True)
class PartitionState:
    """Where a partition stands."""

    topic: str
    partition: int
    contained: int
    """The offset up to which the store contains it."""
    lag: int
    """Records behind the log's end, as far as that is known."""


@dataclass(slots=True)
class _Seen:
    contained: int
    lag: int
    """When it stood there first."""
    looks: int = 0


class Watchdog:
    """Is shown the partitions of a worker at a fixed pace."""

    def __init__(self, looks: int) -> None:
        """`looks` are how often a partition may be seen where it was. They are counted instead of
        time: a process that was frozen is not stuck.
        """
        self._looks = looks
        self._seen: dict[tuple[str, int], _Seen] = {}

    def look(self, partitions: Iterable[PartitionState]) -> PartitionState | None:
        """One that is stuck, if any. Lag alone says nothing: behind the last record of a log there
        may be markers of transactions, which nobody reads.
        """
        seen: dict[tuple[str, int], _Seen] = {}
        stuck = None
        for one in partitions:
            name = one.topic, one.partition
            before = self._seen.get(name)
            if before is None or before.contained != one.contained or one.lag <= before.lag:
                seen[name] = _Seen(one.contained, one.lag)
                continue
            before.looks += 1
            seen[name] = before
            if before.looks >= self._looks:
                stuck = one
        self._seen = seen
        return stuck
