"""The Lua scripts by name: loaded from `lua/`, sent once, called by their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

__all__ = ["Call", "Scripts"]

Call = tuple[str, list[bytes], list[bytes | str | int]]
"""Name of a script, its keys, its arguments."""
_FENCED = (
    "commit_items",
    "commit_users",
    "commit_totals",
    "commit_catalogue",
    "commit_exposures",
    "commit_outcomes",
)
_PLAIN = (
    "compact",
    "ensure_live",
    "follow_topic",
    "forget",
    "leave_pass",
    "move_generation",
    "roll_up",
    "take_back",
)


class Scripts:
    """Calls scripts by name, several at a time."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        folder = files("store") / "lua"
        fence = (folder / "fence.lua").read_text()
        self._source = {n: fence + (folder / f"{n}.lua").read_text() for n in _FENCED}
        self._source |= {n: (folder / f"{n}.lua").read_text() for n in _PLAIN}
        self._sha = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in self._source.items()
        }
        self._loaded = False

    def digest(self, name: str) -> str:
        """By which Redis knows a script: SHA-1, in hexadecimal."""
        return self._sha[name]

    async def call(self, calls: Sequence[Call]) -> list[Any]:
        """The replies, in order. Calls are not one transaction.

        Scripts are loaded before the first call, and when Redis has lost them (a restart, SCRIPT
        FLUSH). Then all calls are made once more: every script stands being called again, since it
        is fenced or compares first. What a call said that went through at once, such as which lists
        have grown, is lost.
        """
        if not self._loaded:
            await self._load()
            self._loaded = True
        replies = await self._send(calls)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            await self._load()
            replies = await self._send(calls)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def _load(self) -> None:
        for text in self._source.values():
            await self._redis.script_load(text)

    async def _send(self, calls: Sequence[Call]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for name, keys, arguments in calls:
            pipeline.evalsha(self._sha[name], len(keys), *keys, *arguments)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies
