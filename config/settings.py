"""Every setting, in one place: environment over TOML file over the defaults below.

`HEADWATER_HTTP__PORT=9000` sets `http.port`; the file is `headwater.toml` in the working
directory, or the one that `HEADWATER_CONFIG` names. `headwater settings` lists all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from config.errors import SettingsError
from config.redaction import HIDDEN, redacted

__all__ = [
    "DEFAULT_SCENARIOS",
    "DEFAULT_TENANT",
    "EventSettings",
    "ExperimentsSettings",
    "ExploreSettings",
    "FoldSettings",
    "HttpSettings",
    "KafkaSettings",
    "LearnSettings",
    "LogSettings",
    "RankSettings",
    "RedisSettings",
    "ScenarioBoost",
    "ScenarioSettings",
    "ServiceSettings",
    "Settings",
    "StoreSettings",
    "TenantsSettings",
    "WorkerSettings",
    "check_scenario_names",
    "describe",
    "load_settings",
]

DEFAULT_TENANT = "default"
"""Name of the tenant that is there without being named."""

DEFAULT_WEIGHTS = {
    "view": 1.0,
    "click": 1.0,
    "cart": 2.0,
    "purchase": 3.0,
    "like": 2.0,
    "dislike": 0.0,
}


DEFAULT_NAMES = {
    # Segment's ecommerce events
    "Product Viewed": "view",
    "Product Clicked": "click",
    "Product Added": "cart",
    "Wishlist Product Added to Cart": "cart",
    "Product Added to Wishlist": "like",
    "Order Completed": "purchase",
    # Google Analytics 4
    "view_item": "view",
    "select_item": "click",
    "add_to_cart": "cart",
    "add_to_wishlist": "like",
    "purchase": "purchase",
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
    tls: bool = Field(default=False, description="speak TLS with Kafka (docs/security.md)")
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authorities that Kafka's certificate may come from; unset: "
        "the system's",
    )
    username: str | None = Field(
        default=None, min_length=1, description="user to log in to Kafka as; unset: no login"
    )
    password: SecretStr | None = Field(default=None, description="that user's password")
    password_file: Path | None = Field(
        default=None, description="file that has the password, instead"
    )
    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        default="SCRAM-SHA-512", description="how to log in to Kafka"
    )

    @model_validator(mode="after")
    def _whole_login(self) -> Self:
        given = [one for one in (self.password, self.password_file) if one is not None]
        if self.username is not None and len(given) != 1:
            raise ValueError("username needs either password or password_file")
        if self.username is None and given:
            raise ValueError("a password needs the username that it is of")
        if self.ca_file is not None and not self.tls:
            raise ValueError("ca_file is of no use without tls = true")
        if self.username is not None and self.sasl_mechanism == "PLAIN" and not self.tls:
            raise ValueError("sasl_mechanism PLAIN sends the password as it is: set tls = true")
        return self


class RedisSettings(_Group):
    """The materialised view of the log."""

    url: str | None = Field(
        default=None,
        description="redis:// address of a Redis that runs, rediss:// with TLS, unix:///path of "
        "one's socket on this machine, "
        "redis+sentinel://host:port,host:port/service/db, rediss+sentinel:// with TLS, or "
        "redis+cluster://host:port,host:port with some nodes of a Redis Cluster (rediss+cluster:// "
        "with TLS); unset: one is started here",
    )
    password_file: Path | None = Field(
        default=None,
        description="file that has the password of the user in redis.url, where that has none",
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authorities that Redis's certificate may come from; unset: "
        "the system's",
    )
    timeout_seconds: float = Field(
        default=2.0, gt=0, le=60, description="longest wait for one answer of Redis, seconds"
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The address may carry a password."""
        for name, value in super().__repr_args__():
            yield name, redacted(value) if name == "url" and value else value


