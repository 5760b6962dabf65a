"""Which cores processes may use, and the processor time they have used. Linux tells of both; where
it is another system, nothing is pinned and no times are given, and results say so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "CAN_PIN",
    "Cores",
    "ProcessTimes",
    "cores",
    "cpu_seconds",
    "microseconds_each",
    "pin",
    "shares_of_a_core",
]

CAN_PIN = sys.platform == "linux"
_TICKS = os.sysconf("SC_CLK_TCK")
_USER_TIME = 11
"""Place of utime behind the name of the process in /proc/PID/stat; stime and the two of children
that have ended and were waited for (a Redis that rewrites its log) come next."""


@dataclass(frozen=True, slots=True)
class Cores:
    """How the cores are shared out: one for what is measured, the others for all else."""

    subject: frozenset[int]
    others: frozenset[int]

    @property
    def everything(self) -> frozenset[int]:
        """All of them."""
        return self.subject | self.others


def cores() -> Cores | None:
    """The cores of this process, shared out; None where that cannot be: one core, or no Linux."""
    if not CAN_PIN:
        return None
    mine = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(mine[-1:]), frozenset(mine[:-1])) if len(mine) > 1 else None


def pin(pid: int, to: frozenset[int]) -> None:
    """Keep every thread of a process and of its children on these cores."""
    for process in _family(pid):
        for thread in Path(f"/proc/{process}/task").iterdir():
            try:
                os.sched_setaffinity(int(thread.name), to)
            except ProcessLookupError:
                continue  # it has just ended


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its children have used so far; 0 where nobody tells."""
    return sum(_own_seconds(process) for process in _family(pid)) if CAN_PIN else 0.0


class ProcessTimes:
    """Reads the processor times of named processes, or groups of them."""

    def __init__(self, pids: Mapping[str, Sequence[int]]) -> None:
        self._pids = dict(pids)

    def __call__(self) -> dict[str, float]:
        """Seconds used so far, by name; nothing where the system does not tell."""
        if not CAN_PIN:
            return {}
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self._pids.items()}


def microseconds_each(
    before: Mapping[str, float], after: Mapping[str, float], count: float
) -> dict[str, float]:
    """Microseconds of each process, between two readings, for each of `count` things done."""
    return {name: round(1e6 * (after[name] - before[name]) / count, 2) for name in after}


def shares_of_a_core(
    before: Mapping[str, float], after: Mapping[str, float], seconds: float
) -> dict[str, float]:
    """What each process used of a core, between two readings so many seconds apart."""
    return {name: round((after[name] - before[name]) / seconds, 2) for name in after}


def _own_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(ticks) for ticks in fields[_USER_TIME : _USER_TIME + 4]) / _TICKS


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for process in found:
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found += [int(child) for child in path.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found
