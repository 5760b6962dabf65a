"""Which variant a request gets: decided by a stable hash of the user, in every process the same.

Two hashes of the experiment's and the user's names say whether the user takes part and in which
variant, so nothing is kept of anybody, and nothing has to be asked. A larger `share` brings users
in and moves nobody; other weights do move some.

A request belongs to at most one experiment: the first of the file that is running, is about its
scenario, and has its user. Requests without a user belong to none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate

import orjson
from xxhash import xxh3_64_intdigest

from config.errors import SettingsError
from config.experiments import ExperimentSettings, VariantSettings, read_experiments
from config.followed import FollowedFile
from config.overlay import Overlay
from config.settings import ScenarioSettings, Settings
from serving.scenarios import Scenario, ready_scenarios

__all__ = ["Assigned", "Experiments", "assign"]

_ALL = 1 << 64


@dataclass(frozen=True, slots=True)
class Assigned:
    """A variant, ready to be used."""

    experiment: str
    variant: str
    overlay: Overlay
    """Settings over those of the server."""
    named: str | None
    """The scenario that takes the place of the request's."""
    own: Scenario | None
    """What goes over the request's scenario."""
    told: bytes
    """As a member of the answer."""

    @property
    def changes_scenario(self) -> bool:
        """Whether a request has to be looked at closer."""
        return self.named is not None or self.own is not None

    def over(self, preset: Scenario, known: Mapping[str, Scenario]) -> Scenario:
        """What a request's scenario becomes."""
        if self.named is not None:
            return known.get(self.named, preset)
        if self.own is None:
            return preset
        own = self.own.settings
        given = {name: getattr(own, name) for name in own.model_fields_set}
        return Scenario(
            preset.settings.model_copy(update=given),
            self.own.filter if "filter" in given else preset.filter,
            self.own.boosts if "boost" in given else preset.boosts,
        )


@dataclass(frozen=True, slots=True)
class _Running:
    """An experiment that requests may belong to."""

    name: str
    share: int
    """Of 2⁶⁴."""
    scenarios: frozenset[str] | None
    ends: tuple[int, ...]
    """Where each variant's part of 2⁶⁴ ends."""
    variants: tuple[Assigned, ...]


class Experiments:
    """Those of the file, as it changes."""

    def __init__(self, settings: Settings, scenarios: Callable[[], Mapping[str, Scenario]]) -> None:
        """`scenarios` says which there are. Raises SettingsError."""
        self._settings = settings
        self._scenarios = scenarios
        path = settings.experiments.file
        self._file = None
        if path is not None:
            self._file = FollowedFile(
                path, lambda of: _ready(read_experiments(of, settings), str(of), scenarios())
            )

    @property
    def known(self) -> Mapping[str, ExperimentSettings]:
        """All of the file, in its order."""
        return {} if self._file is None else self._file.value[0]

    async def run(self) -> None:
        """Follow the file, forever, where there is one."""
        if self._file is not None:
            await self._file.run()

    def of(self, user_id: str | None, scenario: str | None) -> Assigned | None:
        """What a request of a user that names a scenario gets; None for no experiment."""
        if self._file is None or user_id is None:
            return None
        for one in self._file.value[1]:
            if one.scenarios is not None and scenario not in one.scenarios:
                continue
            if (place := assign(one.name, user_id, one.share, one.ends)) is not None:
                return one.variants[place]
        return None


def assign(experiment: str, user_id: str, share: int, ends: tuple[int, ...]) -> int | None:
    """The number of a user's variant; None for who does not take part. `share` and `ends`, where
    the variants' parts end, are of 2⁶⁴.
    """
    if share < _ALL and _point(experiment, "share", user_id) >= share:
        return None
    point = _point(experiment, "variant", user_id)
    return next(place for place, end in enumerate(ends) if point < end)


def _point(experiment: str, what: str, user_id: str) -> int:
    found: int = xxh3_64_intdigest(f"{experiment}\0{what}\0{user_id}".encode())
    return found


def _ready(
    found: dict[str, ExperimentSettings], source: str, scenarios: Mapping[str, Scenario]
) -> tuple[dict[str, ExperimentSettings], tuple[_Running, ...]]:
    """Raises SettingsError where a scenario breaks a rule."""
    running = []
    for name, one in found.items():
        for scenario in one.scenarios or ():
            if scenario not in scenarios:
                raise SettingsError(_unknown(f"{source}: {name}.scenarios", scenario, scenarios))
        variants = tuple(
            _assigned(name, variant, its, source, scenarios)
            for variant, its in one.variants.items()
        )
        sums = list(accumulate(its.weight for its in one.variants.values()))
        ends = (*(int(end / sums[-1] * _ALL) for end in sums[:-1]), _ALL)
        where = None if one.scenarios is None else frozenset(one.scenarios)
        if one.running:
            running.append(_Running(name, int(one.share * _ALL), where, ends, variants))
    return found, tuple(running)


def _assigned(
    experiment: str,
    variant: str,
    its: VariantSettings,
    source: str,
    scenarios: Mapping[str, Scenario],
) -> Assigned:
    place = f"{source}: {experiment}.variants.{variant}.scenario"
    named, own = None, None
    if isinstance(its.scenario, str):
        named = its.scenario
        if named not in scenarios:
            raise SettingsError(_unknown(place, named, scenarios))
    elif isinstance(its.scenario, ScenarioSettings):
        own = ready_scenarios({"scenario": its.scenario}, place)["scenario"]
    told = orjson.dumps({"name": experiment, "variant": variant})
    return Assigned(experiment, variant, its.settings, named, own, b',"experiment":' + told)


def _unknown(place: str, scenario: str, known: Mapping[str, Scenario]) -> str:
    return f"{place}: unknown scenario {scenario[:40]!r}; known: {', '.join(known)}"
