"""How rankings compare over the time of a stream: HR@20 and MRR@20 of each, part by part."""

from __future__ import annotations

from typing import Any

from commands.protocol import Score

__all__ = ["RANKINGS", "Curve"]

RANKINGS = ("served", "learned", "rule", "last_item", "popularity")
"""What was served, the learned ranking and the rule whether they were or not, and two baselines:
what came most often after the last item, and what was most popular so far."""


class Curve:
    """Scores of every ranking in equal parts of the stream."""

    def __init__(self, events: int, parts: int) -> None:
        """`events` are spread over `parts`."""
        self._events = events
        self._parts = [{name: Score() for name in RANKINGS} for _ in range(parts)]
        self.whole = {name: Score() for name in RANKINGS}
        """Over all of it."""

    def add(self, event: int, ranks: dict[str, int]) -> None:
        """Count the ranks that each of RANKINGS gave the answer of event number `event`."""
        part = self._parts[event * len(self._parts) // self._events]
        for name, rank in ranks.items():
            part[name].add(rank)
            self.whole[name].add(rank)

    def as_json(self) -> list[dict[str, Any]]:
        """The parts in which anything was predicted; `until` is the share of events at the end."""
        return [
            {
                "until": round((place + 1) / len(self._parts), 4),
                "predictions": part["served"].queries,
                **{
                    name: {
                        "hr_at_20": round(score.hit_rate, 2),
                        "mrr_at_20": round(score.reciprocal_rank, 2),
                    }
                    for name, score in part.items()
                },
            }
            for place, part in enumerate(self._parts)
            if part["served"].queries
        ]
