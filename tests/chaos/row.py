"""What came of one run of a fault, and whether that is as it must be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["HEAD", "Row"]

HEAD = (
    f"{'fault':<28}{'sent':>7}{'inj.':>6}{'lost':>6}{'doubled':>8}{'lag 0':>8}"
    f"{'worst':>9}{'asked':>7}{'degr.':>7}  not 2xx, and what failed"
)
ALLOWED = {"503"}
"""Answers beside 2xx that are none of a failure: the store or Kafka is away, and says so."""


@dataclass
class Row:
    """Figures of one run."""

    fault: str
    what: str
    """The fault in a few words."""
    seed: int
    sent: int = 0
    """Events that Kafka has confirmed."""
    injected: int = 0
    lost: int = 0
    """Events that were confirmed and are not in the log, or are in the log and were not counted."""
    doubled: int = 0
    """Events that were counted more than once."""
    lag_seconds: float | None = None
    """From the end of the fault until everything in the log was counted; None for never."""
    worst_ms: float = 0.0
    """Longest wait for an answer to a request."""
    asked: int = 0
    degraded: int = 0
    """Answers that said so of themselves."""
    not_2xx: dict[str, int] = field(default_factory=dict)
    """By code; of requests without an answer, by what happened to them."""
    restarts: int = 0
    """Workers and servers that ended by themselves."""
    refused_events: int = 0
    """Events that Kafka has not confirmed: whoever sent them knows."""
    seconds: float = 0.0
    """What the whole run took."""
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What is not as it must be."""
    skipped: str = ""
    """Why the fault cannot be tried here."""

    def judge(self) -> None:
        """Add what the figures say to the failures."""
        if self.skipped:
            return
        if self.lost:
            self.failures.append(f"{self.lost} lost")
        if self.doubled:
            self.failures.append(f"{self.doubled} doubled")
        if self.lag_seconds is None:
            self.failures.append("lag did not reach 0")
        if wrong := {code: n for code, n in self.not_2xx.items() if code not in ALLOWED}:
            self.failures.append(f"answers: {wrong}")
        if not self.injected:
            self.failures.append("nothing was injected")

    @property
    def line(self) -> str:
        """One line for a person."""
        if self.skipped:
            return f"{self.fault:<28} skipped: {self.skipped}"
        lag = "never" if self.lag_seconds is None else f"{self.lag_seconds:.1f} s"
        codes = " ".join(f"{code}: {n}" for code, n in sorted(self.not_2xx.items())) or "none"
        failed = f"  FAILED: {'; '.join(self.failures)}" if self.failures else ""
        return (
            f"{self.fault:<28}{self.sent:>7,}{self.injected:>6,}{self.lost:>6}{self.doubled:>8}"
            f"{lag:>8}{self.worst_ms:>6.0f} ms{self.asked:>7,}{self.degraded:>7,}  {codes}{failed}"
        )

    def as_json(self) -> dict[str, Any]:
        """For the document's table."""
        return asdict(self)
