"""The learned ranking: a small network over the candidates' features. Pure numpy.

    z(c) = ln(rule(c) + 10⁻⁵) + linear · x(c) + output · max(0, Wᵀ x(c) + Vᵀ q + bias)

and softmax of z over the candidates is the chance of each to be next. Output and linear weights
start at zero, so an untaught model ranks exactly as the rule does. `processors/learning.py` teaches
it; here it only answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serving.candidates import F32, Query
from serving.features import CANDIDATE_FEATURES, SESSION_FEATURES
from streams.columns import F64

__all__ = ["HIDDEN", "PARAMETERS", "Model", "untaught"]

HIDDEN = 24
_X, _Q = len(CANDIDATE_FEATURES), len(SESSION_FEATURES)
PARAMETERS = (_X + _Q + 2) * HIDDEN + _X
"""Numbers in a model."""


@dataclass(frozen=True, slots=True)
class Model:
    """Views of one array of PARAMETERS float32."""

    candidate: F32
    """(x, HIDDEN) W."""
    session: F32
    """(q, HIDDEN) V."""
    bias: F32
    """(HIDDEN,)."""
    output: F32
    """(HIDDEN,)."""
    linear: F32
    """(x,)."""

    @classmethod
    def of(cls, parameters: F32) -> Model:
        """The model that these PARAMETERS numbers are."""
        a, b = _X * HIDDEN, (_X + _Q) * HIDDEN
        return cls(
            parameters[:a].reshape(_X, HIDDEN),
            parameters[a:b].reshape(_Q, HIDDEN),
            parameters[b : b + HIDDEN],
            parameters[b + HIDDEN : b + 2 * HIDDEN],
            parameters[b + 2 * HIDDEN :],
        )

    def hidden(self, query: Query) -> F32:
        """(HIDDEN, m) what the hidden units say."""
        h: F32 = self.candidate.T @ query.x
        h += (query.q @ self.session + self.bias)[:, None]
        return np.maximum(h, 0, out=h)

    def chances(self, query: Query) -> F64:
        """(m,) chance of each candidate to be next; they sum to 1."""
        z = query.base + self.linear @ query.x + self.output @ self.hidden(query)
        chance: F64 = np.exp(z.astype(np.float64) - z.max())
        chance /= chance.sum()
        return chance


def untaught() -> F32:
    """Parameters (PARAMETERS,) of a model that ranks as the rule does.

    The input weights are drawn once and for all, so that hidden units differ from each other.
    """
    parameters = np.zeros(PARAMETERS, np.float32)
    drawn = (_X + _Q) * HIDDEN
    parameters[:drawn] = np.random.default_rng(0).normal(0, (_X + _Q) ** -0.5, drawn)
    return parameters
