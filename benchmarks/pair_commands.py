"""Comparison: one Redis command for each increment of a pair (ZINCRBY into a sorted set of each
item), in pipelines, instead of one script for each shard. Increments are summed by pair within the
batch before, as in Headwater; all else is committed as Headwater does.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.fold_step import FoldStep, nothing_of
from processors.cooccurrence import Increments
from processors.fold import ItemDeltas
from store.keys import id_bytes

__all__ = ["PairCommands"]

_AT_ONCE = 10_000


class PairCommands(FoldStep):
    """Writes pairs one by one; neither decayed nor bounded, nor exactly once after a crash."""

    async def _before_commit(self, deltas: ItemDeltas) -> ItemDeltas:
        for letter, part in ((b"n", deltas.increments), (b"b", deltas.bought)):
            await self._write(b"bench-pairs:" + letter, part)
        nothing = nothing_of(deltas.increments)
        return replace(deltas, increments=nothing, bought=nothing)

    async def _write(self, head: bytes, part: Increments) -> None:
        sources, neighbours = id_bytes(part.source), id_bytes(part.neighbour)
        weights = (part.forward + part.backward).tolist()
        for first in range(0, len(weights), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            pipeline = self._redis.pipeline(transaction=False)
            for source, neighbour, weight in zip(
                sources[some], neighbours[some], weights[some], strict=True
            ):
                pipeline.zincrby(head + source, weight, neighbour)
            await pipeline.execute()
