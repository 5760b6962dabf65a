"""The Lua scripts by name: loaded from `lua/`, sent once, called by their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from config.errors import StoreError

__all__ = ["Call", "Scripts", "broken_off"]

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
_MIDST = ("@user_script", "Error running script")
"""In what Redis says of a command that it refused to a script."""
_BEFORE_WRITES = (OutOfMemoryError, ReadOnlyError, MasterDownError)
_BEFORE_WRITES_TEXTS = ("MISCONF", "NOREPLICAS", "Script killed")
"""Why a script may write nothing, which it is told at its first write."""


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

        Raises redis.RedisError, and StoreError where a commit broke off in its midst.
        """
        if not self._loaded:
            await self._load()
            self._loaded = True
        replies = await self._send(calls)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            await self._load()
            replies = await self._send(calls)
        errors = [
            broken_off(reply, call[0]) or reply
            for reply, call in zip(replies, calls, strict=True)
            if isinstance(reply, Exception)
        ]
        if errors:
            # Of several, one after which nobody may try again.
            raise min(errors, key=lambda one: not isinstance(one, StoreError))
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


def broken_off(error: Exception, name: str) -> StoreError | None:
    """What to say of a commit that had begun to write: Redis takes nothing of it back, and its mark
    stands already, so that to try again would change nothing. None for any other error.
    """
    said = str(error)
    if (
        name not in _FENCED
        or not isinstance(error, ResponseError)
        or isinstance(error, _BEFORE_WRITES)
        or not any(text in said for text in _MIDST)
        or any(text in said for text in _BEFORE_WRITES_TEXTS)
    ):
        return None
    return StoreError(
        f"Redis ended {name} in its midst, and so lacks some of what its mark says it has: {said}. "
        "See to the cause (rights: docs/security.md; keys of others under store.namespace), then "
        "count everything anew: headwater replay --activate"
    )
