"""The file of tenants: what its tables become, and what cannot be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.__main__ import run
from config.errors import SettingsError
from config.overlay import overlaid, recorded
from config.settings import DEFAULT_TENANT, load_settings
from config.tenants import named_tenant, read_tenants


def test_a_table_is_an_overlay_with_names_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "tenants.toml"
    path.write_text(
        '[books]\n[shoes]\nrate = "9/second"\nfold.half_life_days = 7\n'
        "kafka.partitions = 1\nscenarios.home.diversity = 0.5\nscenarios.own = {}\n"
    )
    settings = load_settings(tenants={"file": path}, rank={"backward": 0.25})
    known = read_tenants(settings, path)
    assert list(known) == ["books", "shoes"]
    shoes = known["shoes"].settings
    assert known["shoes"].rate == "9/second"
    assert (shoes.tenant, shoes.deployment) == ("shoes", settings)
    assert shoes.store.namespace == "hw:shoes"
    assert shoes.kafka.events_topic == "shoes.events"
    assert shoes.kafka.dead_topic == "shoes.events.dead"
    assert shoes.kafka.group == "headwater.shoes"
    assert (shoes.kafka.partitions, settings.kafka.partitions) == (1, 8)
    assert (shoes.fold.half_life_days, shoes.rank.backward) == (7, 0.25)
    assert shoes.scenarios["home"].diversity == 0.5
    assert "own" in shoes.scenarios
    assert shoes.scenarios["cart"] == settings.scenarios["cart"]
    assert "own" not in known["books"].settings.scenarios
    # What a generation brings along goes over it, and it stays the tenant's.
    over = overlaid(shoes, recorded(shoes), {"rank": {"idf_power": 1}})
    assert (over.tenant, over.rank.idf_power, over.fold) == ("shoes", 1, shoes.fold)
    assert over.store == shoes.store
    assert named_tenant(shoes, "books") == known["books"].settings
    assert named_tenant(shoes, None) == named_tenant(shoes, DEFAULT_TENANT) == settings


BAD = {
    "no toml": "[shoes",
    "name": "[Shoes]",
    "a name with two -": "[a--b]",
    "reserved": "[default]",
    "no table": "shoes = 3",
    "rate": '[shoes]\nrate = "often"',
    "a rate that is no text": "[shoes]\nrate = 3",
    "unknown group": "[shoes.color]\nred = 1",
    "of the deployment": "[shoes.http]\nport = 1",
    "unknown setting": "[shoes.rank]\nspeed = 1",
    "out of range": "[shoes.rank]\nbackward = 2",
    "not chosen": '[shoes.kafka]\nevents_topic = "books.events"',
    "its namespace": '[shoes.store]\nnamespace = "hw"',
    "no group": "[shoes]\nrank = 3",
    "scenario": "[shoes.scenarios.home]\ndiversity = 2",
    "scenario name": "[shoes.scenarios.A]",
    "filter": "[shoes.scenarios.home]\nfilter = {price = {about = 3}}",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_bad_table_ends_every_command_with_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tenants.toml"
    path.write_text(text)
    monkeypatch.setenv("HEADWATER_TENANTS__FILE", str(path))
    monkeypatch.setenv("HEADWATER_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("HEADWATER_REDIS__URL", "redis://127.0.0.1:1")
    assert run(["serve"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert str(path) in said[0]
    if "filter" not in text:  # what a filter may say is known to servers alone
        assert run(["inspect", "user", "u", "--tenant", "shoes"]) == 2
        assert capsys.readouterr().err.strip() == said[0]


def test_a_tenant_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tenants.toml"
    path.write_text("[books]\n")
    for arguments in (["replay"], ["generations", "list"], ["feed", "x.csv"], ["settings"]):
        monkeypatch.delenv("HEADWATER_TENANTS__FILE", raising=False)
        assert run([*arguments, "--tenant", "shoes"]) == 2
        assert "HEADWATER_TENANTS__FILE" in capsys.readouterr().err
        monkeypatch.setenv("HEADWATER_TENANTS__FILE", str(path))
        assert run([*arguments, "--tenant", "shoes"]) == 2
        assert "default, books" in capsys.readouterr().err
    assert run(["settings", "--tenant", "books"]) == 0
    assert "hw:books" in capsys.readouterr().out
    assert run(["worker", "--tenant", "books"]) == 2
    assert "--generation" in capsys.readouterr().err
    with pytest.raises(SettingsError, match="colon"):
        read_tenants(load_settings(store={"namespace": "hw:x"}), path)
