"""`headwater evaluate`: known answers, the same answers by every way, and exactness in time."""

from __future__ import annotations

import csv
import gzip
import math
import secrets
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import redis

from commands.__main__ import run
from commands.csv_events import EventFile
from commands.progressive import Progressive, read_columns
from commands.protocol import Score, Split, rank_of
from config.settings import Settings, load_settings
from processors.fold import FoldRules, TotalDeltas, fold_batch, item_deltas
from processors.memory import MemoryCounts
from processors.repeats import CELLS
from processors.session import empty_table
from streams.columns import EventColumns, hash_id

DAY = 86_400.0


def write_split(
    folder: Path, sessions: list[list[Any]], questions: list[tuple[list[Any], Any]]
) -> Path:
    folder.mkdir()
    with gzip.open(folder / "train.jsonl.gz", "wb") as file:
        file.writelines(orjson.dumps({"s": session}) + b"\n" for session in sessions)
    with gzip.open(folder / "test.jsonl.gz", "wb") as file:
        file.writelines(orjson.dumps({"s": s, "y": y}) + b"\n" for s, y in questions)
    return folder


def write_events(path: Path, rows: list[tuple[int, str, str, str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("timestamp_ms", "user_id", "item_id", "type"), *rows])
    return path


def cycle(tmp_path: Path) -> Path:
    """Sessions of four steps around a ring of 60 items: the next step is never in doubt."""
    steps = [[(begin + step) % 60 for step in range(4)] for begin in range(60)]
    questions = [(session[:3], (session[2] + 1) % 60) for session in steps]
    return write_split(tmp_path / "cycle", steps * 3, questions)


def random_split(tmp_path: Path, sessions: int = 400) -> Path:
    seed = secrets.randbits(32)
    print("seed", seed)
    random = np.random.default_rng(seed)
    drawn = [random.zipf(1.3, random.integers(2, 12)) % 80 for _ in range(sessions)]
    asked = [(random.zipf(1.3, random.integers(1, 20)) % 80).tolist() for _ in range(300)]
    return write_split(
        tmp_path / "random",
        [session.tolist() for session in drawn],
        [(session, int(random.zipf(1.3)) % 80) for session in asked],
    )


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["evaluate", *arguments, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = orjson.loads(capsys.readouterr().out)
    return found


def test_a_ring_is_foretold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(capsys, str(cycle(tmp_path)))
    assert (found["hr_at_20"], found["mrr_at_20"], found["queries"]) == (100, 100, 60)
    assert found["via"] == "fold"
    assert found["train_seconds"] > 0
    assert found["microseconds_per_query"] > 0
    assert evaluated(capsys, str(tmp_path / "cycle"), "--limit", "7")["queries"] == 7


def test_what_was_never_seen_is_never_hit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_split(tmp_path / "new", [["a", "b"]] * 9, [(["a"], "c"), (["x"], "b")])
    found = evaluated(capsys, str(folder))
    assert (found["hr_at_20"], found["mrr_at_20"], found["queries"]) == (0, 0, 2)


def test_items_of_the_prefix_may_come_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_split(tmp_path / "again", [["a", "a", "a"]] * 9, [(["a"], "a")])
    assert evaluated(capsys, str(folder))["mrr_at_20"] == 100


def test_ties_count_against_the_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score = np.array([0.5, 0.3, 0.3, 0.3 * (1 + 1e-13), 0.1])
    ranks = [rank_of(np.arange(5) == place, score) for place in range(5)]
    assert ranks == [1, 4, 4, 4, 5]
    assert rank_of(np.zeros(5, np.bool_), score) == 0
    # After a, each of 25 items came as often: whichever is asked for, none is among the first 20.
    train = [["a", f"b{i}"] for i in range(25)]
    folder = write_split(tmp_path / "ties", train * 2, [(["a"], "b3"), (["a"], "b24")])
    flat = load_settings(fold={"half_life_days": 36_500})
    assert flat.fold.half_life_days == 36_500
    with pytest.MonkeyPatch.context() as patch:
        # All sessions of one age: spread over one e-fold, the newer ones would weigh more.
        patch.setattr(Split, "times", lambda self, _: np.full(len(self.sessions), 10**12, np.int64))
        assert evaluated(capsys, str(folder))["hr_at_20"] == 0


def test_newer_sessions_weigh_more(tmp_path: Path) -> None:
    folder = write_split(tmp_path / "aged", [["a", "b"], ["a", "c"]] * 2, [(["a"], "c")])
    times = Split(folder).times(30)
    assert (np.diff(times) > 0).all()
    span = 30 * DAY / math.log(2) * 1000
    assert times[-1] - times[0] == pytest.approx(0.75 * span, rel=1e-6)


def test_score() -> None:
    score = Score()
    for rank in (1, 0, 20, 21):
        score.add(rank)
    assert score.queries == 4
    assert score.hit_rate == 50
    assert score.reciprocal_rank == pytest.approx(100 * (1 + 1 / 20) / 4)


def test_redis_agrees_with_memory(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(random_split(tmp_path))
    # Lists past their bound are cut, which memory does not do: none may grow that long here.
    monkeypatch.setenv("HEADWATER_REDIS__URL", settings.redis.url or "")
    monkeypatch.setenv("HEADWATER_WORKER__MAX_POLL_RECORDS", "300")
    fold = evaluated(capsys, folder)
    assert 0 < fold["hr_at_20"] < 100
    store = evaluated(capsys, folder, "--via", "redis")
    for name in ("hr_at_20", "mrr_at_20", "queries"):
        assert store[name] == fold[name], name
    with redis.Redis.from_url(settings.redis.url or "") as client:
        assert not list(client.scan_iter(match=b"evaluate*", count=1000))


def test_a_redis_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(capsys, str(cycle(tmp_path)), "--via", "redis", "--limit", "20")
    assert (found["hr_at_20"], found["queries"], found["via"]) == (100, 20, "redis")


def test_over_http(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(capsys, str(cycle(tmp_path)), "--via", "http")
    assert (found["hr_at_20"], found["mrr_at_20"], found["queries"]) == (100, 100, 60)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/nowhere"], "does not exist"),
        (["EMPTY"], "train.jsonl.gz"),
        (["CSV", "--via", "redis"], "--via redis"),
        (["CSV", "--via", "http"], "--via http"),
        (["CSV", "--via", "guess"], "guess"),
        (["CSV", "--limit", "0"], "at least 1"),
        (["WRONG"], "has no column timestamp_ms, type"),
    ],
)
def test_bad_arguments(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"EMPTY": tmp_path / "empty", "CSV": tmp_path / "e.csv", "WRONG": tmp_path / "w.csv"}
    places["EMPTY"].mkdir()
    write_events(places["CSV"], [(1, "u", "a", "view")])
    places["WRONG"].write_text("user_id,item_id\nu,a\n")
    assert run(["evaluate", *(str(places.get(a, a)) for a in arguments)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith("headwater: ")
    assert not captured.out


@pytest.mark.parametrize("broken", [b'{"s": [1, 2]}\n{"s": 3}\n', b"no gzip at all", b""])
def test_a_broken_split(broken: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_split(tmp_path / "broken", [[1, 2]], [([1], 2)])
    content = broken if broken.startswith(b"no") else gzip.compress(broken)
    (folder / "train.jsonl.gz").write_bytes(content)
    assert run(["evaluate", str(folder)]) == 1
    assert "train.jsonl.gz" in capsys.readouterr().err


class Reference:
    """Progressive validation in plain Python, straight from the formulas."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rate = math.log(2) / (settings.fold.half_life_days * DAY)
        self.pause = settings.events.session_pause_minutes * 60_000
        self.open: dict[str, tuple[int, list[tuple[str, float]]]] = {}
        self.pairs: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
        self.with_item: dict[str, int] = defaultdict(int)
        self.sessions = 0
        self.cells: dict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0, 0])

    def chances(self, items: list[str]) -> dict[str, tuple[int, int, int]]:
        """Cell of each of the session's items, the latest distinct ones."""
        window = items[::-1][:30]
        found: dict[str, tuple[int, int, int]] = {}
        for step, item in enumerate(window, 1):
            if item not in found and len(found) < self.settings.rank.session_items:
                bits = min(5, math.ceil(math.log2(len(items))))
                found[item] = (step, min(3, window.count(item)), bits)
        return found

    def rank(self, items: list[str], answer: str, now: float) -> int:
        rank, chances = self.settings.rank, self.chances(items)
        scores: dict[str, float] = defaultdict(float)
        for item, (distance, _, _) in chances.items():
            if not self.with_item[item]:
                continue
            rarity = 1 + math.log(self.sessions / self.with_item[item])
            counts: dict[str, float] = defaultdict(float)
            for neighbour, weight, time in self.pairs[item]:
                counts[neighbour] += weight * math.exp(-self.rate * (now - time))
            for neighbour, count in counts.items():
                step = rank.distance_decay ** (distance - 1)
                scores[neighbour] += step * rarity**rank.idf_power * count**rank.count_power
        total = sum(scores.values())
        scores = defaultdict(float, {i: s / total for i, s in scores.items()})
        for item, cell in chances.items():
            opportunities, hits = self.cells[cell]
            scores[item] += (hits + 0.02) / (opportunities + 1)
        if answer not in scores:
            return 0
        return sum(score >= scores[answer] * (1 - 1e-9) for score in scores.values())

    def learn(self, time: int, user: str, item: str, weight: float, settings: Settings) -> None:
        last, session = self.open.get(user, (-(10**15), []))
        if time - last >= self.pause:
            session = []
            self.sessions += 1
        items = [i for i, _ in session]
        if weight > 0 and session:
            for i, cell in self.chances(items).items():
                self.cells[cell][0] += 1
                self.cells[cell][1] += i == item
        fold, position = settings.fold, len(session) + 1
        for gap, (other, its) in enumerate(reversed(session[-30:]), 1):
            h = position**-fold.length_exponent / (1 + fold.gap_slope * (gap - 1))
            if weight and its:
                self.pairs[other].append((item, h * weight, time / 1000))
                self.pairs[item].append((other, fold.backward * h * its, time / 1000))
        self.with_item[item] += item not in items and weight > 0
        self.open[user] = (time, [*session, (item, weight)])


def test_progressive_validation_is_exact(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print("seed", seed)
    random = np.random.default_rng(seed)
    settings = load_settings(fold={"half_life_days": 0.5})
    n = 700
    gaps = random.choice([1_000, 60_000, 400_000], n)
    rows = [
        (int(time), f"u{random.integers(9)}", f"i{random.zipf(1.4) % 40}", str(kind))
        for time, kind in zip(
            10**12 + np.cumsum(gaps), random.choice(["view", "cart"], n), strict=True
        )
    ]
    reference, expected = Reference(settings), Score()
    for number, (time, user, item, kind) in enumerate(rows):
        last, session = reference.open.get(user, (-(10**15), []))
        if number >= int(0.3 * n) and time - last < reference.pause:
            expected.add(reference.rank([i for i, _ in session], item, time / 1000))
        reference.learn(time, user, item, settings.events.weights[kind], settings)
    shuffled = [rows[i] for i in random.permutation(n)]
    file = EventFile(write_events(tmp_path / "events.csv", shuffled), settings.events)
    columns, problems = read_columns(file)
    assert not problems
    run_through = Progressive(settings, columns)
    for chunk in range(run_through.chunks()):
        run_through.step(chunk, lambda: 0.0)
    found = run_through.score
    assert found.queries == expected.queries > 100
    assert found.hit_rate == pytest.approx(expected.hit_rate)
    assert found.reciprocal_rank == pytest.approx(expected.reciprocal_rank, rel=1e-9)


def test_chunks_do_not_change_the_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    times = 10**12 + np.cumsum(random.integers(0, 90_000, 500))
    rows = [
        (int(time), f"u{random.integers(12)}", f"i{random.zipf(1.4) % 30}", "view")
        for time in times
    ]
    path = write_events(tmp_path / "events.csv", rows)
    settings = load_settings()
    scores = []
    for size in (5000, 1, 37):
        monkeypatch.setattr("commands.progressive._CHUNK", size)
        columns, _ = read_columns(EventFile(path, settings.events))
        one = Progressive(settings, columns)
        for chunk in range(one.chunks()):
            one.step(chunk, lambda: 0.0)
        scores.append((one.score.queries, one.score.hit_rate, one.score.reciprocal_rank))
    assert scores[0][0] > 100
    assert scores[1] == pytest.approx(scores[0])
    assert scores[2] == pytest.approx(scores[0])


def test_a_file_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        (10**12 + 1000 * i, f"u{i // 10}", f"i{i % 10}", "view" if i != 3 else "blink")
        for i in range(400)
    ]
    path = str(write_events(tmp_path / "events.csv", rows))
    found = evaluated(capsys, path)
    assert found["hr_at_20"] == 100
    # 399 rows are good; from the 120th on, all are asked but the first of each session.
    assert found["queries"] == 252
    assert evaluated(capsys, path, "--limit", "5")["queries"] == 5
    assert run(["evaluate", path]) == 0
    assert "line 5: type 'blink' is none of view" in capsys.readouterr().err


def test_weights_in_memory_decay_over_any_span() -> None:
    """Half lives of a minute over thirty days: exponents of 30,000 without the moving landmark."""
    settings = load_settings(fold={"half_life_days": 1 / 1440})
    rules = FoldRules(settings)
    counts = MemoryCounts(settings)
    none = TotalDeltas(0, 0, 0, np.zeros(CELLS, np.int64), np.zeros(CELLS, np.int64))
    a, b = hash_id("a"), hash_id("b")
    start = 1_700_000_000
    moments = [0, 30 * 86_400 - 90, 30 * 86_400]
    for number, moment in enumerate(moments):
        events = EventColumns(
            np.arange(2),
            np.full(2, 100 + number, np.uint64),
            np.array([a, b], np.uint64),
            np.full(2, (start + moment) * 1000, np.int64),
            np.zeros(2, np.uint8),
            np.zeros(2, np.uint64),
            np.zeros(2, np.uint32),
        )
        folded = fold_batch(empty_table(np.unique(events.user)), events, rules)
        counts.apply(item_deltas(folded, rules, lambda i, _: np.ones(len(i), np.bool_)), none)
    one = 2**-settings.fold.length_exponent
    found = counts.weights(a, start + moments[-1])
    assert found == {b: pytest.approx(one * (1 + 0.5**1.5), rel=1e-6)}
    assert counts.weights(b, start + moments[-1]) == {
        a: pytest.approx(settings.fold.backward * one * (1 + 0.5**1.5), rel=1e-6)
    }
    assert counts.weights(hash_id("c"), start) == {}
