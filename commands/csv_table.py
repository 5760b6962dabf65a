"""Opens what people hand in: plain or gzip, a file or stdin; and a CSV's header."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from config.errors import BadInput, SettingsError

if TYPE_CHECKING:
    from _csv import Reader

__all__ = ["STDIN", "Input", "opened", "table"]

STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class Input:
    """A file that is read, or stdin."""

    name: str
    unpacked: BinaryIO
    """What is in it, decompressed where it was gzip."""
    start: bytes
    """What was seen of that beforehand: a few bytes, without white space before them."""
    raw: BinaryIO

    def position(self) -> int:
        """Bytes that were read, before decompression; 0 of a pipe."""
        return self.raw.tell() if self.raw.seekable() else 0


@contextmanager
def opened(path: Path) -> Iterator[Input]:
    """A file, or stdin for `-`.

    Raises SettingsError where it cannot be read, and BadInput for what the block meets: where the
    file is no gzip or ends in the middle, no UTF-8, or no CSV.
    """
    name = "stdin" if path == STDIN else str(path)
    try:
        raw = sys.stdin.buffer if path == STDIN else path.open("rb")
    except OSError as error:
        raise SettingsError(f"{name} cannot be read: {error.strerror}") from None
    try:
        buffered = cast(io.BufferedReader, raw)
        packed = buffered.peek(2)[:2] == b"\x1f\x8b"
        # GzipFile has a peek, too.
        unpacked = gzip.GzipFile(fileobj=raw) if packed else buffered
        start = unpacked.peek(256).removeprefix(b"\xef\xbb\xbf").lstrip()
        yield Input(name, cast(BinaryIO, unpacked), start[:16], cast(BinaryIO, raw))
    except (csv.Error, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise BadInput(f"{name}: {error}") from None
    finally:
        if path != STDIN:
            raw.close()


@contextmanager
def table(source: Input, needed: tuple[str, ...]) -> Iterator[tuple[Reader, dict[str, int]]]:
    """A CSV's reader past the header, and where each column stands.

    Raises SettingsError where a column is missing or stands twice, and BadInput as `opened` does.
    """
    text = io.TextIOWrapper(source.unpacked, "utf-8-sig", newline="")
    rows = csv.reader(text)
    try:
        names = [name.strip() for name in next(rows, [])]
        header = {name: at for at, name in enumerate(names)}
        missing = [name for name in needed if name not in header]
        if missing:
            raise SettingsError(
                f"{source.name} has no column {', '.join(missing)}: its first line must name the "
                f"columns {', '.join(needed)}"
            )
        if len(header) < len(names):
            twice = next(name for name in header if names.count(name) > 1)
            raise SettingsError(f"{source.name} has the column {twice!r} more than once")
        yield rows, header
    except (csv.Error, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise BadInput(f"{source.name}, after line {rows.line_num}: {error}") from None
    finally:
        text.detach()  # else it closes what it reads, and that may be stdin
