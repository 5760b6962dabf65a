"""Every setting, in one place: environment over TOML file over the defaults below.

`HEADWATER_HTTP__PORT=9000` sets `http.port`; the file is `headwater.toml` in the working
directory, or the one that `HEADWATER_CONFIG` names. `headwater settings` lists all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from config.errors import SettingsError

__all__ = [
    "DEFAULT_SCENARIOS",
    "EventSettings",
    "ExploreSettings",
    "FoldSettings",
    "HttpSettings",
    "KafkaSettings",
    "LearnSettings",
    "LogSettings",
    "RankSettings",
    "RedisSettings",
    "ScenarioSettings",
    "ServiceSettings",
    "Settings",
    "StoreSettings",
    "WorkerSettings",
    "describe",
    "load_settings",
]

DEFAULT_WEIGHTS = {
    "view": 1.0,
    "click": 1.0,
    "cart": 2.0,
    "purchase": 3.0,
    "like": 2.0,
    "dislike": 0.0,
}


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Group):
    """The log of events: where it is and how its topics are made."""

    bootstrap: str | None = Field(
        default=None, description="host:port list of a Kafka that runs; unset: one is started here"
    )
    events_topic: str = Field(default="events", description="topic that events are read from")
    items_topic: str = Field(default="items", description="compacted topic of the catalogue")
    dead_topic: str = Field(
        default="events.dead", description="topic of events that cannot be counted"
    )
    recommendations_topic: str = Field(
        default="recommendations", description="topic of what was shown"
    )
    group: str = Field(default="headwater", description="consumer group of the workers")
    partitions: int = Field(
        default=8, ge=1, le=4096, description="partitions of a topic that is made here"
    )
    replication: int = Field(
        default=1, ge=1, le=7, description="replicas of a topic that is made here"
    )
    retention_hours: int = Field(
        default=720,
        ge=1,
        description="hours that events stay in the log; replay reaches back that far",
    )
    max_record_bytes: int = Field(
        default=2_097_152,
        ge=65_536,
        description="largest record that a topic made here takes, bytes",
    )


class RedisSettings(_Group):
    """The materialised view of the log."""

    url: str | None = Field(
        default=None,
        description="redis:// address of a Redis that runs, or "
        "redis+sentinel://host:port,host:port/service/db; unset: one is started here",
    )
    timeout_seconds: float = Field(
        default=2.0, gt=0, le=60, description="longest wait for one answer of Redis, seconds"
    )


class StoreSettings(_Group):
    """How counts and sessions lie in Redis."""

    namespace: str = Field(
        default="hw", pattern=r"^[a-z0-9]{1,16}$", description="first part of every key in Redis"
    )
    shards: int = Field(
        default=2,
        ge=1,
        le=256,
        description="hash tags over which items, and users, are spread: as many as a Redis Cluster "
        "has nodes, or more; each costs every batch a few commands",
    )
    neighbours: int = Field(
        default=100,
        ge=10,
        le=1000,
        description="neighbours kept for an item when its list is compacted",
    )
    compact_factor: float = Field(
        default=1.25,
        ge=1.1,
        le=10,
        description="a list longer than this many times its bound is compacted: when there is "
        "time, or at twice that length",
    )
    history: int = Field(
        default=50,
        ge=30,
        le=200,
        description="events kept for a user; older ones leave the session",
    )
    user_days: int = Field(
        default=90,
        ge=1,
        le=3650,
        description="days without an event after which a user is forgotten",
    )


class EventSettings(_Group):
    """What an event may be and what it weighs."""

    weights: dict[str, Annotated[float, Field(ge=0, le=1000)]] = Field(
        default_factory=lambda: dict(DEFAULT_WEIGHTS),
        description="weight of each event type; 0 counts nothing, and only these types are "
        "accepted. New types go last: the store refers to them by position",
    )
    purchases: list[str] = Field(
        default=["purchase"],
        max_length=32,
        description="event types whose pairs are also counted as bought together",
    )
    session_pause_minutes: float = Field(
        default=30,
        gt=0,
        le=1440,
        description="a pause this long ends a session that has no session_id",
    )
    future_seconds: float = Field(
        default=300,
        ge=0,
        le=86_400,
        description="how far past the broker's clock an event's time may lie",
    )
    max_bytes: int = Field(
        default=65_536,
        ge=1024,
        le=1_048_576,
        description="largest event in bytes; more is rejected",
    )

    @field_validator("weights")
    @classmethod
    def _few_and_named(cls, weights: dict[str, float]) -> dict[str, float]:
        if not 1 <= len(weights) <= 32:
            raise ValueError("name between 1 and 32 event types")
        if any(not 1 <= len(name) <= 32 for name in weights):
            raise ValueError("an event type has 1 to 32 characters")
        return weights


class FoldSettings(_Group):
    """How much a pair of events adds to the co-occurrence counts (docs/ranking.md)."""

    gap_slope: float = Field(
        default=0.8, ge=0, le=10, description="pair weight falls as 1/(1 + slope·(gap-1))"
    )
    length_exponent: float = Field(
        default=0.3, ge=0, le=2, description="pair weight falls as (position in session)^-exponent"
    )
    half_life_days: float = Field(
        default=30, gt=0, le=36_500, description="days after which a count weighs half"
    )


class RankSettings(_Group):
    """How counts become scores (docs/ranking.md)."""

    session_items: int = Field(
        default=15, ge=1, le=30, description="distinct latest items of a session that are looked at"
    )
    backward: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="what a count of coming before is worth, against one of coming after",
    )
    distance_decay: float = Field(
        default=0.6, gt=0, le=1, description="weight of an item falls by this with each step back"
    )
    count_power: float = Field(
        default=0.5, gt=0, le=1, description="power taken of a neighbour's count"
    )
    idf_power: float = Field(default=3.0, ge=0, le=6, description="power taken of an item's rarity")
    widen_below: int = Field(
        default=50,
        ge=0,
        le=100,
        description="with fewer candidates than this, their own neighbours are looked at too",
    )
    widen_by: int = Field(
        default=10, ge=1, le=50, description="best candidates whose neighbours are looked at then"
    )
    category: str = Field(
        default="category",
        description="attribute of catalogue items by which trending ones fit a session that has "
        "no neighbours yet",
    )


class LearnSettings(_Group):
    """How the stream teaches the ranking (docs/ranking.md)."""

    share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the events that are predicted and learned from; 0 learns nothing",
    )
    first_events: int = Field(
        default=10_000,
        ge=0,
        le=10_000_000,
        description="a young stream is learned from more: of n events so far, this many in n",
    )
    per_second: float = Field(
        default=100,
        gt=0,
        le=10_000,
        description="events a worker learns from each second, at most, so that counting goes first",
    )


class ExploreSettings(_Group):
    """How new items come to be seen (docs/ranking.md)."""

    share: float = Field(
        default=0.02,
        ge=0,
        le=0.5,
        description="share of the recommendations whose last place goes to a new item of the "
        "catalogue; 0 for none",
    )
    events: int = Field(
        default=5,
        ge=1,
        le=10_000,
        description="an item with so many events is new no more: it stands on its own",
    )
    exposures: int = Field(
        default=200,
        ge=1,
        le=1_000_000,
        description="a new item that was shown so often without them is given up",
    )


class ScenarioSettings(_Group):
    """What a request that names this scenario asks for where it says nothing itself."""

    exclude_seen: bool = Field(
        default=False, description="leave out what is in the user's history and session"
    )
    diversity: float = Field(
        default=0,
        ge=0,
        le=1,
        description="how much the items shown differ: from 0, the best scores, to 1",
    )
    window: Literal["1h", "24h", "7d"] = Field(
        default="24h", description="trending window that answers where nothing else is known"
    )


DEFAULT_SCENARIOS = {
    "news": ScenarioSettings(exclude_seen=True, diversity=0.3, window="1h"),
    "grocery": ScenarioSettings(window="7d"),
    "cart": ScenarioSettings(exclude_seen=True, window="7d"),
}


class WorkerSettings(_Group):
    """The processes that fold events into Redis."""

    processes: int = Field(default=1, ge=1, le=64, description="workers that `headwater up` starts")
    max_poll_records: int = Field(
        default=20_000, ge=1, le=100_000, description="most events folded and committed at once"
    )
    session_timeout_seconds: float = Field(
        default=10, ge=6, le=300, description="a worker silent this long loses its partitions"
    )
    stuck_seconds: int = Field(
        default=120,
        ge=5,
        le=86_400,
        description="a worker that commits nothing for so long while its lag grows ends with an "
        "error",
    )


class HttpSettings(_Group):
    """The server that answers."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=8080,
        ge=0,
        le=65_535,
        description="port to listen on, 0 for a free one; `headwater up` takes one where this "
        "is in use",
    )
    processes: int = Field(
        default=1, ge=1, le=64, description="server processes that share the port"
    )
    list_cache_ms: int = Field(
        default=250,
        ge=0,
        le=10_000,
        description="how long a parsed neighbour list may be used again",
    )
    max_body_bytes: int = Field(
        default=1_048_576, ge=1024, le=16_777_216, description="largest request body in bytes"
    )
    max_lag_seconds: float = Field(
        default=60,
        gt=0,
        description="/health/ready fails when the store is this far behind the log of events",
    )


