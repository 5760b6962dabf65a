"""The file of experiments, and who gets which variant."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import SettingsError
from config.experiments import read_experiments
from config.settings import ScenarioSettings, Settings, load_settings
from serving.experiments import Experiments, assign
from serving.scenarios import PLAIN, Scenario, Scenarios

ALL = 1 << 64
TWO = "[x.variants.a]\n[x.variants.b]\n"


def made(path: Path, text: str) -> Experiments:
    path.write_text(text)
    settings = load_settings(experiments={"file": str(path)})
    scenarios = Scenarios(settings)
    return Experiments(settings, lambda: scenarios.known)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x", "experiments.file"),
        ("[x]\n", "x.variants"),
        ("[x.variants.a]\n", "x.variants"),
        ("[X.variants.a]\n[X.variants.b]\n", "experiment: the name 'X'"),
        ("[x.variants.a]\n[x.variants.'b/c']\n", "x: variant: the name 'b/c'"),
        (f"[x]\nshare = 2\n{TWO}", "x.share"),
        (f"[x]\nshares = 1\n{TWO}", "x.shares"),
        (f"[x]\nscenarios = ['hoem']\n{TWO}", "unknown scenario 'hoem'; known: home"),
        (f"{TWO}weight = 0\n", "x.variants.b.weight"),
        (f"{TWO}settings = {{fold = {{gap_slope = 1}}}}\n", "'fold' is no group"),
        (f"{TWO}settings = {{rank = {{idf = 1}}}}\n", "x.variants.b.settings: setting rank.idf"),
        (f"{TWO}settings = {{rank = {{idf_power = 99}}}}\n", "rank.idf_power"),
        (f"{TWO}scenario = 'hoem'\n", "x.variants.b.scenario: unknown scenario 'hoem'"),
        (f"{TWO}scenario = {{diversity = 2}}\n", "x.variants.b.scenario"),
        (f"{TWO}scenario = {{filter = {{price = {{lt = 'x'}}}}}}\n", "x.variants.b.scenario"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="experiments") as error:
        made(tmp_path / "experiments.toml", text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.toml"):
        read_experiments(tmp_path / "nothing.toml", Settings())


def test_users_are_drawn_as_the_weights_say(tmp_path: Path) -> None:
    found = made(tmp_path / "e.toml", f"[x]\nshare = 0.5\n{TWO}weight = 3\n")
    drawn = Counter(
        None if (one := found.of(f"user-{n}", None)) is None else one.variant for n in range(20_000)
    )
    for variant, share in ((None, 0.5), ("a", 0.125), ("b", 0.375)):
        assert drawn[variant] / 20_000 == pytest.approx(share, abs=0.015)  # four deviations
    assert found.of(None, None) is None


def test_experiments_are_drawn_apart_and_a_request_is_in_one(tmp_path: Path) -> None:
    text = "".join(
        f"[{name}]\nshare = 0.5\n[{name}.variants.a]\n[{name}.variants.b]\n" for name in ("x", "y")
    )
    found = made(tmp_path / "e.toml", text)
    drawn = Counter(
        None if (one := found.of(f"user-{n}", None)) is None else (one.experiment, one.variant)
        for n in range(20_000)
    )
    for what, share in ((("x", "a"), 0.25), (("y", "b"), 0.125), (None, 0.25)):
        assert drawn[what] / 20_000 == pytest.approx(share, abs=0.015)


@given(st.text(min_size=1, max_size=128), st.integers(0, ALL), st.integers(0, ALL))
def test_a_larger_share_moves_nobody(user: str, one: int, other: int) -> None:
    fewer, more = sorted((one, other))
    ends = (ALL // 3, ALL // 2, ALL)
    before = assign("x", user, fewer, ends)
    after = assign("x", user, more, ends)
    assert before in (None, after)
    assert assign("x", user, ALL, ends) is not None
    assert assign("x", user, 0, ends) is None


def test_another_process_says_the_same() -> None:
    code = (
        "from serving.experiments import assign; "
        "print([assign('x', f'user-{n}', 1 << 63, (1 << 62, 1 << 64)) for n in range(50)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    here = [assign("x", f"user-{n}", 1 << 63, (1 << 62, 1 << 64)) for n in range(50)]
    assert said == {f"{here}\n"}
    # What was drawn once must never be drawn in another way.
    assert here[:12] == HERE


HERE: list[int | None] = [1, 1, None, None, None, None, 1, 0, 0, 1, 0, None]


def test_a_variant_goes_over_the_scenario(tmp_path: Path) -> None:
    found = made(
        tmp_path / "e.toml",
        "[x.variants.a]\n[x.variants.b]\nscenario = {diversity = 0.5, filter = {kind = 'tea'}}\n"
        "[y]\nscenarios = ['cart']\n[y.variants.a]\nscenario = 'news'\n"
        "[y.variants.b]\nscenario = 'news'\n",
    )
    named = Scenario(ScenarioSettings(exclude_seen=True, diversity=0.1, window="7d"))
    variants = {one.variant: one for n in range(50) if (one := found.of(f"u{n}", None))}
    assert variants["a"].over(named, {}) == named
    assert not variants["a"].changes_scenario
    over = variants["b"].over(named, {})
    assert over.settings == named.settings.model_copy(
        update={"diversity": 0.5, "filter": {"kind": "tea"}}
    )
    assert over.filter is not None
    assert variants["b"].over(PLAIN, {}).settings.diversity == 0.5


def test_an_experiment_of_one_scenario(tmp_path: Path) -> None:
    found = made(
        tmp_path / "e.toml",
        "[y]\nscenarios = ['cart']\n[y.variants.a]\nscenario = 'news'\n"
        "[y.variants.b]\nscenario = 'news'\n[x]\nrunning = false\n" + TWO,
    )
    assert found.of("u", None) is found.of("u", "home") is None
    one = found.of("u", "cart")
    assert one is not None
    news = Scenario(ScenarioSettings(window="1h"))
    assert one.over(PLAIN, {"news": news}) is news
    assert one.over(PLAIN, {}) is PLAIN  # it is gone since
    assert set(found.known) == {"y", "x"}
