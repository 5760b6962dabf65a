"""What a reader finds, as answers use it."""

from __future__ import annotations

from dataclasses import dataclass

from streams.columns import F64, U64

__all__ = ["Changes", "ItemText", "Trending"]


@dataclass(frozen=True, slots=True)
class ItemText:
    """How an item is shown."""

    item_id: str
    catalogue: bytes | None
    """Its catalogue entry, JSON."""


@dataclass(frozen=True, slots=True)
class Trending:
    """Items of a window in falling order of weight."""

    item: U64
    weight: F64
    category: list[str | None]
    """By their catalogue entries, where these tell."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Of catalogue entries of one shard."""

    count: int
    """How many there ever were."""
    latest: U64
    """Items of the latest ones, newest first, as far as they are kept."""
