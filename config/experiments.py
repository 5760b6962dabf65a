"""The file of experiments (`experiments.file`): a TOML table for each.

    [steeper]                             # its name
    share = 0.5                           # of the users; all of them by default
    scenarios = ["home"]                  # only requests that name one of these; all by default
    [steeper.variants.control]            # the first one is what the others are compared with
    [steeper.variants.steep]
    weight = 2                            # twice as many users; 1 by default
    settings = {rank = {idf_power = 4}}   # over those of the server: groups rank and explore
    scenario = {diversity = 0.3}          # over the request's scenario; or the name of another one

`running = false` stops one, as does taking it out of the file; what was counted stays.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from config.errors import SettingsError
from config.overlay import Overlay, overlaid
from config.settings import ScenarioSettings, Settings, check_scenario_names

__all__ = ["ExperimentSettings", "VariantSettings", "read_experiments"]

_GROUPS = ("rank", "explore")
"""Groups of settings that a variant may have of its own: those that say how answers are made."""
_MOST = 50


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VariantSettings(_Part):
    """What some of the users get."""

    weight: float = Field(default=1, gt=0, le=1_000_000)
    settings: dict[str, dict[str, Any]] = {}
    scenario: ScenarioSettings | str | None = None


class ExperimentSettings(_Part):
    """Variants, and who takes part."""

    share: float = Field(default=1, ge=0, le=1)
    running: bool = True
    scenarios: list[str] | None = Field(default=None, max_length=100)
    variants: dict[str, VariantSettings] = Field(min_length=2, max_length=16)


_FILE: TypeAdapter[dict[str, ExperimentSettings]] = TypeAdapter(dict[str, ExperimentSettings])


def read_experiments(path: Path, settings: Settings) -> dict[str, ExperimentSettings]:
    """Experiments by name, in the file's order. Raises SettingsError where a rule is broken."""
    try:
        found = _FILE.validate_python(tomllib.loads(path.read_text()))
        if len(found) > _MOST:
            raise ValueError(f"{len(found)} experiments; at most {_MOST} can be in a file")
        _check_names("experiment", found)
        for name, one in found.items():
            _check_names(f"{name}: variant", one.variants)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{path}: {place}: {first['msg']}; got {first['input']!r}") from None
    except (ValueError, OSError) as error:
        raise SettingsError(f"{path} (setting experiments.file): {error}") from None
    for name, one in found.items():
        for variant, its in one.variants.items():
            _check_overlay(f"{path}: {name}.variants.{variant}.settings", its.settings, settings)
    return found


def _check_names(what: str, names: dict[str, Any]) -> None:
    try:
        check_scenario_names(names)
    except ValueError as error:
        raise ValueError(f"{what}: {str(error).replace('scenario name', 'name')}") from None


def _check_overlay(place: str, overlay: Overlay, settings: Settings) -> None:
    for group in overlay:
        if group not in _GROUPS:
            raise SettingsError(
                f"{place}: {group!r} is no group that a variant may set: these are "
                f"{' and '.join(_GROUPS)}"
            )
    try:
        overlaid(settings, overlay)
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}") from None
