"""What experiments have led to, as far as the live generation has counted it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from redis.asyncio import Redis

from config.experiments import ExperimentSettings
from config.settings import Settings
from serving.experiment_report import ExperimentReport, reports
from serving.outage import Outage, StoreDown
from serving.view import LiveView
from store.attribution import VariantCounts, read_outcomes
from store.keys import Keys
from store.shared import Refreshed

__all__ = ["Outcomes"]

_SECONDS = 0.5
_Counts = Mapping[str, Mapping[str, VariantCounts]]


class Outcomes:
    """Reads counts, at most two times a second."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        live: LiveView,
        outage: Outage,
        known: Callable[[], Mapping[str, ExperimentSettings]],
    ) -> None:
        """`known` says which experiments the file has."""
        self._lift = settings.experiments.lift
        self._redis, self._live, self._outage = redis, live, outage
        self._known = known
        self._counts: Refreshed[_Counts] = Refreshed(self._read, _SECONDS)

    async def reports(self) -> list[ExperimentReport]:
        """Of all experiments. Raises StoreDown."""
        return reports(self._known(), await self._counts.get(), self._lift)

    async def last_known(self) -> _Counts:
        """Counts by experiment and variant; while the store does not answer, the last ones."""
        try:
            return await self._counts.get()
        except StoreDown:
            return self._counts.last or {}

    async def _read(self) -> _Counts:
        view = self._live.now
        keys = Keys(view.settings.store, view.generation)
        return await self._outage.ask(read_outcomes, self._redis, keys)
