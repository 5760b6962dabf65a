"""`headwater tune`: finds what clearly matters, keeps what does not, and never reads the test."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from commands.__main__ import run
from commands.feed import progress_bar
from commands.protocol import Question, Split
from commands.tuning import LADDERS, Measure, Search, Trial, held_out
from config.settings import RankSettings, load_settings
from tests.test_evaluate import evaluated, write_split

Sessions = list[list[Any]]


def far_sighted(sessions: int = 1200) -> Sessions:
    """The first of five items, each of a frequent few, decides about the last; the three between,
    each of a rare many, tell nothing. By default the rare and near ones have the say.
    """
    random = np.random.default_rng(3)
    first = random.integers(0, 6, sessions).tolist()
    between = random.integers(0, 300, (sessions, 3)).tolist()
    return [
        [f"first {topic}", *(f"between {i}" for i in some), f"last {topic}"]
        for topic, some in zip(first, between, strict=True)
    ]


def write_train(folder: Path, sessions: Sessions) -> Path:
    """A split whose questions cannot be read."""
    write_split(folder, sessions, [])
    (folder / "test.jsonl.gz").write_bytes(b"not to be read")
    return folder


def tuned(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["tune", *map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = orjson.loads(capsys.readouterr().out)
    return found


def test_what_matters_is_found_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = write_train(tmp_path / "far", far_sighted()), tmp_path / "tuned.toml"
    found = tuned(capsys, folder, "--output", file)
    default = found["default"]
    assert found["mrr_at_20"] > default["mrr_at_20"] + 5
    assert found["hr_at_20"] >= default["hr_at_20"]
    assert found["file"] == str(file)
    assert found["trials"] > len(LADDERS)
    rules = RankSettings()
    chosen = found["settings"]
    assert (
        chosen.get("rank.idf_power", rules.idf_power) < rules.idf_power
        or chosen.get("rank.distance_decay", rules.distance_decay) > rules.distance_decay
    )
    monkeypatch.setenv("HEADWATER_CONFIG", str(file))
    loaded = load_settings()
    for name, value in chosen.items():
        group, field = name.split(".")
        assert getattr(getattr(loaded, group), field) == value
    monkeypatch.delenv("HEADWATER_CONFIG")
    monkeypatch.chdir(tmp_path)
    plain = load_settings()
    changed = {
        f"{group}.{field}"
        for group in type(plain).model_fields
        if group != "scenarios"
        for field, value in getattr(loaded, group).model_dump().items()
        if value != getattr(plain, group).model_dump()[field]
    }
    assert changed == set(chosen)


def test_what_is_measured_is_what_evaluate_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = far_sighted(600)
    folder = write_train(tmp_path / "far", sessions)
    found = tuned(capsys, folder, "--output", tmp_path / "a.toml", "--trials", "1")
    assert (found["trials"], found["settings"]) == (1, {})
    assert (found["hr_at_20"], found["mrr_at_20"]) == tuple(found["default"].values())
    cut = int(0.93 * len(sessions))
    asked = [(one[:n], one[n]) for one in sessions[cut:] for n in range(1, len(one))]
    assert found["questions"] == len(asked)
    monkeypatch.setenv("HEADWATER_LEARN__SHARE", "0")
    told = evaluated(capsys, str(write_split(tmp_path / "split", sessions[:cut], asked)))
    for name in ("hr_at_20", "mrr_at_20"):
        assert found[name] == pytest.approx(told[name], abs=0.02), name


def test_trials_bound_the_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_train(tmp_path / "far", far_sighted(300))
    found = tuned(capsys, folder, "--output", tmp_path / "a.toml", "--trials", "4")
    assert found["trials"] == 4


def test_counts_follow_the_constants_of_folding(tmp_path: Path) -> None:
    """Reused counts answer as counts made anew do."""
    split = Split(write_train(tmp_path / "far", far_sighted(400)))
    questions = held_out(split)
    default = {name: 0.5 for name in LADDERS}
    other = {**default, "fold.gap_slope": 6.0}

    async def measured() -> list[list[int]]:
        one, fresh = (Measure(split, questions, load_settings()) for _ in range(2))
        asked = [default, other, default, {**other, "rank.backward": 0.0}]
        ranks = [(await one.trial(constants, default)).rank.tolist() for constants in asked]
        return [*ranks, (await fresh.trial(asked[-1], asked[-1])).rank.tolist()]

    first, changed, again, last, anew = asyncio.run(measured())
    assert first == again != changed
    assert last == anew != changed


def test_a_gain_is_more_than_noise() -> None:
    def trial(*changes: tuple[slice, int]) -> Trial:
        rank = np.tile([0, 1, 2, 25], 250)
        for where, value in changes:
            rank[where] = value
        return Trial({}, rank)

    plain = trial()
    assert plain.as_json() == {"hr_at_20": 50, "mrr_at_20": 37.5}
    assert not plain.beats(plain)
    assert trial((slice(0, 40, 4), 1)).beats(plain)  # ten more hits
    assert not trial((slice(0, 4, 4), 1)).beats(plain)  # one more: may be chance
    # As many lost as won, and ranks that improve past the twentieth.
    assert not trial((slice(0, 40, 4), 2), (slice(1, 41, 4), 0)).beats(plain)
    assert not trial((slice(3, 1000, 4), 21)).beats(plain)
    # Certain, but next to nothing: from rank 1 to rank 2 in one question of a thousand, or none.
    assert not plain.beats(trial((slice(1, 2), 2)))


def test_the_search_keeps_defaults_that_nothing_beats() -> None:
    """Of six constants one matters, up to a top between the ends of its ladder."""

    class Known(Measure):
        def __init__(self) -> None:
            self.seen: list[dict[str, float]] = []

        async def trial(self, constants: Any, keep: Any) -> Trial:
            self.seen.append(dict(constants))
            off = abs(constants["rank.idf_power"] - 1)
            return Trial(dict(constants), np.full(100, 1 + int(2 * off)))

    known = Known()
    with progress_bar() as bar:
        search = Search(known, 100, bar)
        asyncio.run(search.run())
    assert search.changed() == {"rank.idf_power": 1}
    assert search.trials == len(known.seen) < 30
    assert len({tuple(one.values()) for one in known.seen}) == search.trials


def test_held_out_is_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [[f"{number}.{step}" for step in range(3)] for number in range(100)]
    folder = write_train(tmp_path / "few", sessions)
    split = Split(folder)
    assert held_out(split) == [
        Question(one[:place], one[place]) for one in sessions[93:] for place in (1, 2)
    ]
    assert split.sessions == sessions[:93]
    monkeypatch.setattr("commands.tuning._EVENTS", 31)
    monkeypatch.setattr("commands.tuning._QUESTIONS", 5)
    split = Split(folder)
    assert len(held_out(split)) == 5
    assert split.sessions == sessions[83:93]


def test_a_signal_ends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = write_train(tmp_path / "far", far_sighted(300)), tmp_path / "a.toml"
    answer = Measure.trial
    asked: list[object] = []

    async def signalled(self: Measure, constants: Any, keep: Any) -> Trial:
        asked.append(constants)
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return await answer(self, constants, keep)

    monkeypatch.setattr(Measure, "trial", signalled)
    assert run(["tune", str(folder), "--output", str(file)]) == 130
    assert not file.exists()
    assert not capsys.readouterr().out
    assert 3 <= len(asked) < 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["NOWHERE"], "is no folder"),
        (["EMPTY"], "train.jsonl.gz"),
        (["FEW", "--trials", "0"], "trials"),
        (["FEW", "--output", "THERE"], "name another file with --output"),
        (["FEW", "--output", "NOWHERE/a.toml"], "name another file with --output"),
        (["FEW", "--limit", "3"], "--limit"),
    ],
)
def test_bad_arguments(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "EMPTY").mkdir()
    write_train(tmp_path / "FEW", [["a", "b"]] * 30)
    there = tmp_path / "THERE"
    there.write_text("[rank]\nbackward = 0.1\n")
    names = ("NOWHERE", "EMPTY", "FEW", "THERE")
    given = [str(tmp_path / a) if a.startswith(names) else a for a in arguments]
    assert run(["tune", *given]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("headwater: ")
    assert said in captured.err
    assert not captured.out
    assert there.read_text() == "[rank]\nbackward = 0.1\n"


@pytest.mark.parametrize("sessions", [[["a", "b"]], [["a", "b"]] * 20 + [["a"]] * 3])
def test_too_little_to_learn_from(
    sessions: Sessions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = write_train(tmp_path / "few", sessions), tmp_path / "a.toml"
    assert run(["tune", str(folder), "--output", str(file)]) == 1
    assert "more sessions" in capsys.readouterr().err
    assert not file.exists()
