"""The file of unit costs: `costs.json` in `services.data_dir`, written by `headwater bench`.

Each cost says when, by which measurement, with which sizes and on which machine it was found, so
that a file that is carried elsewhere is not taken for a measurement of that place.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from config.errors import SettingsError
from config.settings import Settings
from planning.unit_costs import SHIPPED, Input, Kind, costs_of

__all__ = ["costs_path", "read_costs", "write_costs"]

_SIZES = ("events", "items", "users", "rounds")
_SAME_MACHINE = ("cpu", "cores", "memory_gb", "system")


class _Cost(msgspec.Struct, forbid_unknown_fields=True):
    """One cost as it stands in the file."""

    value: Annotated[float, msgspec.Meta(gt=0, lt=1e12)]
    unit: str
    bench: str
    date: datetime
    sizes: dict[str, int]
    machine: dict[str, str | int]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    costs: dict[str, _Cost]


def costs_path(settings: Settings) -> Path:
    """Where `headwater bench` writes and `headwater plan` reads them."""
    return settings.services.data_dir.expanduser() / "costs.json"


def write_costs(path: Path, bench: str, result: Mapping[str, Any], now: datetime) -> list[str]:
    """Put what a measurement found beside what others have found; returns the names of the costs.

    Raises SettingsError where the file holds something else, or cannot be written.
    """
    found = costs_of(bench, result)
    if not found:
        return []
    file = _read(path) if path.exists() else _File({})
    sizes = {name: int(result[name]) for name in _SIZES if name in result}
    for name, value in found.items():
        file.costs[name] = _Cost(
            value, SHIPPED[name].unit, bench, now, sizes, dict(result["machine"])
        )
    beside = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")
        beside.replace(path)
    except OSError as error:
        raise SettingsError(f"unit costs cannot be written to {path}: {error.strerror}") from None
    return list(found)


def read_costs(path: Path | None, here: Mapping[str, str | int]) -> dict[str, Input]:
    """By name, the measured costs of a file over the shipped ones. `here` is this machine.

    Raises SettingsError where the file is missing or no file of costs.
    """
    costs = dict(SHIPPED)
    for name, cost in _read(path).costs.items() if path is not None else ():
        if name not in costs:
            raise SettingsError(
                f"{path} has a cost {name[:40]!r}, and there are {', '.join(SHIPPED)}"
            )
        same = all(cost.machine.get(one) == here.get(one) for one in _SAME_MACHINE)
        kind: Kind = "measured here" if same else "measured elsewhere"
        sizes = ", ".join(f"{size:,} {what}" for what, size in cost.sizes.items())
        source = f"headwater bench {cost.bench}, {cost.date:%Y-%m-%d}"
        source += f" ({sizes})" if sizes else ""
        if not same:
            source += f" on {cost.machine.get('cpu')}, {cost.machine.get('cores')} cores"
        shipped = SHIPPED[name]
        costs[name] = Input(name, cost.value, shipped.unit, kind, source, shipped.meaning)
    return costs


def _read(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(
            f"unit costs cannot be read from {path}: {error}; delete the file, and let "
            "`headwater bench` write a new one"
        ) from None
