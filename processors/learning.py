"""How the stream teaches the ranking: one small step for each few predicted events. Pure numpy.

Each sampled event is first predicted, by the rule and by the model, then learned from. The loss is
the softmax cross-entropy of the true next item among the candidates; an event whose item is no
candidate teaches nothing. Steps are Adam's (Kingma & Ba, 2015) with a rate that warms up and cools
down:  step k goes  RATE · min(1, k/WARM) / √(1 + k/COOL), at least LEAST.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from processors.standing import Standing, rank_of
from serving.candidates import F32, Query
from serving.model import HIDDEN, PARAMETERS, Model, untaught

__all__ = ["STEP", "Prediction", "Taught", "learn", "teach"]

STEP = 8
"""Events of one step, at most."""
RATE, WARM, COOL = 0.004, 50, 800
LEAST = 0.0004
BETA1, BETA2, TINY = 0.9, 0.999, 1e-7


def _zeros() -> F32:
    return np.zeros(PARAMETERS, np.float32)


@dataclass(slots=True)
class Taught:
    """A model, and what it takes to teach it further."""

    parameters: F32 = field(default_factory=untaught)
    """(PARAMETERS,)."""
    first: F32 = field(default_factory=_zeros)
    """(PARAMETERS,) Adam's running mean of gradients."""
    second: F32 = field(default_factory=_zeros)
    """(PARAMETERS,) Adam's running mean of squared gradients."""
    steps: int = 0
    standing: Standing = field(default_factory=Standing)

    @property
    def leads(self) -> bool:
        """Whether the learned ranking is the one to be served."""
        return self.standing.leads


@dataclass(frozen=True, slots=True)
class Prediction:
    """Ranks that one event's item was given, from 1; 0 for an item that is no candidate."""

    rule: int
    learned: int
    served: int


def teach(taught: Taught, query: Query, item: int) -> tuple[Prediction, bool]:
    """Predict the event whose item (a small int) came next, and count who was right.

    Returns that, and whether there is something to learn from it.
    """
    if not len(query.index):
        taught.standing.add(0, 0)
        return Prediction(0, 0, 0), False
    answer = query.index == item
    chances = Model.of(taught.parameters).chances(query)
    rule, learned = rank_of(answer, query.rule), rank_of(answer, chances)
    told = Prediction(rule, learned, learned if taught.leads else rule)
    taught.standing.add(rule, learned)
    return told, bool(rule)


def learn(taught: Taught, lessons: Sequence[tuple[Query, int]]) -> None:
    """One step on at most STEP queries and the places of their true next items."""
    gradient = _gradient(taught.parameters, lessons)
    if not np.isfinite(gradient).all():
        return  # one absurd count must not end all learning: what is not a number stays so
    taught.steps += 1
    k = taught.steps
    taught.first = BETA1 * taught.first + (1 - BETA1) * gradient
    taught.second = BETA2 * taught.second + (1 - BETA2) * gradient * gradient
    rate = max(RATE * min(1.0, k / WARM) / (1 + k / COOL) ** 0.5, LEAST)
    size = np.sqrt(taught.second / (1 - BETA2**k)) + np.float32(TINY)
    taught.parameters = taught.parameters - rate / (1 - BETA1**k) * taught.first / size


def _gradient(parameters: F32, lessons: Sequence[tuple[Query, int]]) -> F32:
    """(PARAMETERS,) mean gradient of the loss over the lessons, all of them in one pass."""
    n, m = len(lessons), max(len(query.index) for query, _ in lessons)
    features = len(lessons[0][0].x)
    base = np.full((n, m), -np.inf, np.float32)
    x = np.zeros((features, n, m), np.float32)
    for place, (query, _) in enumerate(lessons):
        base[place, : len(query.index)] = query.base
        x[:, place, : len(query.index)] = query.x
    q = np.stack([query.q for query, _ in lessons], axis=1)
    model = Model.of(parameters)
    hidden = model.hidden_of(x, q)
    error = model.chances_of(base, x, hidden).astype(np.float32)
    error[np.arange(n), [true for _, true in lessons]] -= 1
    gradient = np.zeros(PARAMETERS, np.float32)
    change = Model.of(gradient)
    back = (hidden > 0) * (model.output[:, None, None] * error)
    down = back.sum(axis=2)
    flat = x.reshape(features, n * m)
    change.output[:] = hidden.reshape(HIDDEN, n * m) @ error.ravel()
    change.linear[:] = flat @ error.ravel()
    change.candidate[:] = flat @ back.reshape(HIDDEN, n * m).T
    change.bias[:] = down.sum(axis=1)
    change.session[:] = q @ down.T
    gradient /= n
    return gradient
