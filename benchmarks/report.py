"""What a figure was measured on, and rounds as min, median and max."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median

__all__ = ["machine", "spread"]


def machine() -> dict[str, str | int]:
    """Processor, cores and Python of this machine."""
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
