"""What `redis.url` may say: one Redis, the Sentinels that know which one it is, or a cluster; and
what else the settings say of the way there, in the words of redis-py.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from config.errors import SettingsError
from config.kafka_access import read_password
from config.settings import RedisSettings

__all__ = [
    "ClusterAddress",
    "SentinelAddress",
    "cluster_address",
    "redis_options",
    "sentinel_address",
]

_SCHEME = "redis+sentinel"
_TLS_SCHEME = "rediss+sentinel"
_CLUSTER = "redis+cluster"
_TLS_CLUSTER = "rediss+cluster"
_PORT, _REDIS_PORT = 26_379, 6379


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """redis+sentinel://[user:password@]host:port,host:port/service[/db]."""

    sentinels: list[tuple[str, int]]
    service: str
    db: int
    username: str | None
    """Of Redis itself, as the password."""
    password: str | None = field(repr=False)
    tls: bool = False
    """Whether Redis and the Sentinels speak it."""


def redis_options(redis: RedisSettings) -> dict[str, Any]:
    """What a client is to be told beside `redis.url`. Raises SettingsError."""
    found: dict[str, Any] = {}
    if (url := redis.url) is None:
        return found
    if redis.password_file is not None:
        if ":" in urlsplit(url).netloc.rpartition("@")[0]:
            raise SettingsError(
                "setting redis.password_file (HEADWATER_REDIS__PASSWORD_FILE): redis.url has a "
                "password already; leave one of them out"
            )
        found["password"] = read_password(redis.password_file, "redis.password_file")
    if redis.ca_file is not None:
        if not url.startswith("rediss"):
            raise SettingsError(
                "setting redis.ca_file (HEADWATER_REDIS__CA_FILE) is of no use without TLS: let "
                "redis.url begin with rediss://"
            )
        try:
            ssl.create_default_context(cafile=redis.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"setting redis.ca_file (HEADWATER_REDIS__CA_FILE): {redis.ca_file} is no PEM file "
                f"of certificates: {error}"
            ) from None
        found["ssl_ca_certs"] = str(redis.ca_file)
    return found


def sentinel_address(url: str) -> SentinelAddress | None:
    """What a URL says of Sentinels; None for one of another scheme. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in (_SCHEME, _TLS_SCHEME):
        return None
    sentinels, name, password = _hosts(parts.netloc, _PORT)
    if not sentinels:
        raise ValueError(f"{_SCHEME}:// needs host:port of at least one Sentinel")
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not (db or "0").isdigit():
        raise ValueError(f"{_SCHEME}://host:port,host:port/service/db: service or db is missing")
    return SentinelAddress(
        sentinels, service, int(db or 0), name, password, parts.scheme == _TLS_SCHEME
    )


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """redis+cluster://[user:password@]host:port,host:port: some of the nodes of a Redis Cluster;
    rediss+cluster:// where they speak TLS.
    """

    nodes: list[tuple[str, int]]
    username: str | None
    password: str | None = field(repr=False)
    tls: bool = False
    """Whether all nodes speak it."""


def cluster_address(url: str) -> ClusterAddress | None:
    """What a URL says of a Redis Cluster; None for one of another scheme. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in (_CLUSTER, _TLS_CLUSTER):
        return None
    nodes, name, password = _hosts(parts.netloc, _REDIS_PORT)
    if not nodes:
        raise ValueError(f"{_CLUSTER}:// needs host:port of at least one node")
    if parts.path.strip("/") not in ("", "0"):
        raise ValueError(f"{_CLUSTER}://host:port,host:port: a Redis Cluster has no database but 0")
    return ClusterAddress(nodes, name, password, parts.scheme == _TLS_CLUSTER)


def _hosts(place: str, port: int) -> tuple[list[tuple[str, int]], str | None, str | None]:
    """Hosts with their ports, none where one of them has no name; user and password."""
    user, _, hosts = place.rpartition("@")
    name, _, password = user.partition(":")
    found = [urlsplit(f"//{host}") for host in hosts.split(",")]
    named = [(one.hostname, one.port or port) for one in found if one.hostname]
    return (
        named if len(named) == len(found) else [],
        unquote(name) or None,
        unquote(password) or None,
    )
