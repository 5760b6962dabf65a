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
# Those of what was read are not to be written to.
_VIEW, _VIEW2 = (f"Array(float32, {axes}, 'C', readonly=True)" for axes in (1, 2))


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
        return _z(
            queries.start,
            queries.base,
            queries.x,
            queries.q,
            self.candidate,
            self.session,
            self.bias,
            self.output,
            self.linear,
        )

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


@compiled(
    f"f8[::1](i8[::1], f4[::1], f4[:, ::1], f4[:, ::1], {_VIEW2}, {_VIEW2}, {_VIEW}, {_VIEW}, "
    f"{_VIEW})",
    fastmath=True,
)
def _z(
    start: I64,
    base: F32,
    x: F32,
    q: F32,
    candidate: F32,
    session: F32,
    bias: F32,
    output: F32,
    linear: F32,
) -> F64:
    """One hidden unit after the other, over all candidates: rows of `x` are what a processor takes
    many numbers of at once.
    """
    sessions = len(start) - 1
    told = base.copy()
    for f in range(_X):
        weight, row = linear[f], x[f]
        for j in range(len(told)):
            told[j] += weight * row[j]
    shared, inner = np.empty((sessions, HIDDEN), np.float32), np.empty(len(base), np.float32)
    for b in range(sessions):
        shared[b] = bias
        for f in range(_Q):
            value = q[f, b]
            for h in range(HIDDEN):
                shared[b, h] += value * session[f, h]
    for h in range(HIDDEN):
        for b in range(sessions):
            inner[start[b] : start[b + 1]] = shared[b, h]
        for f in range(_X):
            weight, row = candidate[f, h], x[f]
            for j in range(len(inner)):
                inner[j] += weight * row[j]
        weight = output[h]
        for j in range(len(told)):
            told[j] += weight * (inner[j] if inner[j] > 0 else np.float32(0))
    return told.astype(np.float64)


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
