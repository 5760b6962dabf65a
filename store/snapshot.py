"""A generation in a file, with the offsets up to which it is true, and back into any Redis.

A file is a row of frames, each a length (u32, little-endian) and that many bytes of MessagePack:

    Header, then lists of up to 500 entries, then Trailer

An entry is (key without namespace and generation, milliseconds it has to live or 0, value), and its
value bytes, or a map of a hash's fields, or a list of a sorted set's (score, member).

While a shard is copied, its commits are held up, so that what is copied is true up to its marks:
workers find it held, wait, and go on. User shards come first. They are then never ahead of the item
shards, just as after a crash: whoever goes on from a snapshot reads from the lowest mark, and each
shard takes what it lacks.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError
from xxhash import xxh3_128

from config.errors import StoreError
from config.settings import Settings
from store.generations import Generation
from store.keys import EXPIRING, Keys

__all__ = ["Header", "Trailer", "read_header", "restore", "save"]

_FORMAT = "headwater snapshot 1"
_AT_ONCE = 500
_LARGEST_FRAME = 1 << 30
_HELD_SECONDS, _WAIT_SECONDS = 10.0, 60.0
_PASSING = (b"p", b"y", b"z")
"""Letters of what means nothing later: passes of commits, what these replaced, and the hold."""

_Value = bytes | dict[bytes, bytes] | list[tuple[float, bytes]]
_Entry = tuple[bytes, int, _Value]
T = TypeVar("T")


class Header(msgspec.Struct, frozen=True):
    """What a snapshot is of."""

    format: str
    cluster: str
    """Id of the Kafka cluster that its offsets belong to."""
    topics: tuple[str, str, str]
    """Of events, items and what was shown."""
    generation: Generation


class Trailer(msgspec.Struct, frozen=True):
    """By which a file is known to be whole."""

    keys: int
    digest: bytes


async def save(
    redis: Redis, settings: Settings, one: Generation, cluster: str, file: BinaryIO
) -> AsyncIterator[int]:
    """Write a generation to a file; yields how many keys were written, some at a time.

    Raises redis.RedisError, OSError, and StoreError where a shard could not be held long enough.
    """
    keys = Keys(one.overlaid(settings).store, one.number)
    out = _Frames(file)
    out.write(Header(_FORMAT, cluster, _topics(settings), one))
    count = 0
    for prefix in [*keys.prefixes, *keys.experiments]:
        hold = Lock(redis, prefix + b"z", timeout=_HELD_SECONDS, blocking_timeout=_WAIT_SECONDS)
        if not await hold.acquire():
            raise StoreError("another snapshot is being taken: try again when that is done")
        try:
            async for entries in _entries(redis, keys, prefix):
                out.write(entries)
                count += len(entries)
                yield len(entries)
                await hold.reacquire()  # raises where somebody may have written meanwhile
        except LockError as error:
            raise StoreError(
                "commits could not be held up while a shard was copied, so the snapshot would not "
                f"be exact: try again when there is less to do ({error})"
            ) from None
        finally:
            with contextlib.suppress(LockError):
                await hold.release()
    out.write(Trailer(count, out.digest))


def read_header(settings: Settings, cluster: str, file: BinaryIO) -> Header:
    """What a snapshot is of. Raises StoreError where it is none, or of another log."""
    header = _decode(next(_frames(file), b""), Header)
    if header.format != _FORMAT:
        raise StoreError(f"{header.format!r} is not {_FORMAT!r}: this file cannot be read")
    if header.topics != _topics(settings):
        raise StoreError(
            f"the snapshot is of the topics {', '.join(header.topics)}, the settings name "
            f"{', '.join(_topics(settings))}: its offsets mean nothing there"
        )
    if header.cluster != cluster:
        raise StoreError(
            f"the snapshot's offsets are of the Kafka cluster {header.cluster}, this one is "
            f"{cluster}: build a generation from this log instead (headwater replay)"
        )
    return header


async def restore(
    redis: Redis, settings: Settings, header: Header, one: Generation, file: BinaryIO
) -> AsyncIterator[int]:
    """Write what follows a header under the keys of a new generation; yields how many keys were
    written, some at a time.

    Raises redis.RedisError, and StoreError where the file is not whole; then what was written is
    not to be used.
    """
    keys = Keys(one.overlaid(settings).store, one.number)
    head = keys.own_pattern.removesuffix(b"*")
    digest, count = xxh3_128(msgspec.msgpack.encode(header)), 0
    waiting: bytes | None = None
    for frame in _frames(file):
        if waiting is not None:
            digest.update(waiting)
            entries = _decode(waiting, list[_Entry])
            await _write(redis, head, entries)
            count += len(entries)
            yield len(entries)
        waiting = frame
    trailer = _decode(waiting or b"", Trailer)
    if (trailer.keys, trailer.digest) != (count, digest.digest()):
        raise StoreError("the snapshot is damaged: take another one, or replay the log")


async def _entries(redis: Redis, keys: Keys, prefix: bytes) -> AsyncIterator[list[_Entry]]:
    """All that a shard holds."""
    head = len(keys.own_pattern) - 1
    some: list[bytes] = []
    seen: set[bytes] = set()  # SCAN may tell a key twice while others come and go
    async for key in redis.scan_iter(match=prefix + b"*", count=2 * _AT_ONCE):
        if key[len(prefix) :][:1] not in _PASSING and key not in seen:
            seen.add(key)
            some.append(key)
        if len(some) == _AT_ONCE:
            yield await _read(redis, some, head, len(prefix))
            some.clear()
    if some:
        yield await _read(redis, some, head, len(prefix))


async def _read(redis: Redis, names: list[bytes], head: int, letter: int) -> list[_Entry]:
    values: list[bytes | None] = await redis.mget(names)  # type: ignore[assignment]
    found: list[_Entry] = []
    for key, value in zip(names, values, strict=True):
        if value is not None:
            left = await redis.pttl(key) if key[letter : letter + 1] in EXPIRING else 0
            found.append((key[head:], max(0, left), value))
            continue
        kind = await redis.type(key)
        if kind == b"hash":
            fields: dict[bytes, bytes] = await redis.hgetall(key)  # type: ignore[assignment]
            found.append((key[head:], 0, fields))
        elif kind == b"zset":
            members: list[tuple[bytes, float]]
            members = await redis.zrange(key, 0, -1, withscores=True)  # type: ignore[assignment]
            found.append((key[head:], 0, [(float(score), member) for member, score in members]))
    return found


async def _write(redis: Redis, head: bytes, entries: list[_Entry]) -> None:
    pipeline = redis.pipeline(transaction=False)
    for suffix, left, value in entries:
        key = head + suffix
        if isinstance(value, bytes):
            pipeline.set(key, value, px=left or None)
        elif isinstance(value, dict):
            pipeline.hset(key, mapping=value)  # type: ignore[arg-type]
        else:
            pipeline.zadd(key, {member: score for score, member in value})
    await pipeline.execute()


def _topics(settings: Settings) -> tuple[str, str, str]:
    kafka = settings.kafka
    return kafka.events_topic, kafka.items_topic, kafka.recommendations_topic


class _Frames:
    """Writes frames and sums them up."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sum = xxh3_128()

    @property
    def digest(self) -> bytes:
        """Of all frames so far."""
        return self._sum.digest()

    def write(self, value: object) -> None:
        data = msgspec.msgpack.encode(value)
        self._sum.update(data)
        self._file.write(struct.pack("<I", len(data)) + data)


def _frames(file: BinaryIO) -> Iterator[bytes]:
    while head := file.read(4):
        size = struct.unpack("<I", head)[0] if len(head) == 4 else _LARGEST_FRAME
        data = file.read(size) if size < _LARGEST_FRAME else b""
        if len(data) != size:
            raise StoreError("the snapshot ends too early, or is none: take another one")
        yield data


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise StoreError(f"this is no snapshot, or it is damaged ({error})") from None
