"""What measures has to be right itself: the shop, latencies, rates, processor times, loads."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from benchmarks.counted import Sample, steady
from benchmarks.helper import Helper
from benchmarks.http_load import by_second, closed_loop, due_at, get_request, open_loop
from benchmarks.latency import histogram, latency_report
from benchmarks.processor import CAN_PIN, ProcessTimes, cores, cpu_seconds, microseconds_each, pin
from benchmarks.report import machine, spread, spreads
from benchmarks.tables import TABLES, fill_in
from benchmarks.workload import make_workload, records
from commands.__main__ import run
from config.errors import ServiceError, StoreError

needs_proc = pytest.mark.skipif(not CAN_PIN, reason="only Linux tells")


# -- the shop -------------------------------------------------------------------------------------


def test_items_follow_zipf_and_sessions_stay_in_a_group() -> None:
    load = make_workload(50_000, 5000, 20_000, 3)
    counts = np.sort(np.bincount(load.item, minlength=5000))[::-1]
    assert counts[:50].sum() > 0.3 * counts.sum()
    assert len(load.user) == len(load.item) == len(load.time) == 50_000
    assert load.item.min() >= 0
    assert load.item.max() < 5000
    order = np.argsort(load.user, kind="stable")
    user, group = load.user[order], load.item[order] // 50
    same_user = user[1:] == user[:-1]
    assert (group[1:] == group[:-1])[same_user].mean() > 0.5
    assert (np.diff(load.time) >= 0).all()
    assert abs(load.time[-1] - time.time() * 1000) < 60_000


def test_sessions_overlap_and_last_five_and_a_half_events() -> None:
    load = make_workload(60_000, 100, 1_000_000, 4)
    of_user = np.unique(load.user, return_counts=True)[1]
    assert 5 < of_user.mean() < 6
    assert len(np.unique(load.user[:1000])) > 300


def test_every_user_has_equally_many_events_when_asked_for() -> None:
    load = make_workload(20 * 300, 50, 300, 5, session_length=5)
    assert np.unique(load.user, return_counts=True)[1].tolist() == [20] * 300


def test_a_smaller_skew_spreads_items() -> None:
    flat, steep = (make_workload(20_000, 1000, 5000, 6, skew=skew) for skew in (0.1, 1.2))
    assert np.bincount(flat.item).max() < np.bincount(steep.item).max()


def test_records_are_events_with_ids_of_their_own() -> None:
    load = make_workload(100, 10, 10, 7)
    made = list(records(load, first_id=255))
    assert made[0][0] == f"user-{load.user[0]}".encode()
    assert f'"item_id":"item-{load.item[0]}"'.encode() in made[0][1]
    assert b'"event_id":"ff"' in made[0][1]
    assert len({value for _, value in made}) == 100


# -- figures --------------------------------------------------------------------------------------


def test_latencies_keep_three_digits() -> None:
    rng = np.random.default_rng(8)
    seconds = rng.lognormal(-6, 1, 20_000).tolist()
    found = latency_report(seconds)
    for name, percent in (("p50_ms", 50), ("p99_ms", 99), ("p999_ms", 99.9)):
        exact = float(np.percentile(seconds, percent)) * 1000
        assert found[name] == pytest.approx(exact, rel=0.01)
    assert found["max_ms"] == pytest.approx(max(seconds) * 1000, rel=0.002)
    assert histogram(seconds).get_total_count() == len(seconds)


def test_latencies_out_of_range_are_kept() -> None:
    assert histogram([0.0, 1e9]).get_total_count() == 2


def test_rounds_are_told_as_least_middle_and_greatest() -> None:
    assert spread([3.0, 1.0, 8.0]) == {"min": 1, "median": 3, "max": 8}
    both = spreads([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}])
    assert both == {
        "a": {"min": 1, "median": 2, "max": 3},
        "b": {"min": 2, "median": 3, "max": 4},
    }
    assert machine()["cores"]


def test_a_rate_leaves_out_the_warm_up_and_the_commit_it_starts_with() -> None:
    samples = [
        Sample(1.0, 10, {"redis": 0.5}),
        Sample(2.0, 110, {"redis": 1.0}),
        Sample(4.0, 510, {"redis": 1.8}),
    ]
    found = steady(samples, after=100)
    assert found.events == 400
    assert found.rate == 200
    assert found.cpu == {"redis": 2000}
    with pytest.raises(StoreError, match="more events"):
        steady(samples, after=200)


def test_tables_go_between_their_marks_and_nowhere_else() -> None:
    document = (
        "before\n<!-- figures: memory -->\nold\n<!-- end -->\nbetween\n"
        "<!-- figures: growth -->\nkept\n<!-- end -->\nafter\n"
    )
    result = {
        "bytes_per_user": 480,
        "bytes_per_item": 2400,
        "neighbours_per_item": 110.5,
        "memory_usage_per_user": 450,
        "memory_usage_per_full_item": 2300,
    }
    filled = fill_in(document, {"memory": result})
    assert "old" not in filled
    assert "| a user with 20 events | 480 | 450 |" in filled
    assert filled.startswith("before\n<!-- figures: memory -->\n\n|")
    assert filled.endswith("between\n<!-- figures: growth -->\nkept\n<!-- end -->\nafter\n")
    assert fill_in(filled, {"memory": result}) == filled


def test_the_document_has_a_place_for_every_table() -> None:
    document = Path(__file__).parent.parent / "docs" / "performance.md"
    marks = re.findall("<!-- figures: (.*) -->\n", document.read_text(encoding="utf-8"))
    assert sorted(marks) == sorted(TABLES)


# -- processes ------------------------------------------------------------------------------------


@needs_proc
def test_processor_time_of_a_process_and_its_children() -> None:
    busy = "import time\nwhile time.process_time() < {}: pass\n"
    parent = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {busy.format(0.3)!r}])\n"
        f"{busy.format(0.2)}print('done', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        assert 0.45 < cpu_seconds(child.pid) < 3
        times = ProcessTimes({"it": [child.pid], "twice": [child.pid, child.pid]})()
        assert times["twice"] == pytest.approx(2 * times["it"])
        child.stdin.close()
    assert cpu_seconds(child.pid) == 0
    assert microseconds_each({"a": 1.0}, {"a": 1.5}, 1000) == {"a": 500}


@needs_proc
def test_pinning_moves_every_thread() -> None:
    shared_out = cores()
    if shared_out is None:
        pytest.skip("one core")
    code = (
        "import os, sys, threading\n"
        "stop = threading.Event()\n"
        "threading.Thread(target=stop.wait, daemon=True).start()\n"
        "print('up', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        pin(child.pid, shared_out.subject)
        threads = list(Path(f"/proc/{child.pid}/task").iterdir())
        assert len(threads) == 2
        for thread in threads:
            assert os.sched_getaffinity(int(thread.name)) == shared_out.subject
        child.stdin.close()
    assert shared_out.subject | shared_out.others == os.sched_getaffinity(0)


async def test_a_helper_that_ends_is_said_to_have_ended() -> None:
    with pytest.raises(ServiceError, match="ended"):
        async with Helper("benchmarks.http_load", {"no": "host"}):
            pass


# -- loads on a real server -----------------------------------------------------------------------


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@contextmanager
def _server(handle: Handler) -> Iterator[int]:
    """A server in a thread of its own; its port."""
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    started, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert started.wait(10)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _paths(request: web.BaseRequest) -> web.StreamResponse:
    """Says the path, long enough to come in pieces; 404 for /missing."""
    return web.Response(
        text=request.path * 50_000, status=404 if request.path == "/missing" else 200
    )


def test_a_closed_loop_hears_every_answer_and_tells_bad_ones() -> None:
    requests = [get_request("/good"), get_request("/missing")]
    with _server(_paths) as port:
        load = closed_loop("127.0.0.1", port, requests, 4, 0.3)
    assert load.answers >= 4
    assert load.errors in (load.answers // 2, (load.answers + 1) // 2)
    assert len(load.latencies) == load.answers - load.errors
    assert load.rate == load.answers / load.seconds
    assert load.seconds >= 0.3
    assert max(load.latencies) <= load.seconds


def test_an_open_loop_counts_from_when_a_request_was_due_while_the_server_stalls() -> None:
    seen = 0

    async def stalls(_request: web.BaseRequest) -> web.StreamResponse:
        nonlocal seen
        seen += 1
        if seen == 50:
            time.sleep(0.5)  # noqa: ASYNC251 - nothing else is to be answered meanwhile
        return web.Response(text="late")

    with _server(stalls) as port:
        load = open_loop("127.0.0.1", port, [get_request("/")], 4, due_at([(500, 1)]))
    # 4 connections: who counts from sending would find 4 late ones.
    assert sum(one > 0.1 for one in load.latencies) >= 190
    assert max(load.latencies) >= 0.5
    assert len(load.latencies) == seen == 500
    assert load.errors == 0


def test_stages_follow_each_other_and_each_second_is_told() -> None:
    due = due_at([(10, 1), (100, 0.5), (10, 1.5)])
    assert len(due) == 10 + 50 + 15
    assert due[10:12] == pytest.approx([1, 1.01])
    assert due[60] == pytest.approx(1.5)

    async def odd(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/missing":
            return web.Response(status=503)
        return web.Response(text='{"items":[],"degraded":true}')

    requests = [get_request("/good"), get_request("/missing")]
    with _server(odd) as port:
        load = open_loop("127.0.0.1", port, requests, 8, due)
    told = by_second(load)
    assert told["answered"] == [5, 28, 5]
    assert told["failed"] == [5, 27, 5]
    assert told["degraded"] == told["answered"]
    assert all(0 < low <= high for low, high in zip(told["p50_ms"], told["p99_ms"], strict=True))


def test_a_lost_connection_ends_a_load() -> None:
    async def leaves(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    with _server(leaves) as port, pytest.raises(ServiceError, match="closed"):
        closed_loop("127.0.0.1", port, [get_request("/")], 1, 1)


async def test_a_load_in_a_process_of_its_own() -> None:
    with _server(_paths) as port:
        setup = {"host": "127.0.0.1", "port": port, "paths": ["/a", "/b"]}
        async with Helper("benchmarks.http_load", setup) as load:
            closed = await load.ask({"connections": 2, "seconds": 0.2})
            opened = await load.ask({"connections": 2, "seconds": 0.2, "rate": 100})
    assert closed["requests"] >= 2
    assert opened["requests"] == 20
    assert closed["errors"] == opened["errors"] == 0
    assert 0 < opened["p50_ms"] <= opened["p99_ms"] <= opened["max_ms"]


# -- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "no command 'bench nothing': there are ingest"),
        (["ingest", "--rounds", "0"], "Must be >= 1"),
        (["serve", "--seconds", "-1"], "Must be > 0"),
    ],
)
def test_what_cannot_be_measured_is_said(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", *arguments]) == 2
    assert said in capsys.readouterr().err
