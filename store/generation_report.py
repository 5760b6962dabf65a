"""What is told of generations to those who look after them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

from config.settings import Settings
from store.generations import Generation, Generations
from store.reader import StoreReader

__all__ = ["report_generations"]


async def report_generations(redis: Redis, settings: Settings) -> list[dict[str, Any]]:
    """All of them by their numbers, ready to be JSON: what each is, and what it has counted.

    `state` is `live` of the one that answers. Raises redis.RedisError, StoreError, SettingsError.
    """
    found, live = await Generations(redis, settings).read()
    return [await _report(redis, settings, one, live) for one in found]


async def _report(
    redis: Redis, settings: Settings, one: Generation, live: Generation | None
) -> dict[str, Any]:
    totals = await StoreReader(redis, one.overlaid(settings), one.number).totals()
    latest = totals.get("latest")
    return {
        "generation": one.number,
        "state": "live" if live is not None and live.number == one.number else one.state,
        "created": _time(one.created // 1000),
        "origin": one.origin,
        "events": totals.get("events", 0),
        "latest": None if latest is None else _time(latest),
        "settings": one.settings,
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
