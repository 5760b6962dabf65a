"""Named presets of requests: those of the settings, and those of a file that may change any time.

The file (`http.scenarios_file`) has a TOML table for each name, with the members of a scenario:

    [product-page]
    exclude_seen = true
    filter = {in_season = true}
    boost = [{filter = {brand = "own"}, factor = 1.5}]

One of the same name as in the settings takes its place. A file that cannot be read, or says
something wrong, is told in the log, and what was known before stays.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from config.errors import BadInput, SettingsError
from config.followed import FollowedFile
from config.settings import ScenarioSettings, Settings, check_scenario_names
from serving.filters import Boost, Filter, filter_of

__all__ = ["PLAIN", "Scenario", "Scenarios", "ready_scenarios"]

_FILE: TypeAdapter[dict[str, ScenarioSettings]] = TypeAdapter(dict[str, ScenarioSettings])


@dataclass(frozen=True, slots=True)
class Scenario:
    """A preset, ready to be used."""

    settings: ScenarioSettings
    filter: Filter | None = None
    boosts: tuple[Boost, ...] = ()


PLAIN = Scenario(ScenarioSettings())
"""Of requests that name none."""


class Scenarios:
    """Presets by their names."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError."""
        self._of_settings = ready_scenarios(settings.scenarios, "scenarios")
        path = settings.http.scenarios_file
        self._file = None if path is None else FollowedFile(path, _read)

    @property
    def known(self) -> Mapping[str, Scenario]:
        """All of them."""
        return self._of_settings if self._file is None else self._of_settings | self._file.value

    async def run(self) -> None:
        """Follow the file, forever, where there is one."""
        if self._file is not None:
            await self._file.run()


def _read(path: Path) -> dict[str, Scenario]:
    try:
        found = _FILE.validate_python(tomllib.loads(path.read_text()))
        check_scenario_names(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{path}: {place}: {first['msg']}; got {first['input']!r}") from None
    except (ValueError, OSError) as error:
        raise SettingsError(f"{path} (setting http.scenarios_file): {error}") from None
    return ready_scenarios(found, str(path))


def ready_scenarios(scenarios: Mapping[str, ScenarioSettings], source: str) -> dict[str, Scenario]:
    """Raises SettingsError where a filter breaks a rule."""
    try:
        return {
            name: Scenario(
                one,
                None if one.filter is None else filter_of(one.filter, f"{name}.filter"),
                tuple(
                    Boost(filter_of(boost.filter, f"{name}.boost[{place}].filter"), boost.factor)
                    for place, boost in enumerate(one.boost)
                ),
            )
            for name, one in scenarios.items()
        }
    except BadInput as error:
        raise SettingsError(f"{source}: {error}") from None
