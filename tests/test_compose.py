"""docker-compose.yml and the Dockerfile name what the code has: settings, commands, versions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from commands.__main__ import COMMANDS
from config.jars import COORDINATES
from config.settings import describe, load_settings

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as a compose implementation resolves it; it fails on one that is not valid."""
    argv = [sys.executable, "-m", "podman_compose", "--dry-run", "-f", "docker-compose.yml"]
    done = subprocess.run(
        [*argv, "config"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    found = yaml.safe_load(done.stdout)
    assert isinstance(found, dict)
    return found


def _environment(service: dict[str, Any]) -> dict[str, str]:
    return dict(service.get("environment", {}))


def test_the_services_are_there(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"kafka", "redis", "topics", "worker", "server"}
    kafka = dict((name, version) for _, name, version in COORDINATES)["kafka_2.13"]
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{kafka}"
    assert compose["services"]["redis"]["image"].startswith("redis:7")


@pytest.mark.parametrize("name", ["topics", "worker", "server"])
def test_the_environment_is_made_of_settings(
    compose: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = _environment(compose["services"][name])
    known = {row["variable"] for row in describe(load_settings())}
    ours = {key for key in environment if key.startswith("HEADWATER_")}
    assert ours <= known
    for key in ours:
        monkeypatch.setenv(key, environment[key])
    settings = load_settings()
    listeners = _environment(compose["services"]["kafka"])["KAFKA_ADVERTISED_LISTENERS"]
    assert listeners == f"PLAINTEXT://{settings.kafka.bootstrap}"
    assert settings.redis.url == "redis://redis:6379/0"


def test_the_containers_run_commands_that_exist(compose: dict[str, Any]) -> None:
    for name in ("worker", "server"):
        program, command = compose["services"][name]["command"]
        assert program == "headwater"
        assert command in COMMANDS
    python, option, code = compose["services"]["topics"]["command"]
    assert (python, option) == ("python", "-c")
    compile(code, "topics", "exec")
    for module in ("config.settings", "streams.topics"):
        assert f"from {module} import" in code


def test_the_published_port_is_the_servers(compose: dict[str, Any]) -> None:
    server = compose["services"]["server"]
    port = _environment(server)["HEADWATER_HTTP__PORT"]
    assert server["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_the_image_has_every_package_and_no_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "USER headwater" in lines
    copied = {line.split()[1] for line in lines if line.startswith("COPY ")}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= copied
