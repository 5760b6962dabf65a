"""How sure a share is, and a difference of two: pure functions.

Users are what is drawn by lot, so users are what is counted: of n of a variant, k did something.

- `wilson`: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
  Journal of the American Statistical Association 22 (1927).
- `difference`: R. G. Newcombe, Interval estimation for the difference between independent
  proportions, Statistics in Medicine 17 (1998), method 10: Wilson's intervals put together.
- `users_needed`: J. L. Fleiss, Statistical Methods for Rates and Proportions (1981), without its
  correction for continuity.
"""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = ["Interval", "difference", "quantile", "users_needed", "wilson"]

Interval = tuple[float, float]
"""From and to."""

_NORMAL = NormalDist()


def quantile(confidence: float, comparisons: int = 1) -> float:
    """The two-sided normal quantile for a confidence (0 to 1), as Bonferroni shares the doubt among
    several comparisons.
    """
    return _NORMAL.inv_cdf(1 - (1 - confidence) / (2 * comparisons))


def wilson(k: int, n: int, z: float) -> Interval:
    """The interval of a share of which k of n were seen, 0 ≤ k ≤ n; 0 to 1 where n is 0."""
    if not n:
        return 0.0, 1.0
    share, z2 = k / n, z * z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Exact at the ends, where rounding would leave a little.
    return (0.0 if k == 0 else middle - half), (1.0 if k == n else middle + half)


def difference(k1: int, n1: int, k2: int, n2: int, z: float) -> Interval:
    """The interval of share 2 minus share 1; -1 to 1 where either n is 0."""
    if not n1 or not n2:
        return -1.0, 1.0
    p1, p2 = k1 / n1, k2 / n2
    low1, high1 = wilson(k1, n1, z)
    low2, high2 = wilson(k2, n2, z)
    found = p2 - p1
    return (
        found - math.hypot(p2 - low2, high1 - p1),
        found + math.hypot(high2 - p2, p1 - low1),
    )


def users_needed(share: float, other: float, z: float, power: float = 0.8) -> int:
    """Users of each of two variants with these shares, not equal, of whom a difference is found in
    `power` (0 to 1) of all cases at the quantile `z`.
    """
    mean = (share + other) / 2
    spread = z * math.sqrt(2 * mean * (1 - mean))
    spread += _NORMAL.inv_cdf(power) * math.sqrt(share * (1 - share) + other * (1 - other))
    return math.ceil((spread / (other - share)) ** 2)
