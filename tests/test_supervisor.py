"""Children are kept running, stopped to the last process, and never outlive their parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis

from config import guard
from config.errors import ServiceError
from config.supervisor import ENDS_ALLOWED, Child, Supervisor
from tests.conftest import wait_until

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
# Forks a child of its own, and neither of the two minds a TERM. They write to the same file one
# after the other: not every file system keeps both of two appends of the same moment.
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
written, wrote = os.pipe()
if os.fork():
    os.read(written, 1)
print('up', flush=True)
os.write(wrote, b'.')
time.sleep(600)
"""


def _gone(group: int) -> bool:
    return not guard.alive(group)


def _up(child: Child, times: int = 1) -> Callable[[], bool]:
    return lambda: child.log.exists() and child.log.read_text().count("up\n") >= times


async def _until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    await asyncio.to_thread(wait_until, condition, seconds)


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    made = Supervisor(tmp_path / "logs")
    yield made
    await made.stop(seconds=0)


def _start(supervisor: Supervisor, code: str, name: str = "child") -> Child:
    return supervisor.start(name, [sys.executable, "-c", code], os.environ)


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    ended: list[int] = []
    supervisor = Supervisor(tmp_path, ended.append)
    child = _start(supervisor, SLEEPER)
    first = child.pid
    await _until(_up(child))
    child.kill()
    await _until(_up(child, 2))
    assert ended == [first]
    assert child.pid != first
    assert child.restarts == 1
    second = child.pid
    await child.restart()
    await _until(_up(child, 3))
    await supervisor.stop()
    assert len(ended) == 3
    await _until(lambda: all(map(_gone, (first, second, ended[2]))))


async def test_what_a_killed_child_leaves_is_ended(supervisor: Supervisor) -> None:
    child = _start(supervisor, STUBBORN)
    group = child.pid
    await _until(_up(child, 2))
    os.kill(group, signal.SIGKILL)  # the one process, not the group
    await _until(_up(child, 4))
    await _until(lambda: _gone(group))


async def test_a_child_that_keeps_failing_is_given_up(supervisor: Supervisor) -> None:
    child = _start(supervisor, "raise SystemExit('the reason')", "faulty")
    with pytest.raises(ServiceError, match=r"(?s)faulty ended 5 times .*code 1.*the reason"):
        await asyncio.wait_for(supervisor.failed(), 30)
    assert child.restarts == ENDS_ALLOWED - 1
    assert not child.running
    with pytest.raises(ServiceError, match="faulty does not run"):
        child.kill()


@pytest.mark.parametrize("code", [STUBBORN, SLEEPER], ids=["stubborn", "sleeper"])
async def test_stop_leaves_nothing(supervisor: Supervisor, code: str) -> None:
    child = _start(supervisor, code)
    group = child.pid
    await _until(_up(child))
    await supervisor.stop(seconds=0.5)
    assert not child.running
    await _until(lambda: _gone(group))


async def test_a_frozen_child_stops_in_good_order(supervisor: Supervisor) -> None:
    code = f"import signal; signal.signal(15, lambda *_: exit(print('bye')))\n{SLEEPER}"
    child = _start(supervisor, code)
    await _until(_up(child))
    child.send(signal.SIGSTOP)
    await supervisor.stop()
    assert child.log.read_text().endswith("bye\n")


async def test_a_child_is_out_of_reach_of_the_terminal(supervisor: Supervisor) -> None:
    child = _start(supervisor, SLEEPER)
    await _until(_up(child))
    assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid != os.getsid(0)


# A parent that is killed. It prints the groups it started and then waits.
PARENT = """
import asyncio, os, pathlib, sys
from config.redis_server import RedisServer
from config.supervisor import Supervisor

async def main(home):
    server = RedisServer(home / "redis")
    server.start()
    supervisor = Supervisor(home / "logs")
    code = '''
import pathlib, signal, socket, sys, time
def stop(*_):
    socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
    pathlib.Path(sys.argv[2]).write_text("redis was still there")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
time.sleep(600)
'''
    note = str(home / "note")
    argv = [sys.executable, "-c", code, str(server.ports["redis"]), note]
    child = supervisor.start("polite", argv, os.environ)
    other = supervisor.start("other", [sys.executable, "-c", sys.argv[2]], os.environ)
    print(server.ports["redis"], server.pid, child.pid, other.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("signum", "other", "ups"),
    [(signal.SIGKILL, STUBBORN, 2), (signal.SIGTERM, SLEEPER, 1)],
    ids=["KILL", "TERM"],
)
def test_children_do_not_outlive_their_parent(
    tmp_path: Path, signum: int, other: str, ups: int
) -> None:
    argv = [sys.executable, "-c", PARENT, str(tmp_path), other]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout
            port, *groups = map(int, parent.stdout.readline().split())
            logs = [tmp_path / "logs" / f"{name}.log" for name in ("polite", "other")]
            wait_until(
                lambda: [log.read_text().count("up\n") for log in logs] == [1, ups],
                what=lambda: f"all up, logs {[log.read_text() for log in logs]}",
            )
            with redis.Redis(port=port) as client:
                assert client.ping()
        finally:
            parent.send_signal(signum)
            parent.wait()
    wait_until(lambda: all(map(_gone, groups)), 30, "all process groups gone")
    # Work is stopped before the services it needs.
    assert (tmp_path / "note").read_text() == "redis was still there"


def test_a_lost_watchdog_is_replaced(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, signal, sys, time
from config import guard
def start():
    argv = [sys.executable, "-c", {SLEEPER!r}]
    return guard.spawn(argv, rank=guard.WORK, log=pathlib.Path(sys.argv[1]))
first = start()
while "up" not in pathlib.Path(sys.argv[1]).read_text():
    time.sleep(0.01)
watchdog = guard._guard._watchdog
watchdog.kill(); watchdog.wait()
second = start()
assert first.poll() is None
print(first.pid, second.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    argv = [sys.executable, "-c", code, str(tmp_path / "log")]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    groups = [int(word) for word in said.stdout.split()]
    assert len(groups) == 2, said.stderr
    wait_until(lambda: all(map(_gone, groups)), 30, "both children gone")
