"""Loops over numbers as machine code, compiled by numba from plain Python over numpy arrays.

What numpy does in a dozen passes over small arrays is one loop here, at a fraction of the price.
Signatures are stated, so that compiling happens when a module is imported and no request or batch
ever waits for it; numba keeps the result in `__pycache__` (or in NUMBA_CACHE_DIR) and the next
process reads it from there.

A compiled function may call those of its own file alone: numba does not notice that one in another
file has changed. The same holds for constants of other files, which are compiled in: whoever
changes one touches the files that import it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(*signatures: str, fastmath: bool = False) -> Callable[[_F], _F]:
    """Compile a function for these types, as numba writes them: `"f8[::1](i8[::1], u8)"`.

    An argument of another type raises TypeError. `fastmath` lets sums be taken in another order.
    """
    made = numba.njit(
        list(signatures), cache=True, nogil=True, fastmath=fastmath, error_model="numpy"
    )
    return cast(Callable[[_F], _F], made)
