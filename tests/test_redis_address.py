"""Addresses of Sentinels."""

from __future__ import annotations

import pytest

from config.errors import SettingsError
from config.redis_address import SentinelAddress, sentinel_address
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
    ],
)
def test_what_it_says(url: str, wanted: SentinelAddress) -> None:
    assert sentinel_address(url) == wanted


@pytest.mark.parametrize(
    "url",
    ["redis+sentinel://a:1", "redis+sentinel:///shop", "redis+sentinel://a:x/shop"],
)
def test_what_is_missing_is_told(url: str) -> None:
    with pytest.raises(SettingsError, match="HEADWATER_REDIS__URL"):
        connect(load_settings(redis={"url": url}))
