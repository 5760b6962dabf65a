"""`headwater up` as its users run it: one ready line, a working server, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from config.services import Services
from tests.conftest import StackFactory, wait_until


@pytest.fixture
def up(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """`headwater up --json` with two workers and its own services, and more arguments if given, as
    a background job runs: its shell has told it to ignore interrupts, which must not keep it from
    ending on one.
    """
    env = os.environ | {
        "HEADWATER_SERVICES__DATA_DIR": str(tmp_path / "a home"),
        "HEADWATER_HTTP__PORT": "0",
    }
    command = 'trap "" INT; exec "$@"'
    argv = [sys.executable, "-m", "commands", "up", "--workers", "2", "--json"]
    argv += getattr(request, "param", [])
    with subprocess.Popen(
        ["/bin/sh", "-c", command, "sh", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        yield process
        process.kill()


def _ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line and process.stderr is not None:
        pytest.fail(process.stderr.read())
    found = orjson.loads(line)
    assert isinstance(found, dict)
    return found


def _processes() -> dict[int, int]:
    """Process id → parent's, of every process that is not a zombie."""
    argv = ["ps", "-A", "-o", "pid=,ppid=,stat="]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in said.splitlines())
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def _family(root: int) -> set[int]:
    """Ids of the processes below `root`."""
    parents = _processes()
    found: set[int] = set()
    while more := {one for one, parent in parents.items() if parent in found | {root}} - found:
        found |= more
    return found


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_after_its_clean_up(signum: int) -> None:
    code = """
import asyncio
from commands.process import run_until_signalled
async def work():
    try:
        print("up", flush=True)
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(0.3)
        print("clean", flush=True)
run_until_signalled(work)
"""
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signum)
        process.send_signal(signum)  # an impatient one changes nothing
        assert process.communicate(timeout=30)[0] == "clean\n"
        assert process.returncode == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_up_answers_and_leaves_nothing(up: subprocess.Popen[str], signum: int) -> None:
    ready = _ready(up)
    assert ready["ready"] is True
    assert ready["redis"].startswith("redis://127.0.0.1:")
    with urllib.request.urlopen(f"{ready['http']}/health/ready", timeout=5) as answer:  # noqa: S310
        assert answer.status == 200
    family = _family(up.pid)
    # Kafka, Redis, the watchdog, two workers and the server.
    assert len(family) >= 6
    up.send_signal(signum)
    out, err = up.communicate(timeout=40)
    assert up.returncode == (-signal.SIGKILL if signum == signal.SIGKILL else 0), err
    assert out == ""
    wait_until(lambda: not family & set(_processes()), 20, "every process gone")


@pytest.mark.parametrize("up", [["--cluster"]], indirect=True)
def test_up_with_clusters_answers_and_leaves_nothing(up: subprocess.Popen[str]) -> None:
    ready = _ready(up)
    assert ready["kafka"].count(",") == 2
    assert ready["redis"].startswith("redis+cluster://127.0.0.1:")
    assert ready["redis"].count(",") == 5
    family = _family(up.pid)
    # Brokers, Redis nodes, the watchdog, two workers and the server.
    assert len(family) >= 13
    up.send_signal(signal.SIGTERM)
    _, err = up.communicate(timeout=60)
    assert up.returncode == 0, err
    wait_until(lambda: not family & set(_processes()), 20, "every process gone")


async def test_a_stack_starts_a_killed_worker_again(
    stack_factory: StackFactory, services: Services
) -> None:
    async with stack_factory(workers=2) as stack:
        assert stack.kafka_bootstrap == services.kafka_bootstrap
        assert stack.settings.http.port > 0
        first = stack.workers[0].pid
        other = stack.workers[1].pid
        stack.workers[0].kill()
        again = stack.workers[0]
        await asyncio.to_thread(wait_until, lambda: again.restarts == 1 and again.running)
        assert stack.workers[0].pid != first
        assert stack.workers[1].pid == other
    assert not any(worker.running for worker in stack.workers)
    assert services.kafka is not None
    assert services.kafka.running
