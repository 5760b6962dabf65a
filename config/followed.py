"""A file that a running process follows: read again when it changes, and kept when it is bad."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from config.errors import SettingsError

__all__ = ["FollowedFile", "stamp"]

log = structlog.get_logger("headwater.settings")

_LOOK_SECONDS = 0.5
_T = TypeVar("_T")


class FollowedFile(Generic[_T]):
    """Holds what was read last without a mistake."""

    def __init__(self, path: Path, read: Callable[[Path], _T]) -> None:
        """`read` raises SettingsError where the file breaks a rule; so does this."""
        self._path = path
        self._read = read
        self._seen = stamp(path)
        self.value = read(path)

    async def run(self) -> None:
        """Follow it, forever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Read it again if it has changed."""
        if (seen := stamp(self._path)) == self._seen:
            return
        self._seen = seen
        try:
            self.value = self._read(self._path)
        except SettingsError as error:
            log.error("a file stays as it was read before", path=str(self._path), error=str(error))
        else:
            log.info("a file was read again", path=str(self._path))


def stamp(path: Path) -> tuple[int, int, int] | None:
    """By which a change of a file is known."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
