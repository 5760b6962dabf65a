"""What the appliers of the catalogue and of exposures share: topics of item shards alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import structlog
from redis.exceptions import RedisError

from streams.columns import I64
from streams.dead import DeadLetters
from streams.event import Rejection, invalid

__all__ = ["ItemTopicApplier", "decode_json"]

_RETRY_SECONDS = 0.5
_T = TypeVar("_T")


class ItemTopicApplier:
    """Knows where a topic has to be read on, and how to wait for the store."""

    def __init__(
        self, name: str, marks: Callable[[str, int], Awaitable[I64]], dead: DeadLetters
    ) -> None:
        """`marks` reads the last offset of a partition (topic, number) that each item shard
        contains; it raises redis.RedisError.
        """
        self._name = name
        self._marks = marks
        self._dead = dead
        self._log = structlog.get_logger(f"headwater.{name}")

    async def position(self, topic: str, partition: int) -> int:
        """The offset from which a partition has to be read."""
        while True:
            try:
                return await self.contained(topic, partition) + 1
            except RedisError as error:
                await self._pause(error, topic, partition)

    async def contained(self, topic: str, partition: int) -> int:
        """The offset up to which the store contains a partition. Raises redis.RedisError."""
        return int((await self._marks(topic, partition)).min())

    async def _pause(
        self, error: Exception, topic: str, partition: int, offset: int | None = None
    ) -> None:
        self._log.warning(
            f"{self._name} cannot be committed yet",
            error=str(error),
            retry_in=_RETRY_SECONDS,
            topic=topic,
            partition=partition,
            offset=offset,
        )
        await asyncio.sleep(_RETRY_SECONDS)


def decode_json(decoder: msgspec.json.Decoder[_T], value: bytes) -> _T:
    """What a record's value says. Raises Rejection."""
    try:
        return decoder.decode(value)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejection("not_json", f"not JSON: {error}") from None
