"""Fixtures: real Kafka and Redis for the session, settings of a test's own, stacks on top.

Tests share the two services and keep apart by namespace and topic names. A test that breaks a
service starts its own with `Services`.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from commands.stack import Stack
from config.services import Services
from config.settings import Settings, load_settings
from streams.topics import ensure_topics

__all__ = ["StackFactory", "needed", "own_settings", "wait_until"]

StackFactory = Callable[..., Stack]


def needed(program: str | None, otherwise: str) -> str:
    """The path of a program; without one the test is skipped, and fails where CI is true."""
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail(otherwise)
        pytest.skip(otherwise)
    return program


def wait_until(
    condition: Callable[[], object], seconds: float = 20.0, what: str | Callable[[], str] = ""
) -> None:
    """Return once `condition()` is true; fail after `seconds`, saying `what` was waited for."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            said = what() if callable(what) else what
            pytest.fail(f"not within {seconds} s: {said or condition}")
        time.sleep(0.02)


def own_settings(
    services: Services, home: Path, *, partitions: int, **groups: dict[str, Any]
) -> Settings:
    """Settings bound to `services`, with topics and a namespace that nobody else has.

    The topics are still to be made. `groups` replace defaults: `http={"list_cache_ms": 0}`.
    """
    own = secrets.token_hex(6)
    found = load_settings(
        kafka={
            "events_topic": f"events-{own}",
            "items_topic": f"items-{own}",
            "dead_topic": f"events-{own}.dead",
            "recommendations_topic": f"recommendations-{own}",
            "group": f"headwater-{own}",
            "partitions": partitions,
        },
        store={"namespace": f"t{own}"},
        services={"data_dir": home},
        http={"port": 0, **groups.pop("http", {})},
        # Answers are compared: only tests of exploration want chance in them.
        explore={"share": 0, **groups.pop("explore", {})},
        **groups,
    )
    return services.bind(found)


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever runs the tests may have settings of their own; only the cache folder is theirs."""
    empty = tmp_path_factory.mktemp("settings") / "headwater.toml"
    empty.touch()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith("HEADWATER_")]:
            if name != "HEADWATER_SERVICES__CACHE_DIR":
                patch.delenv(name)
        patch.setenv("HEADWATER_CONFIG", str(empty))
        yield


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Commands run in this process point the logs at the stderr of one test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A Kafka and a Redis that every test may use and none may break."""
    home = tmp_path_factory.mktemp("services")
    with Services(load_settings(services={"data_dir": home})) as running:
        yield running


@pytest.fixture
def settings(services: Services, tmp_path: Path) -> Iterator[Settings]:
    """Settings bound to the services, with topics that exist and a namespace nobody else has."""
    found = own_settings(services, tmp_path / "home", partitions=4)
    ensure_topics(found)
    yield found
    kafka = found.kafka
    topics = [
        kafka.events_topic,
        kafka.items_topic,
        kafka.dead_topic,
        kafka.recommendations_topic,
    ]
    with AdminClient({"bootstrap.servers": services.kafka_bootstrap, "log_level": 2}) as admin:
        for deleted in admin.delete_topics(topics).values():
            deleted.result(30)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where the browser is; without one the test is skipped, and fails where CI is true."""
    return needed(
        shutil.which("chromium") or shutil.which("chromium-browser"),
        "no chromium on the PATH: apt-get install chromium",
    )


@pytest.fixture
def stack_factory(settings: Settings, services: Services) -> StackFactory:
    """`async with stack_factory(workers=2) as stack`: workers and server on the shared services.

    Further arguments replace settings by group: `stack_factory(http={"list_cache_ms": 0})`.
    """

    def make(*, workers: int = 1, processes: int = 1, **groups: dict[str, Any]) -> Stack:
        update = {
            name: getattr(settings, name).model_copy(update=values)
            for name, values in groups.items()
        }
        changed = settings.model_copy(update=update)
        return Stack(changed, workers=workers, processes=processes, services=services)

    return make
