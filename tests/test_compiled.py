"""What `config.compiled` promises of any compiled function."""

from __future__ import annotations

import numpy as np
import pytest

from config.compiled import compiled


@compiled("f8(f8[::1])")
def total(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    found = 0.0
    for value in values:
        found += value
    return found


def test_it_is_compiled_before_it_is_called_and_computes_the_same() -> None:
    assert total(np.array([0.5, 2.0, 4.0])) == 6.5
    assert len(total.signatures) == 1  # type: ignore[attr-defined]


def test_an_argument_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="No matching definition"):
        total(np.array([1, 2]))
