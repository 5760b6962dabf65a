"""Settings that a generation of the store brings along, over those of the process.

What stands in Redis was counted by rules, so a generation remembers those that it was begun with
(`recorded`), and others that it was given to be tried. A process that works on it takes these in
place of its own (`overlaid`). Who wants other rules builds another generation: `headwater replay`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from config.errors import SettingsError
from config.settings import Settings

__all__ = ["Overlay", "chosen", "differences", "overlaid", "recorded"]

Overlay = dict[str, dict[str, Any]]
"""Values by group and name."""

_GROUPS = ("store", "events", "fold", "rank", "learn", "explore")
"""Groups that say how events are counted and ranked."""
_NOT_OF_A_GENERATION = {("store", "namespace")}


def recorded(settings: Settings) -> Overlay:
    """What a new generation remembers in any case: what would make no sense of its counts if it
    changed.
    """
    return {
        "store": {"shards": settings.store.shards},
        "fold": settings.fold.model_dump(mode="json"),
    }


def chosen(assignments: Iterable[str]) -> Overlay:
    """From `group.name=value`, the value in JSON or else as it stands. Raises SettingsError."""
    overlay: Overlay = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        group, dot, name = path.partition(".")
        if not equals or not dot:
            raise SettingsError(f"{assignment!r} is not group.name=value")
        if group not in _GROUPS or (group, name) in _NOT_OF_A_GENERATION:
            raise SettingsError(
                f"{path} is no setting of a generation: these are the ones of {', '.join(_GROUPS)}"
            )
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = text
        overlay.setdefault(group, {})[name] = value
    return overlay


def overlaid(settings: Settings, *overlays: Overlay) -> Settings:
    """Settings with overlays over them, the last one counting. Raises SettingsError."""
    groups: dict[str, BaseModel] = {}
    for overlay in overlays:
        for name, values in overlay.items():
            own: BaseModel = groups.get(name) or getattr(settings, name)
            try:
                groups[name] = type(own).model_validate({**own.model_dump(), **values})
            except ValidationError as error:
                first = error.errors()[0]
                path = ".".join([name, *map(str, first["loc"])])
                raise SettingsError(
                    f"setting {path}: {first['msg']}; got {first['input']!r}"
                ) from None
    return settings.model_copy(update=groups)


def differences(settings: Settings, overlay: Overlay) -> list[str]:
    """What an overlay changes, a phrase for each setting."""
    over = overlaid(settings, overlay)
    return [
        f"{group}.{name} is {new!r} and not {old!r}"
        for group, values in overlay.items()
        for name in values
        if (new := getattr(getattr(over, group), name))
        != (old := getattr(getattr(settings, group), name))
    ]
