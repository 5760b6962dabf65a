"""The learned ranking: a small network over the candidates' features. Pure numpy.

    z(c) = ln(rule(c) + 10⁻⁵) + linear · x(c) + output · max(0, Wᵀ x(c) + Vᵀ q + bias)

and softmax of z over the candidates is the chance of each to be next. Output and linear weights
start at zero, so an untaught model ranks exactly as the rule does. `processors/learning.py` teaches
it; here it only answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from config.compiled import compiled
from serving.batch import Queries
from serving.candidates import F32, Query
from serving.features import CANDIDATE_FEATURES, SESSION_FEATURES
from streams.columns import F64, I64

__all__ = ["HIDDEN", "PARAMETERS", "Model", "untaught"]

HIDDEN = 24
_X, _Q = len(CANDIDATE_FEATURES), len(SESSION_FEATURES)
PARAMETERS = (_X + _Q + 2) * HIDDEN + _X
"""Numbers in a model."""
_TINY = 1e-300


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

    def chances(self, query: Query) -> F64:
        """(m,) chance of each candidate to be next; they sum to 1."""
        x, q = query.x[:, None], query.q[:, None]
        chances: F64 = self.chances_of(query.base[None], x, self.hidden_of(x, q))[0]
        return chances

    def z_of(self, queries: Queries) -> F64:
        """(M,) z of all candidates of B sessions."""
        x = queries.x
        shared = self.session.T @ queries.q + self.bias[:, None]
        start, base = queries.start, queries.base + self.linear @ x
        return _z(start, base, self.candidate.T @ x, shared, self.output)

    def hidden_of(self, x: F32, q: F32) -> F32:
        """(HIDDEN, B, M) what the hidden units say of candidates (X, B, M) of sessions (Q, B)."""
        _, b, m = x.shape
        h: F32 = (self.candidate.T @ x.reshape(len(x), b * m)).reshape(HIDDEN, b, m)
        h += (self.session.T @ q + self.bias[:, None])[:, :, None]
        return np.maximum(h, 0, out=h)

    def chances_of(self, base: F32, x: F32, hidden: F32) -> F64:
        """(B, M) chances of the candidates of B sessions; 0 where `base` is -inf."""
        flat = self.linear @ x.reshape(len(x), base.size)
        flat += self.output @ hidden.reshape(HIDDEN, base.size)
        z: F64 = flat.reshape(base.shape).astype(np.float64)
        return _softmax(z + base)


@compiled("f8[::1](i8[::1], f4[::1], f4[:, ::1], f4[:, ::1], f4[::1])", fastmath=True)
def _z(start: I64, base: F32, inner: F32, shared: F32, output: F32) -> F64:
    """Adds to `base` (M,) what the hidden units say, of which `inner` (HIDDEN, M) is the
    candidates' part and `shared` (HIDDEN, B) the sessions'.
    """
    z = base.copy()
    for h in range(HIDDEN):
        for b in range(len(start) - 1):
            mine = shared[h, b]
            for j in range(start[b], start[b + 1]):
                z[j] += output[h] * max(inner[h, j] + mine, np.float32(0))
    return z.astype(np.float64)


def _softmax(z: F64) -> F64:
    top = z.max(axis=-1, keepdims=True)
    chance: F64 = np.exp(z - np.where(top > -np.inf, top, 0))  # a session may have no candidate
    chance /= np.maximum(chance.sum(axis=-1, keepdims=True), _TINY)
    return chance


def untaught() -> F32:
    """Parameters (PARAMETERS,) of a model that ranks as the rule does.

    The input weights are drawn once and for all, so that hidden units differ from each other.
    """
    parameters = np.zeros(PARAMETERS, np.float32)
    drawn = (_X + _Q) * HIDDEN
    parameters[:drawn] = np.random.default_rng(0).normal(0, (_X + _Q) ** -0.5, drawn)
    return parameters
