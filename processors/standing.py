"""Which of two rankings leads on the stream: the rule, or the learned one. Pure.

Both predict the same sampled events before these are learned. What an answer gains is counted as
hit + 1/rank; sums fade, so that about the last MEMORY predictions count. The learned ranking takes
the lead when its gain is two standard errors above 0 and it hits no less often, and loses it once
it gains nothing any more, or hits less often by two standard errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streams.columns import F64, Bool

__all__ = ["SHOWN", "Standing", "rank_of"]

SHOWN = 20
"""A hit lies among this many."""
MEMORY = 5000
"""Predictions after which one weighs 1/e."""
_FADE = 1 - 1 / MEMORY
_ERRORS = 2.0
_TIE = 1e-9
"""Scores closer than this share of each other are a tie: sums in another order differ as much."""


def rank_of(answer: Bool, score: F64) -> int:
    """Rank, from 1, of the one item marked in `answer` (n,) by the scores (n,); 0 where none is
    marked. Items that score the same stand before it.
    """
    at = np.flatnonzero(answer)
    if not len(at):
        return 0
    return int((score >= score[at[0]] * (1 - _TIE)).sum())


@dataclass(slots=True)
class Standing:
    """Faded sums over predictions."""

    tried: float = 0.0
    rule_hits: float = 0.0
    rule_reciprocal: float = 0.0
    learned_hits: float = 0.0
    learned_reciprocal: float = 0.0
    gain: float = 0.0
    """What the learned ranking gained over the rule."""
    gain_squared: float = 0.0
    changes: float = 0.0
    """Predictions that one of the two hit alone."""
    leads: bool = False
    """Whether the learned ranking is the one to be served."""

    def add(self, rule: int, learned: int) -> None:
        """Count one prediction by the ranks, from 1, that both gave the answer; 0 for none."""
        rule_hit, learned_hit = 0 < rule <= SHOWN, 0 < learned <= SHOWN
        rule_reciprocal = 1 / rule if rule_hit else 0.0
        learned_reciprocal = 1 / learned if learned_hit else 0.0
        gain = learned_hit - rule_hit + learned_reciprocal - rule_reciprocal
        self.tried = self.tried * _FADE + 1
        self.rule_hits = self.rule_hits * _FADE + rule_hit
        self.rule_reciprocal = self.rule_reciprocal * _FADE + rule_reciprocal
        self.learned_hits = self.learned_hits * _FADE + learned_hit
        self.learned_reciprocal = self.learned_reciprocal * _FADE + learned_reciprocal
        self.gain = self.gain * _FADE + gain
        self.gain_squared = self.gain_squared * _FADE + gain * gain
        self.changes = self.changes * _FADE + (rule_hit != learned_hit)
        more_hits = self.learned_hits - self.rule_hits
        if self.leads:
            self.leads = self.gain > 0 and more_hits >= -_ERRORS * self.changes**0.5
        else:
            self.leads = self.gain > _ERRORS * self.gain_squared**0.5 and more_hits >= 0
