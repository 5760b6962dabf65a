"""What a figure was measured on, and rounds as min, median and max."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

__all__ = ["machine", "spread", "spreads"]


def machine() -> dict[str, str | int]:
    """Processor, cores, memory and Python of this machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def spread(rounds: Sequence[float], digits: int = 0) -> dict[str, float]:
    """Least, middle and greatest of several rounds."""
    return {
        "min": round(min(rounds), digits),
        "median": round(median(rounds), digits),
        "max": round(max(rounds), digits),
    }


def spreads(rounds: Sequence[Mapping[str, float]], digits: int = 2) -> dict[str, dict[str, float]]:
    """`spread` of each of the figures that every round has."""
    return {name: spread([one[name] for one in rounds], digits) for name in rounds[0]}
