"""Settings: where they come from, that each is documented, and what a wrong one says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import orjson
import pytest

from commands.__main__ import COMMANDS, run
from commands.process import redacted
from commands.settings_cmd import markdown
from commands.stack import child_environment
from config.errors import SettingsError
from config.settings import (
    DEFAULT_SCENARIOS,
    ScenarioSettings,
    Settings,
    describe,
    load_settings,
)
from processors.popularity import WINDOWS

DOCS = Path(__file__).parents[1] / "docs" / "settings.md"


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "headwater.toml"
    path.touch()
    monkeypatch.setenv("HEADWATER_CONFIG", str(path))
    return path


def test_every_setting_is_documented() -> None:
    rows = list(describe(load_settings()))
    names = [row["name"] for row in rows]
    fields = []
    for group, field in Settings.model_fields.items():
        if group == "scenarios":
            prefixes, kind = [f"scenarios.{name}" for name in DEFAULT_SCENARIOS], ScenarioSettings
        else:
            prefixes, kind = [group], field.annotation  # type: ignore[assignment]
        fields += [f"{prefix}.{name}" for prefix in prefixes for name in kind.model_fields]
    assert names == fields
    undocumented = [row["name"] for row in rows if len(row["meaning"]) < 10]
    assert not undocumented


def test_the_settings_page_is_up_to_date() -> None:
    assert DOCS.read_text() == markdown(), "run `make docs`"


def test_environment_over_file_over_default(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().http.port == 8080
    toml.write_text("[http]\nport = 1111\nhost = '0.0.0.0'\n")
    assert load_settings().http.port == 1111
    monkeypatch.setenv("HEADWATER_HTTP__PORT", "2222")
    found = load_settings()
    assert (found.http.port, found.http.host) == (2222, "0.0.0.0")  # noqa: S104
    assert load_settings(http={"port": 3333}).http.port == 3333


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HEADWATER_HTTP__PORT", "70000", "less than or equal to 65535; got '70000'"),
        ("HEADWATER_HTTP__PORT", "many", "valid integer"),
        ("HEADWATER_STORE__NAMESPACE", "UP", "should match pattern"),
        ("HEADWATER_EVENTS__WEIGHTS", "{", "cannot be read"),
        ("HEADWATER_HTTP__COLOUR", "red", "not permitted"),
        ("HEADWATER_CONFIG", "/no/such.toml", "which is not a file"),
        ("HEADWATER_SCENARIOS__NEWS__DIVERSITY", "1.5", "SCENARIOS__NEWS__DIVERSITY): .* equal to"),
        ("HEADWATER_SCENARIOS__NEWS__DIVERSITY", "very", "valid number"),
        ("HEADWATER_SCENARIOS__NEWS__WINDOW", "2h", "'1h', '24h' or '7d'; got '2h'"),
        ("HEADWATER_SCENARIOS__NEWS__WIDTH", "1", "scenarios.news.width .*not permitted"),
        ("HEADWATER_SCENARIOS__NEWS", "7", "scenarios.news .*valid dictionary"),
        ("HEADWATER_SCENARIOS__A B__DIVERSITY", "0", "the scenario name 'a b'"),
        ("HEADWATER_SCENARIOS", '{"_a": {}}', "the scenario name '_a'"),
        ("HEADWATER_SCENARIOS", "[]", "valid dictionary"),
        ("HEADWATER_SCENARIOS", "{", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=said.replace("(", r"\(").replace(")", r"\)")):
        load_settings()
    assert run(["settings"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


def test_a_scenario_keeps_what_is_not_set(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_settings().scenarios
    assert before == {
        "news": ScenarioSettings(exclude_seen=True, diversity=0.3, window="1h"),
        "grocery": ScenarioSettings(exclude_seen=False, diversity=0, window="7d"),
        "cart": ScenarioSettings(exclude_seen=True, diversity=0, window="7d"),
    }
    toml.write_text("[scenarios.news]\ndiversity = 0.4\nwindow = '7d'\n[scenarios.music]\n")
    monkeypatch.setenv("HEADWATER_SCENARIOS__NEWS__DIVERSITY", "0.5")
    monkeypatch.setenv("HEADWATER_SCENARIOS__FLASH-SALE__EXCLUDE_SEEN", "true")
    assert load_settings().scenarios == {
        **before,
        "news": ScenarioSettings(exclude_seen=True, diversity=0.5, window="7d"),
        "music": ScenarioSettings(exclude_seen=False, diversity=0, window="24h"),
        "flash-sale": ScenarioSettings(exclude_seen=True),
    }


def test_scenarios_know_the_windows_that_are_counted() -> None:
    annotation = ScenarioSettings.model_fields["window"].annotation
    assert get_args(annotation) == tuple(WINDOWS)


def test_a_wrong_file_is_named(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml.write_text("[http]\nport = 'x'\n")
    assert run(["settings"]) == 2
    assert "http.port (HEADWATER_HTTP__PORT)" in capsys.readouterr().err
    toml.write_text("[http\n")
    assert run(["settings"]) == 2
    assert "settings cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["settings", "extra"], "extra"),
        (["settings", "--jsn"], "--json"),
        (["nonsense"], "'nonsense'"),
        (["up", "--processes", "0"], "from 1 to 64"),
        (["up", "--workers", "65"], "from 1 to 64"),
        (["up", "--workers", "x"], "int"),
    ],
)
def test_a_wrong_argument_is_one_line_and_two(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


def test_settings_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    env = os.environ | {
        "HEADWATER_HTTP__PORT": "4444",
        "HEADWATER_REDIS__URL": "redis://me:hush@host/0",
    }
    argv = [sys.executable, "-m", "commands", "settings", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60, check=True)
    assert done.stdout.count("\n") == 1
    assert "hush" not in done.stdout
    rows = {row["name"]: row for row in orjson.loads(done.stdout)["settings"]}
    assert rows["http.port"]["value"] == 4444
    assert rows["http.port"]["default"] == 8080
    assert rows["redis.url"]["value"] == "redis://me:***@host/0"


def test_settings_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["settings"]) == 0
    out = capsys.readouterr().out
    assert all(row["name"] in out for row in describe(load_settings()))


def test_every_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f" {name} " in out for name in COMMANDS)


def test_passwords_are_not_shown() -> None:
    assert redacted("redis://host:1/0") == "redis://host:1/0"
    assert redacted("redis://:se%40cret@host:1/0") == "redis://:***@host:1/0"
    assert "secret" not in redacted("redis://host:1/0?password=secret")


def test_a_child_reads_the_very_same_settings(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text("[worker]\nprocesses = 7\n[kafka]\ngroup = 'file'\n")
    found = load_settings(
        kafka={"bootstrap": "a:1,b:2", "group": "12"},
        redis={"url": "redis://a:1/0"},
        events={"weights": {"view": 0.5, "größe": 2}},
        log={"json_lines": True},
        scenarios={"news": {"diversity": 0.7}, "flash-sale_2": {"window": "1h"}},
    )
    monkeypatch.setenv("HEADWATER_SCENARIOS__NEWS__DIVERSITY", "0.1")
    for name, value in child_environment(found).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == found
