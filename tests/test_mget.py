"""Commands put together by a compiled loop, against redis-py's way."""

from __future__ import annotations

import hiredis
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from config.settings import StoreSettings
from store.keys import CATALOGUE, STATISTICS, Keys
from store.mget import Mget

_ids = st.lists(st.integers(0, 2**64 - 1), max_size=12).map(lambda i: np.array(i, np.uint64))


@given(st.from_regex("[a-z0-9]{1,16}", fullmatch=True), st.integers(1, 256), _ids, _ids)
def test_the_command_asks_for_the_keys(
    namespace: str, shards: int, first: np.ndarray, second: np.ndarray
) -> None:
    keys = Keys(StoreSettings(namespace=namespace, shards=shards))
    found = Mget(keys.items).command((STATISTICS, first), (CATALOGUE, second))
    named = [*keys.statistics(first), *keys.catalogue(second)]
    assert found == hiredis.pack_command(("MGET", *named))  # type: ignore[arg-type]


def test_prefixes_may_be_long() -> None:
    ids = np.array([0, 1, 2, 2**64 - 1], np.uint64)
    prefixes = [b"p" * 90, b"q" * 91, b"r" * 300]
    found = Mget(prefixes).command((STATISTICS, ids))
    named = [prefixes[one % 3] + STATISTICS + one.to_bytes(8, "little") for one in map(int, ids)]
    assert found == hiredis.pack_command(("MGET", *named))  # type: ignore[arg-type]
