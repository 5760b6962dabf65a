"""How values lie in Redis, byte by byte; all little-endian.

Of a user (`vectors.py`): one key, the session vector.
    9 bytes, then for each event 1 (type and flags) + 8 (item) + 1 to 4 for pauses up to three days
    + 5 (key of its event_id, if it has one), and 3 where a session begins.

Of an item:
    its neighbours (`lists.py`), one key: chunks of 8 + 16 bytes a neighbour, at most
    `store.compact_factor` · `store.neighbours` of these before it is compacted;
    those of purchases alone, in the same form, where two were bought in one session;
    its statistics and its name, one key: sessions u32 · events u32 · recent events f32, decayed to
    · time u32, s · the item's id as text;
    trending (`trends.py`): 12 bytes in each bucket of time in which it had events;
    its catalogue entry, where there is one: JSON as it came;
    each word of its title and id, a member of its shard's index (`search.py`).

Beside its value a key takes 55 to 70 bytes of Redis, the 17 or 18 of its name included. Measured
(`headwater bench memory`, valkey 9.1): 419 bytes a user of 20 events with event_ids; 2,435 an item
with 106 neighbours, of which the list 2,090, statistics and name 77, trending 270.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from config.errors import StoreError
from processors.repeats import CELLS
from streams.columns import F64

__all__ = ["STATISTICS", "name_of", "unpack_cells", "unpack_statistics"]

STATISTICS = np.dtype(
    [("sessions", "<u4"), ("events", "<u4"), ("recent", "<f4"), ("recent_at", "<u4")]
)
_NO_STATISTICS = (
    "an item's statistics of an impossible length: does something else write to this namespace "
    "(setting store.namespace)?"
)


def unpack_statistics(values: list[bytes | None]) -> npt.NDArray[np.void]:
    """Statistics (m,) of items as STATISTICS, zeros where there are none.

    Raises StoreError for a value that is none.
    """
    size = STATISTICS.itemsize
    nothing = bytes(size)
    data = b"".join([value[:size] if value else nothing for value in values])
    if len(data) != len(values) * size:
        raise StoreError(_NO_STATISTICS)
    return np.frombuffer(data, STATISTICS)


def name_of(value: bytes | None) -> str:
    """The item's id in the same value; empty where there is none."""
    return value[STATISTICS.itemsize :].decode() if value else ""


def unpack_cells(value: bytes | None) -> F64:
    """Opportunities, or hits, of the repeat prior (CELLS,), as BITFIELD writes them: i64, highest
    byte first. Behind the last cell that was ever counted there is nothing.
    """
    return np.frombuffer((value or b"").ljust(8 * CELLS, b"\0"), ">i8").astype(np.float64)