class ServiceSettings(_Group):
    """Kafka and Redis when they are started here."""

    data_dir: Path = Field(
        default=Path(".headwater"), description="data and logs of the services started here"
    )
    cache_dir: Path | None = Field(
        default=None, description="where Kafka's jars are kept; unset: the user's cache folder"
    )
    kafka_heap_mb: int = Field(
        default=512, ge=256, le=65_536, description="heap of the started Kafka, MB"
    )


class LogSettings(_Group):
    """What the processes say on stderr."""

    level: str = Field(
        default="info",
        pattern="^(debug|info|warning|error)$",
        description="least level that is logged",
    )
    json_lines: bool = Field(default=False, description="log JSON lines instead of text")


class Settings(BaseSettings):
    """All groups. Frozen: a process reads its settings once."""

    model_config = SettingsConfigDict(
        env_prefix="HEADWATER_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    events: EventSettings = Field(default_factory=EventSettings)
    fold: FoldSettings = Field(default_factory=FoldSettings)
    rank: RankSettings = Field(default_factory=RankSettings)
    scenarios: dict[str, ScenarioSettings] = Field(default_factory=lambda: dict(DEFAULT_SCENARIOS))
    learn: LearnSettings = Field(default_factory=LearnSettings)
    explore: ExploreSettings = Field(default_factory=ExploreSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    services: ServiceSettings = Field(default_factory=ServiceSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @field_validator("scenarios", mode="before")
    @classmethod
    def _over_the_defaults(cls, given: object) -> object:
        """Whoever sets one value of a scenario keeps the others, and the other scenarios."""
        if not isinstance(given, dict):
            return given
        merged: dict[str, object] = {**DEFAULT_SCENARIOS, **given}
        for name, default in DEFAULT_SCENARIOS.items():
            if isinstance(changed := merged[name], dict):
                merged[name] = {**default.model_dump(), **changed}
        return merged

    @field_validator("scenarios")
    @classmethod
    def _named_for_a_variable(
        cls, scenarios: dict[str, ScenarioSettings]
    ) -> dict[str, ScenarioSettings]:
        for name in scenarios:
            # Two underscores would end the name in a variable of the environment.
            if not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", name) or len(name) > 32:
                raise ValueError(
                    f"the scenario name {name[:40]!r} is not 1 to 32 of a-z and 0-9, "
                    "with single - or _ between them"
                )
        return scenarios

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = TomlConfigSettingsSource(settings_cls, _settings_file())
        return init_settings, env_settings, file


def _settings_file() -> Path:
    named = os.environ.get("HEADWATER_CONFIG")
    if named and not Path(named).is_file():
        raise SettingsError(f"HEADWATER_CONFIG names {named}, which is not a file")
    return Path(named or "headwater.toml")


def _variable(path: str) -> str:
    return "HEADWATER_" + path.replace(".", "__").upper()


def load_settings(**overrides: Any) -> Settings:
    """Read settings from overrides, environment and file, in that order of weight.

    Raises SettingsError with one line that names the setting, its value and what is allowed.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"setting {path} ({_variable(path)}): {first['msg']}; got {first['input']!r}"
        ) from None
    except SettingsError:
        raise
    except (ValueError, OSError) as error:  # broken TOML or JSON in a variable
        raise SettingsError(f"settings cannot be read: {error}") from None


def describe(settings: Settings) -> Iterator[dict[str, Any]]:
    """Every setting as {name, variable, value, default, meaning}, in the order of the file."""
    defaults = Settings.model_construct()
    for name in Settings.model_fields:
        if name != "scenarios":
            yield from _rows(name, getattr(settings, name), getattr(defaults, name))
            continue
        for scenario, chosen in settings.scenarios.items():
            default = defaults.scenarios.get(scenario, ScenarioSettings())
            yield from _rows(f"scenarios.{scenario}", chosen, default)


def _rows(prefix: str, group: BaseModel, default: BaseModel) -> Iterator[dict[str, Any]]:
    values, default_values = group.model_dump(mode="json"), default.model_dump(mode="json")
    for name, field in type(group).model_fields.items():
        path = f"{prefix}.{name}"
        yield {
            "name": path,
            "variable": _variable(path),
            "value": values[name],
            "default": default_values[name],
            "meaning": field.description or "",
        }
