"""What a plan is asked for: users, what they do, and what the machines are like.

`check` is called where numbers come in, so that nothing that is calculated from them can be
negative, infinite or no number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Self

from config.errors import SettingsError

__all__ = ["KNOWN_FACTOR", "Demand", "Machines", "Prices"]

KNOWN_FACTOR = 3.0
"""Users that are known are so many times those of a day, unless it is said."""


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check(value: float, name: str, least: float, most: float) -> None:
    if not least <= value <= most:  # false for what is no number, too
        shown = f"{value:,g}" if math.isfinite(value) else str(value)
        raise SettingsError(
            f"{_option(name)} {shown} is not possible: allowed is {least:,g} to {most:,g}"
        )


def _check_whole(value: float, name: str, least: float, most: float) -> None:
    _check(value, name, least, most)
    if value != int(value):
        raise SettingsError(f"{_option(name)} {value:g} is not possible: it is a whole number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Users of a shop."""

    daily_users: float
    actions_per_user: float
    items: float = 1e6
    peak: float = 3.0
    """Busiest second against the average one."""
    known_users: float | None = None
    """Users with an event within `store.user_days`."""
    events_per_action: float = 1.0
    requests_per_action: float = 1.0

    def check(self) -> Self:
        """Itself. Raises SettingsError for a number that is out of its range."""
        _check(self.daily_users, "daily_users", 1, 1e11)
        _check(self.actions_per_user, "actions_per_user", 1e-3, 1e5)
        _check(self.items, "items", 1, 1e11)
        _check(self.peak, "peak", 1, 1000)
        if self.known_users is not None:
            _check(self.known_users, "known_users", 1, 1e12)
            if self.known_users < self.daily_users:
                raise SettingsError(
                    f"--known-users {self.known_users:,g} is not possible: the "
                    f"{self.daily_users:,g} users of a day are among them"
                )
        _check(self.events_per_action, "events_per_action", 1e-3, 1000)
        _check(self.requests_per_action, "requests_per_action", 1e-3, 1000)
        return self

    @property
    def known(self) -> float:
        """Users in the store."""
        return KNOWN_FACTOR * self.daily_users if self.known_users is None else self.known_users

    def times(self, factor: float) -> Demand:
        """So many times as many users, who do the same, in the same shop."""
        return replace(self, daily_users=factor * self.daily_users, known_users=factor * self.known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What things are kept on."""

    retention_days: float = 30.0
    replication: float = 3
    broker_disk_gb: float = 4000.0
    broker_mb_s: float = 100.0
    redis_node_gb: float = 64.0
    redis_replicas: float = 1

    def check(self) -> Self:
        """Itself. Raises SettingsError for a number that is out of its range."""
        _check(self.retention_days, "retention_days", 1 / 24, 3650)
        _check_whole(self.replication, "replication", 1, 7)
        _check(self.broker_disk_gb, "broker_disk_gb", 10, 1e6)
        _check(self.broker_mb_s, "broker_mb_s", 1, 1e5)
        _check(self.redis_node_gb, "redis_node_gb", 1, 1e5)
        _check_whole(self.redis_replicas, "redis_replicas", 0, 5)
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Of a month, in whatever currency."""

    core_price: float | None = None
    memory_gb_price: float | None = None
    disk_gb_price: float | None = None

    def check(self) -> Self:
        """Itself. Raises SettingsError for a number that is out of its range."""
        for field in fields(self):
            if (price := getattr(self, field.name)) is not None:
                _check(price, field.name, 0, 1e6)
        return self
