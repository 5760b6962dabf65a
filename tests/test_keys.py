"""API keys: the file, the command, and what servers make of them over the wire."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from commands.__main__ import run
from commands.stack import Stack
from config.api_keys import Scope, create_key, hash_of, read_keys, revoke_key
from config.errors import SettingsError
from config.services import Services
from serving.admission import scope_of
from tests.conftest import own_settings
from tests.live import PROBLEM, click, eventually


def test_a_file_keeps_hashes_and_tells_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.json"
    first = create_key(path, "shop", ["read", "write"], "5/second")
    second = create_key(path, "mail", ["read"], None)
    assert first != second
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert first not in text
    assert second not in text
    known = read_keys(path)
    assert known[hash_of(first)].scopes == ["read", "write"]
    assert known[hash_of(second)].name == "mail"
    revoke_key(path, "shop")
    assert list(read_keys(path)) == [hash_of(second)]
    assert [one.name for one in path.parent.iterdir()] == ["keys.json"]


def test_what_cannot_be_a_key_is_said(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    create_key(path, "shop", ["read"], None)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="already"):
        create_key(path, "shop", ["read"], None)
    with pytest.raises(SettingsError, match="no rate"):
        create_key(path, "other", ["read"], "often")
    with pytest.raises(SettingsError, match="cannot be used"):
        create_key(path, "a b", ["read"], None)
    with pytest.raises(SettingsError, match="there are shop"):
        revoke_key(path, "mail")
    assert path.read_bytes() == before
    path.write_text('[{"name": "x"}]')
    with pytest.raises(SettingsError, match="sha256"):
        read_keys(path)


def test_the_command_makes_lists_and_revokes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", "list"]) == 2
    assert "HEADWATER_HTTP__KEYS_FILE" in capsys.readouterr().err
    path = tmp_path / "keys.json"
    monkeypatch.setenv("HEADWATER_HTTP__KEYS_FILE", str(path))
    assert run(["keys", "create", "shop", "--scope", "read", "--scope", "write"]) == 0
    key = capsys.readouterr().out.strip()
    assert read_keys(path)[hash_of(key)].name == "shop"
    assert run(["keys", "create", "mail", "--rate", "100/second", "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out)["rate"] == "100/second"
    assert run(["keys", "create", "bad", "--scope", "all"]) == 2
    assert "scope" in capsys.readouterr().err
    assert run(["keys", "list", "--json"]) == 0
    listed = capsys.readouterr().out
    assert [one["name"] for one in orjson.loads(listed)["keys"]] == ["shop", "mail"]
    assert hash_of(key) not in listed
    assert run(["keys", "list"]) == 0
    assert "100/second" in capsys.readouterr().out
    assert run(["keys", "revoke", "shop"]) == 0
    assert run(["keys", "revoke", "shop"]) == 2


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/health/ready", None),
        ("GET", "/metrics", None),
        ("GET", "/openapi.json", None),
        ("GET", "/", None),
        ("OPTIONS", "/v1/events", None),
        ("GET", "/v1/recommendations/u", "read"),
        ("HEAD", "/v1/trending", "read"),
        ("POST", "/v1/recommendations", "read"),
        ("POST", "/v1/recommendations/batch", "read"),
        ("GET", "/v1/items/i", "read"),
        ("POST", "/v1/events", "write"),
        ("PUT", "/v1/items/i", "write"),
        ("DELETE", "/v1/users/u", "write"),
        ("POST", "/v1/whatever", "write"),
        ("GET", "/admin/dead", "admin"),
        ("POST", "/admin/generations/2/activate", "admin"),
    ],
)
def test_what_a_request_must_be_allowed_to_do(method: str, path: str, scope: str | None) -> None:
    assert scope_of(method, path) == scope


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory, keys_file: Path
) -> AsyncIterator[Stack]:
    """Two server processes without a worker: what they answer does not matter here."""
    create_key(keys_file, "first", ["admin"], None)
    home = tmp_path_factory.mktemp("admission")
    settings = own_settings(services, home, partitions=1, http={"keys_file": keys_file})
    async with Stack(settings, workers=0, processes=2, services=services) as stack:
        yield stack


async def status(http: aiohttp.ClientSession, method: str, path: str, **more: Any) -> int:
    async with http.request(method, path, **more) as answer:
        if answer.status >= 400:
            assert answer.content_type == PROBLEM
            told = await answer.json(content_type=None)
            assert told["status"] == answer.status
            assert told["detail"]
        if answer.status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        if answer.status == 429:
            assert int(answer.headers["Retry-After"]) >= 1
        return answer.status


@pytest.mark.asyncio(loop_scope="module")
class TestServers:
    async def test_only_known_keys_with_the_scope_are_let_in(
        self, live: Stack, keys_file: Path
    ) -> None:
        path = "/v1/recommendations/u?n=3"
        made: dict[str, str] = {}
        scopes: dict[str, list[Scope]] = {"reads": ["read"], "writes": ["write"]}
        for name, allowed in scopes.items():
            made[name] = create_key(keys_file, name, allowed, None)
        reads, writes = ({"Authorization": f"Bearer {made[name]}"} for name in scopes)
        async with aiohttp.ClientSession(live.http_url) as http:
            # Both processes have to have read the file again.
            for _ in range(20):
                await eventually(
                    lambda: status(http, "GET", path, headers=reads), lambda code: code == 200
                )
            assert await status(http, "GET", path) == 401
            assert await status(http, "GET", "/v1/trending") == 401
            for wrong in ("Bearer nobody", "Basic abc", "Bearer", f"bearer  {made['reads']}x"):
                assert await status(http, "GET", path, headers={"Authorization": wrong}) == 401
            assert await status(http, "GET", path, headers={"X-API-Key": made["reads"]}) == 200
            assert await status(http, "GET", path, headers=writes) == 403
            event = click("u", "i")
            assert await status(http, "POST", "/v1/events", json=event, headers=reads) == 403
            assert await status(http, "POST", "/v1/events", json=event, headers=writes) == 202
            assert await status(http, "POST", "/v1/events", json=event) == 401
            assert await status(http, "GET", "/health/live") == 200
            assert await status(http, "GET", "/metrics") == 200
            revoke_key(keys_file, "reads")
            for _ in range(20):
                await eventually(
                    lambda: status(http, "GET", path, headers=reads), lambda code: code == 401
                )

    async def test_a_rate_holds_over_all_processes(self, live: Stack, keys_file: Path) -> None:
        key = create_key(keys_file, "slow", ["read"], "10 per 1 hour")
        codes: list[int] = []

        async def ask() -> int:
            # A connection each, so that the processes share them.
            async with aiohttp.ClientSession(live.http_url) as http:
                return await status(http, "GET", "/v1/trending", headers={"X-API-Key": key})

        while codes.count(429) < 40:
            codes += await asyncio.gather(*(ask() for _ in range(10)))
            assert len(codes) < 2000
        assert set(codes) <= {200, 401, 429}  # 401 before both have read the file again
        assert codes.count(200) == 10
