"""API keys in a file: their hashes, what they allow, and how often.

A key is 32 random bytes, so its SHA-256 is kept and nothing slower is needed: nobody guesses it,
and whoever reads the file cannot use what it says. The file is JSON, readable by its owner alone,
and written anew as a whole; servers follow it (`followed.py`), so a key that is made or revoked
counts a moment later, without a restart, and wherever the file is brought to.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from limits import parse
from msgspec import Meta, Struct

from config.errors import SettingsError
from config.settings import DEFAULT_TENANT

__all__ = [
    "SCOPES",
    "ApiKey",
    "Scope",
    "create_key",
    "hash_of",
    "read_keys",
    "revoke_key",
    "revoke_keys_of",
]

Scope = Literal["read", "write", "page", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "page", "admin")
_PREFIX = "hw_"


class ApiKey(Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[list[Scope], Meta(min_length=1)]
    created: int
    """Milliseconds since 1970."""
    rate: str | None = None
    """As "100/second", "5000 per 10 minutes"; None for as often as it likes."""
    tenant: str = DEFAULT_TENANT
    """Whose it is: it reaches nothing of any other."""


_decoder = msgspec.json.Decoder(list[ApiKey])


def hash_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def read_keys(path: Path) -> dict[str, ApiKey]:
    """Keys by their hashes. Raises SettingsError where the file is no such file."""
    try:
        found = _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path} (setting http.keys_file): {error}") from None
    for one in found:
        _check_rate(one.rate)
    return {one.sha256: one for one in found}


def create_key(
    path: Path,
    name: str,
    scopes: Sequence[Scope],
    rate: str | None,
    tenant: str = DEFAULT_TENANT,
) -> str:
    """Make a key and add it to the file, which may not be there yet; returns the key, which is
    written down nowhere. Raises SettingsError.
    """
    _check_rate(rate)
    known = read_keys(path) if path.exists() else {}
    if any(one.name == name for one in known.values()):
        raise SettingsError(f"there is a key named {name} already: revoke that, or choose a name")
    key = _PREFIX + secrets.token_urlsafe(32)
    made = ApiKey(name, hash_of(key), list(scopes), time.time_ns() // 1_000_000, rate, tenant)
    try:
        msgspec.convert(msgspec.to_builtins(made), ApiKey)
    except msgspec.ValidationError as error:
        raise SettingsError(f"the name {name!r} cannot be used: {error}") from None
    _write(path, [*known.values(), made])
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of the file. Raises SettingsError where it is not there."""
    known = read_keys(path).values()
    left = [one for one in known if one.name != name]
    if len(left) == len(known):
        names = ", ".join(one.name for one in known) or "none"
        raise SettingsError(f"there is no key named {name}: there are {names}")
    _write(path, left)


def revoke_keys_of(path: Path, tenant: str) -> int:
    """Take all keys of a tenant out of the file; returns how many. Raises SettingsError."""
    known = read_keys(path).values()
    left = [one for one in known if one.tenant != tenant]
    if len(left) != len(known):
        _write(path, left)
    return len(known) - len(left)


def _check_rate(rate: str | None) -> None:
    try:
        if rate is not None:
            parse(rate)
    except ValueError:
        raise SettingsError(
            f"{rate!r} is no rate: write it as 100/second or 5000 per 10 minutes"
        ) from None


def _write(path: Path, keys: Sequence[ApiKey]) -> None:
    """All or nothing: who reads meanwhile finds the old ones or the new ones."""
    text = msgspec.json.format(msgspec.json.encode(list(keys)), indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text + b"\n")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
