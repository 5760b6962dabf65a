"""How the learned ranking lies in Redis: one value, little-endian.

    version 8 random bytes, new with each lesson · steps u64 · leads u64 · 8 sums f64 of
    `processors.standing.Standing` · parameters, then Adam's two running means, all f32

A value of another length was written by a version with other features: learning starts anew.
"""

from __future__ import annotations

import secrets
import struct
from dataclasses import astuple, fields

import numpy as np

from processors.learning import Taught
from processors.standing import Standing
from serving.model import PARAMETERS
from store.commit import Lesson

__all__ = ["continue_from", "pack_taught", "unpack_taught"]

_HEAD = struct.Struct("<8sQQ8d")
_VERSION_BYTES = 8
_LENGTH = _HEAD.size + 3 * PARAMETERS * 4


def pack_taught(taught: Taught) -> bytes:
    """A value with a version of its own."""
    *sums, leads = astuple(taught.standing)
    head = _HEAD.pack(secrets.token_bytes(_VERSION_BYTES), taught.steps, leads, *sums)
    parts = (taught.parameters, taught.first, taught.second)
    return head + np.concatenate(parts).astype("<f4").tobytes()


def unpack_taught(value: bytes | None) -> Taught:
    """What stands in a value; of none, or one of another version, nothing taught yet."""
    if value is None or len(value) != _LENGTH:
        return Taught()
    _, steps, leads, *sums = _HEAD.unpack_from(value)
    numbers = np.frombuffer(value, "<f4", offset=_HEAD.size).astype(np.float32)
    parameters, first, second = numbers.reshape(3, PARAMETERS)
    names = [one.name for one in fields(Standing)][:-1]
    standing = Standing(**dict(zip(names, sums, strict=True)))
    standing.leads = bool(leads)
    return Taught(parameters, first, second, steps, standing)


def continue_from(value: bytes | None, taught: Taught) -> Lesson:
    """The lesson that takes the value to what is taught now."""
    return Lesson((value or b"")[:_VERSION_BYTES], pack_taught(taught))