class StoreSettings(_Group):
    """How counts and sessions lie in Redis."""

    namespace: str = Field(
        default="hw",
        pattern=r"^[a-z0-9]{1,16}(:[a-z0-9-]{1,32})?$",
        description="first part of every key in Redis; a tenant's name follows behind a colon",
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
    undo_seconds: int = Field(
        default=60,
        ge=1,
        le=3600,
        description="on Redis Cluster: how long what a commit replaces of sessions is kept, to be "
        "put back where a node fails over to a replica that is behind; longer than any replica is",
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

    names: dict[str, str] = Field(
        default_factory=lambda: dict(DEFAULT_NAMES),
        max_length=1000,
        description="event types that the names of other formats stand for (docs/events.md); those "
        "given go over the default ones, which stay",
    )

    @field_validator("names", mode="before")
    @classmethod
    def _over_the_defaults(cls, given: object) -> object:
        return {**DEFAULT_NAMES, **given} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _known_types(self) -> Self:
        for name, kind in self.names.items():
            # Whoever has other types than the default ones need not rename what is unused.
            if kind not in self.weights and DEFAULT_NAMES.get(name) != kind:
                allowed = ", ".join(self.weights)
                raise ValueError(f"names: {name[:40]!r} is to be {kind[:40]!r}, not of {allowed}")
        return self

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
        description="events that are learned from each second, at most, so that counting goes "
        "first; several workers share them as they share partitions",
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


class ExperimentsSettings(_Group):
    """Which users see which variant, and what that leads to (docs/experiments.md)."""

    file: Path | None = Field(
        default=None,
        description="TOML file of experiments, read again when it changes; servers and workers "
        "need it. Unset: there are none, and nothing is attributed",
    )
    publish_all: bool = Field(
        default=False,
        description="every answer goes to the topic of what was shown, not only those of "
        "experiments and those that try a new item",
    )
    clicks: list[str] = Field(
        default=["click"],
        min_length=1,
        max_length=32,
        description="event types that count as clicks on what was shown; purchases are those of "
        "events.purchases",
    )
    window_hours: float = Field(
        default=24,
        gt=0,
        le=720,
        description="hours after an answer within which clicks and purchases count for it",
    )
    shown_items: bool = Field(
        default=True,
        description="an event without a recommendation_id counts, too, where an answer in the "
        "window before it showed its item to its user",
    )
    lift: float = Field(
        default=0.1,
        gt=0,
        le=10,
        description="difference that an experiment is to find, as a share of the first variant's "
        "rate: for this the verdict says how many users are needed",
    )


class ScenarioBoost(_Group):
    """Items that a scenario shows rather, or less."""

    filter: dict[str, Any]
    factor: float = Field(gt=0, le=1000)


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
    filter: dict[str, Any] | None = Field(
        default=None, description="which items may be shown, as in requests (docs/filters.md)"
    )
    boost: list[ScenarioBoost] = Field(
        default=[],
        max_length=16,
        description="filters with a factor by which scores of the items that fit are multiplied",
    )
    strict: bool = Field(
        default=False, description="rather too few items than one that does not fit the filter"
    )


DEFAULT_SCENARIOS = {
    "home": ScenarioSettings(diversity=0.2),
    "product-page": ScenarioSettings(exclude_seen=True),
    "email": ScenarioSettings(exclude_seen=True, diversity=0.3, window="7d"),
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
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="port on which a worker tells Prometheus its metrics, where it shares no "
        "PROMETHEUS_MULTIPROC_DIR with a server that tells them; unset: none",
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="address to listen on for a worker's metrics"
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
    admin_port: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="port of the admin routes, beside all others; unset: there are none",
    )
    admin_host: str = Field(
        default="127.0.0.1", description="address to listen on for the admin routes"
    )
    processes: int = Field(
        default=1, ge=1, le=64, description="server processes that share the port"
    )
    max_concurrent: int = Field(
        default=80,
        ge=1,
        le=100_000,
        description="requests that one process works on at a time; more are refused at once with "
        "503, so that those that were taken are answered soon",
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
    cert_file: Path | None = Field(
        default=None,
        description="PEM file of the server's certificate and those between it and the authority: "
        "HTTPS on all ports; read again when it changes. Unset: plain HTTP",
    )
    key_file: Path | None = Field(
        default=None, description="PEM file of the certificate's private key, without a passphrase"
    )
    cors_origins: list[str] = Field(
        default=[],
        max_length=100,
        description="pages of these origins (https://shop.example) may send events and ask for "
        'recommendations; ["*"] for all',
    )
    keys_file: Path | None = Field(
        default=None,
        description="file of API keys, made by `headwater keys`; unset: nobody is asked for one",
    )
    scenarios_file: Path | None = Field(
        default=None,
        description="TOML file of scenarios, beside those of the settings; read again when it "
        "changes",
    )
    max_lag_seconds: float = Field(
        default=60,
        gt=0,
        description="/health/ready fails when the store is this far behind the log of events",
    )

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[a-z0-9.\-\[\]:]+", origin):
                raise ValueError(
                    f"{origin[:80]!r} is no origin: scheme, host and maybe port in small letters "
                    "and nothing after them, https://shop.example:8443"
                )
        return origins

    @model_validator(mode="after")
    def _both_files(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: give both")
        return self


class TenantsSettings(_Group):
    """Several shops on one deployment (docs/tenants.md)."""

    file: Path | None = Field(
        default=None,
        description="TOML file with a table for each tenant: the settings in which it differs; "
        "read again when it changes",
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
    requests: Literal["problems", "all"] = Field(
        default="problems",
        description="which requests have a line of their own: those that failed (5xx) or took "
        "longer than slow_ms, or all",
    )
    slow_ms: int = Field(
        default=500, ge=1, le=60_000, description="a request that takes longer is a slow one"
    )


class TraceSettings(_Group):
    """OpenTelemetry traces; they take `pip install headwater[traces]`."""

    endpoint: str | None = Field(
        default=None,
        pattern="^https?://",
        description="where spans are sent, OTLP over HTTP (http://localhost:4318/v1/traces); "
        "unset: none are made",
    )
    share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="share of requests that are traced where who asks has not decided it "
        "(traceparent)",
    )
    delay_ms: int = Field(
        default=5_000, ge=10, le=60_000, description="longest wait of a span to be sent"
    )


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
    experiments: ExperimentsSettings = Field(default_factory=ExperimentsSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    tenants: TenantsSettings = Field(default_factory=TenantsSettings)
    services: ServiceSettings = Field(default_factory=ServiceSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    traces: TraceSettings = Field(default_factory=TraceSettings)

    _tenant: str = PrivateAttr(default=DEFAULT_TENANT)
    _deployment: Settings | None = PrivateAttr(default=None)

    @property
    def tenant(self) -> str:
        """Whose settings these are."""
        return self._tenant

    @property
    def deployment(self) -> Settings:
        """Those that a tenant's lie over; the very same where it is not a named one's."""
        return self._deployment or self

    def of_tenant(self, name: str, update: dict[str, Any]) -> Settings:
        """Those of a named tenant: these, with whole groups replaced."""
        made = self.model_copy(update=update)
        made._tenant, made._deployment = name, self  # noqa: SLF001 - our own
        return made

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
        check_scenario_names(scenarios)
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


def check_scenario_names(scenarios: Iterable[str]) -> None:
    """Raises ValueError for a name that cannot be one."""
    for name in scenarios:
        # Two underscores would end the name in a variable of the environment.
        if not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", name) or len(name) > 32:
            raise ValueError(
                f"the scenario name {name[:40]!r} is not 1 to 32 of a-z and 0-9, "
                "with single - or _ between them"
            )


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
        # A whole group, or what stands in the place of a secret, may have one in it.
        secret = isinstance(first["input"], dict) or "password" in path or path == "redis.url"
        got = "" if secret else f"; got {first['input']!r}"
        raise SettingsError(f"setting {path} ({_variable(path)}): {first['msg']}{got}") from None
    except SettingsError:
        raise
    except (ValueError, OSError) as error:  # broken TOML or JSON in a variable
        raise SettingsError(f"settings cannot be read: {error}") from None


def describe(settings: Settings, *, secrets: bool = False) -> Iterator[dict[str, Any]]:
    """Every setting as {name, variable, value, default, meaning}, in the order of the file.

    Passwords are hidden, unless the values are for a process that needs the `secrets`.
    """
    defaults = Settings.model_construct()
    for name in Settings.model_fields:
        if name != "scenarios":
            yield from _rows(name, getattr(settings, name), getattr(defaults, name), secrets)
            continue
        for scenario, chosen in settings.scenarios.items():
            default = defaults.scenarios.get(scenario, ScenarioSettings())
            yield from _rows(f"scenarios.{scenario}", chosen, default, secrets)


def _rows(
    prefix: str, group: BaseModel, default: BaseModel, secrets: bool
) -> Iterator[dict[str, Any]]:
    values, default_values = group.model_dump(mode="json"), default.model_dump(mode="json")
    for name, field in type(group).model_fields.items():
        path = f"{prefix}.{name}"
        value = values[name]
        if isinstance(own := getattr(group, name), SecretStr):
            value = own.get_secret_value() if secrets else HIDDEN
        elif path == "redis.url" and value is not None and not secrets:
            value = redacted(value)
        yield {
            "name": path,
            "variable": _variable(path),
            "value": value,
            "default": default_values[name],
            "meaning": field.description or "",
        }
