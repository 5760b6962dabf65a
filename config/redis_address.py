"""What `redis.url` may say: one Redis, or the Sentinels that know which one it is."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

__all__ = ["SentinelAddress", "sentinel_address"]

_SCHEME = "redis+sentinel"
_PORT = 26_379


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """redis+sentinel://[user:password@]host:port,host:port/service[/db]."""

    sentinels: list[tuple[str, int]]
    service: str
    db: int
    username: str | None
    """Of Redis itself, as the password."""
    password: str | None


def sentinel_address(url: str) -> SentinelAddress | None:
    """What a URL says of Sentinels; None for one of another scheme. Raises ValueError."""
    if not url.startswith(f"{_SCHEME}://"):
        return None
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    sentinels = []
    for host in hosts.split(","):
        found = urlsplit(f"//{host}")
        if not found.hostname:
            raise ValueError(f"{_SCHEME}:// needs host:port of at least one Sentinel")
        sentinels.append((found.hostname, found.port or _PORT))
    if not service or not (db or "0").isdigit():
        raise ValueError(f"{_SCHEME}://host:port,host:port/service/db: service or db is missing")
    return SentinelAddress(
        sentinels, service, int(db or 0), unquote(name) or None, unquote(password) or None
    )
