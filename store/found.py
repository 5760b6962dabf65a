"""What a reader finds, as answers use it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.columns import F64, U64

__all__ = ["History", "ItemText", "Trending"]


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
class History:
    """A user's kept events in time order, as far as answers need them."""

    item: U64
    kind: npt.NDArray[np.uint8]
    tag: npt.NDArray[np.uint32]
