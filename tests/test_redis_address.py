"""Addresses of Sentinels."""

from __future__ import annotations

import pytest

from config.errors import SettingsError
from config.redis_address import (
    ClusterAddress,
    SentinelAddress,
    cluster_address,
    sentinel_address,
)
from config.settings import load_settings
from store.connect import connect


def test_one_redis_is_none_of_them() -> None:
    assert sentinel_address("redis://127.0.0.1:6379/0") is None


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        (
            "redis+sentinel://a:1,b/shop/2",
            SentinelAddress([("a", 1), ("b", 26_379)], "shop", 2, None, None),
        ),
        (
            "redis+sentinel://me:p%40ss@[::1]:5/shop",
            SentinelAddress([("::1", 5)], "shop", 0, "me", "p@ss"),
        ),
        (
            "rediss+sentinel://me:pw@a/shop",
            SentinelAddress([("a", 26_379)], "shop", 0, "me", "pw", tls=True),
        ),
    ],
)
def test_what_it_says(url: str, wanted: SentinelAddress) -> None:
    assert sentinel_address(url) == wanted


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis+cluster://a:1,b", ClusterAddress([("a", 1), ("b", 6379)], None, None)),
        ("redis+cluster://me:p%40ss@[::1]:5/0", ClusterAddress([("::1", 5)], "me", "p@ss")),
        ("rediss+cluster://a:1", ClusterAddress([("a", 1)], None, None, tls=True)),
        ("redis://a:1/0", None),
    ],
)
def test_what_it_says_of_a_cluster(url: str, wanted: ClusterAddress | None) -> None:
    assert cluster_address(url) == wanted


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a:1",
        "redis+sentinel:///shop",
        "redis+sentinel://a:x/shop",
        "redis+cluster://",
        "redis+cluster://a:1,:2",
        "redis+cluster://a:1/3",
    ],
)
def test_what_is_missing_is_told(url: str) -> None:
    with pytest.raises(SettingsError, match="HEADWATER_REDIS__URL"):
        connect(load_settings(redis={"url": url}))
