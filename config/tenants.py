"""Tenants: several shops on one deployment, each with keys, topics and settings of its own.

The file (`tenants.file`) has a TOML table for each, with the settings in which it differs from the
deployment, and maybe how often it may ask in all:

    [books]

    [shoes]
    rate = "500/second"
    fold = {half_life_days = 10}
    scenarios.home = {diversity = 0.4}

A tenant's settings are the deployment's with that over them, and with names that nobody else has:
`hw:shoes` before its keys, `shoes.events` and so on for its topics. Whoever works with these
settings works for that tenant and can reach no other: nothing else in the project has to know.
Next: `serving/tenants.py` and `processors/worker.py`, which follow the file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limits import parse
from pydantic import BaseModel, TypeAdapter, ValidationError

from config.errors import SettingsError
from config.overlay import overlaid
from config.settings import DEFAULT_TENANT, Settings, check_scenario_names

__all__ = ["Tenant", "named_tenant", "plain_tenant", "read_tenants", "tenants_of"]

_NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_MOST_CHARACTERS = 32
_TOPICS = ("events_topic", "items_topic", "dead_topic", "recommendations_topic")
_OF_THE_DEPLOYMENT = ("redis", "worker", "http", "tenants", "services", "log", "traces")
"""Groups that say how processes run, which all tenants share."""
_CHOSEN = {"kafka": ("partitions", "replication", "retention_hours")}
"""Of these groups, what a tenant may have of its own."""
_GIVEN = {("store", "namespace")}
"""What follows from its name."""


@dataclass(frozen=True)
class Tenant:
    """One that is named in the file."""

    name: str
    settings: Settings
    rate: str | None = None
    """How often it may ask, with all its keys together, as "500/second"."""
    differs: Mapping[str, Any] = field(default_factory=dict)
    """Settings by group, as the file has them."""


def tenants_of(settings: Settings) -> dict[str, Tenant]:
    """Those of a deployment by their names, without the one that is not named. Raises
    SettingsError.
    """
    path = settings.deployment.tenants.file
    return {} if path is None else read_tenants(settings.deployment, path)


def named_tenant(settings: Settings, name: str | None) -> Settings:
    """Settings to work with for a tenant. Raises SettingsError where there is none of that name."""
    if name is None or name == DEFAULT_TENANT:
        return settings.deployment
    known = tenants_of(settings)
    if name not in known:
        where = settings.deployment.tenants.file or "set tenants.file (HEADWATER_TENANTS__FILE)"
        raise SettingsError(
            f"there is no tenant {name[:40]!r}: there are {', '.join([DEFAULT_TENANT, *known])} "
            f"({where})"
        )
    return known[name].settings


def read_tenants(settings: Settings, path: Path) -> dict[str, Tenant]:
    """Tenants by their names. Raises SettingsError with one line that says what is wrong."""
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise SettingsError(f"{path} (setting tenants.file): {error}") from None
    if tables and ":" in settings.store.namespace:
        raise SettingsError(
            f"setting store.namespace: {settings.store.namespace!r} has a colon, which stands "
            "between the namespace and a tenant's name where there are tenants"
        )
    try:
        return {name: _tenant(settings, name, table) for name, table in tables.items()}
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def _tenant(settings: Settings, name: str, table: Any) -> Tenant:
    if not isinstance(table, dict):
        raise SettingsError(f"{name[:40]} is no table: write [{name[:40]}], and its settings below")
    if not re.fullmatch(_NAME, name) or len(name) > _MOST_CHARACTERS:
        raise SettingsError(
            f"the tenant name {name[:40]!r} is not 1 to {_MOST_CHARACTERS} of a-z and 0-9, "
            "with single - between them"
        )
    if name == DEFAULT_TENANT:
        raise SettingsError(
            f"{DEFAULT_TENANT} is the tenant that is not named: its settings are the deployment's"
        )
    table = dict(table)
    rate = _rate(name, table.pop("rate", None))
    try:
        groups = _groups(settings, table)
    except SettingsError as error:
        raise SettingsError(f"{name}: {error}") from None
    kafka = settings.kafka
    named = {topic: f"{name}.{getattr(kafka, topic)}" for topic in _TOPICS}
    own: BaseModel = groups.get("kafka", kafka)
    groups["kafka"] = own.model_copy(update={**named, "group": f"{kafka.group}.{name}"})
    store: BaseModel = groups.get("store", settings.store)
    space = f"{settings.store.namespace}:{name}"
    groups["store"] = store.model_copy(update={"namespace": space})
    return Tenant(name, settings.of_tenant(name, groups), rate, table)


def plain_tenant(settings: Settings, name: str) -> Settings:
    """Settings of a tenant of that name, be it in the file or not, with none of its own. Raises
    SettingsError where it cannot be one.
    """
    return _tenant(settings.deployment, name, {}).settings


def _rate(name: str, rate: Any) -> str | None:
    try:
        if rate is not None:
            parse(rate)
    except (ValueError, TypeError):
        raise SettingsError(
            f"{name}: rate {rate!r} is no rate: write it as 100/second or 5000 per 10 minutes"
        ) from None
    return rate  # type: ignore[no-any-return] # a text, or it could not be parsed


def _groups(settings: Settings, table: Mapping[str, Any]) -> dict[str, Any]:
    """Whole groups of settings, by their names. Raises SettingsError."""
    found: dict[str, Any] = {}
    for group, values in table.items():
        if group not in type(settings).model_fields or group in _OF_THE_DEPLOYMENT:
            known = (one for one in type(settings).model_fields if one not in _OF_THE_DEPLOYMENT)
            raise SettingsError(
                f"{group[:40]!r} is no setting of a tenant: there are rate, {', '.join(known)}"
            )
        if not isinstance(values, dict):
            raise SettingsError(f"{group} is no table of settings, but {values!r}")
        own = getattr(settings, group)
        if not isinstance(own, BaseModel):
            found[group] = _presets(settings, group, values)
            continue
        for one in values:
            allowed = _CHOSEN.get(group)
            if (group, one) in _GIVEN or (allowed is not None and one not in allowed):
                what = f"only {', '.join(allowed)} may differ" if allowed else "it has its own"
                raise SettingsError(f"{group}.{one} cannot be chosen for a tenant: {what}")
        found[group] = getattr(overlaid(settings, {group: values}), group)
    return found


def _presets(settings: Settings, group: str, values: Mapping[str, Any]) -> Any:
    """Of a group of named ones, the deployment's with a tenant's over them, value by value."""
    merged: dict[str, Any] = {
        name: one.model_dump() if isinstance(one, BaseModel) else one
        for name, one in getattr(settings, group).items()
    }
    for name, one in values.items():
        known = merged.get(name)
        both = isinstance(known, dict) and isinstance(one, dict)
        merged[name] = {**known, **one} if both else one  # type: ignore[dict-item]
    try:
        if group == "scenarios":
            check_scenario_names(values)
        kind: Any = type(settings).model_fields[group].annotation
        return TypeAdapter(kind).validate_python(merged)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([group, *map(str, first["loc"])])
        raise SettingsError(f"{place}: {first['msg']}; got {first['input']!r}") from None
    except ValueError as error:
        raise SettingsError(str(error)) from None
