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
from commands.settings_cmd import markdown
from commands.stack import child_environment
from config.errors import SettingsError
from config.kafka_access import client_options
from config.redaction import redacted
from config.redis_address import sentinel_address
from config.settings import (
    DEFAULT_SCENARIOS,
    ScenarioSettings,
    Settings,
    describe,
    load_settings,
)
from processors.popularity import WINDOWS
from serving.tls import Certificate
from store.connect import connect
from streams.connection import credentials

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
        ("HEADWATER_KAFKA__USERNAME", "shop", "username needs either password or password_file"),
        ("HEADWATER_KAFKA__PASSWORD", "hush", "a password needs the username that it is of"),
        ("HEADWATER_KAFKA__CA_FILE", "ca.pem", "ca_file is of no use without tls = true"),
        ("HEADWATER_KAFKA__SASL_MECHANISM", "GSSAPI", "'SCRAM-SHA-512', 'SCRAM-SHA-256' or"),
        ("HEADWATER_HTTP__KEY_FILE", "key.pem", "cert_file and key_file go together"),
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
        "home": ScenarioSettings(exclude_seen=False, diversity=0.2, window="24h"),
        "product-page": ScenarioSettings(exclude_seen=True, diversity=0, window="24h"),
        "email": ScenarioSettings(exclude_seen=True, diversity=0.3, window="7d"),
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


SECRETS: dict[str, dict[str, object]] = {
    "kafka": {"bootstrap": "a:1", "tls": True, "username": "shop", "password": "hush-1"},
    "redis": {"url": "rediss://me:hush-2@host:1/0?ssl_password=hush-3"},
}


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_settings(**SECRETS)
    client = connect(found)
    address = sentinel_address("rediss+sentinel://me:hush-4@a:1/shop/0")
    for text in (
        *(how(one) for how in (str, repr) for one in (found, found.kafka, found.redis)),
        repr(client),
        repr(client.connection_pool),
        repr(client.connection_pool.make_connection()),  # type: ignore[no-untyped-call]
        repr(address),
        repr(credentials(found.kafka)),
        repr(list(describe(found))),
        found.model_dump_json(include={"kafka"}),
        redacted("rediss+sentinel://me:hush-4@a:1,b:2/shop/0"),
    ):
        assert "hush" not in text, text
    for name, value in child_environment(found).items():
        monkeypatch.setenv(name, value)
    for arguments in (["settings"], ["settings", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "commands", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "hush" not in done.stdout + done.stderr
        assert "rediss://me:***@host:1/0" in done.stdout


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PASSWORD": "hush", "PASSWORD_FILE": "x", "USERNAME": "u"}, "either password or"),
        ({"PASSWORD": "hush"}, "needs the username"),
        ({"PASSWORD": '{"hush": 1}', "USERNAME": ""}, "at least 1 character"),
        ({"PASSWORD": "hush", "TLS": "maybe"}, "got 'maybe'"),
        ({"USERNAME": "u", "PASSWORD": "hush", "SASL_MECHANISM": "PLAIN"}, "set tls = true"),
    ],
)
def test_no_secret_is_in_what_is_wrong_with_the_settings(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"HEADWATER_KAFKA__{name}", value)
    with pytest.raises(SettingsError, match=said) as wrong:
        load_settings()
    assert "hush" not in str(wrong.value)


def test_passwords_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    kafka = {"username": "shop", "password_file": secret}
    for text in (None, "", "\n"):
        if text is not None:
            secret.write_text(text)
        with pytest.raises(SettingsError, match=r"kafka\.password_file: .*(empty|cannot be read)"):
            client_options(load_settings(kafka={"bootstrap": "a:1", **kafka}).kafka)
    secret.write_text(" hush \n")
    options = client_options(load_settings(kafka={"bootstrap": "a:1", **kafka}).kafka)
    assert options["sasl.password"] == " hush "
    assert options["security.protocol"] == "SASL_PLAINTEXT"
    given = {"url": "redis://me:x@a:1/0", "password_file": secret}
    with pytest.raises(SettingsError, match="has a password already"):
        connect(load_settings(redis=given))


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_wrong_authority_is_named(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    said = r"{}\.ca_file .*no PEM file of certificates"
    with pytest.raises(SettingsError, match=said.format("kafka")):
        client_options(
            load_settings(kafka={"bootstrap": "a:1", "tls": True, "ca_file": file}).kafka
        )
    with pytest.raises(SettingsError, match=said.format("redis")):
        connect(load_settings(redis={"url": "rediss://a:1/0", "ca_file": file}))
    with pytest.raises(SettingsError, match="of no use without TLS"):
        connect(load_settings(redis={"url": "redis://a:1/0", "ca_file": file}))


def test_a_wrong_certificate_is_named(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text("no certificate")
    with pytest.raises(SettingsError, match=r"http\.cert_file and http\.key_file"):
        Certificate(load_settings(http={"cert_file": cert, "key_file": key}).http)


def test_a_child_reads_the_very_same_settings(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text("[worker]\nprocesses = 7\n[kafka]\ngroup = 'file'\n")
    found = load_settings(
        kafka={"bootstrap": "a:1,b:2", "group": "12", "username": "me", "password": "hush"},
        redis={"url": "redis://me:hush@a:1/0"},
        events={"weights": {"view": 0.5, "größe": 2}},
        log={"json_lines": True},
        scenarios={
            "news": {"diversity": 0.7, "strict": True},
            "flash-sale_2": {
                "window": "1h",
                "filter": {"price": {"lt": 5}, "kind": "größe"},
                "boost": [{"filter": {"new": True}, "factor": 2}],
            },
        },
    )
    monkeypatch.setenv("HEADWATER_SCENARIOS__NEWS__DIVERSITY", "0.1")
    for name, value in child_environment(found).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == found
