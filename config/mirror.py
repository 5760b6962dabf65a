"""MirrorMaker 2: what began in another region is copied into this one's topics, exactly once.

One runs in each region, and writes to that region alone, so that the loss of the other one leaves
nothing half-written here. Its settings are in `mirror.properties`. A record keeps its key,
partition and time; a header says that it was copied, and keeps it from being copied back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.daemon import Daemon
from config.jars import MIRROR_LOCK, cache_root, fetch_jars
from config.kafka import java_command

__all__ = ["COPIED", "MirrorMaker", "Region"]

COPIED = "headwater-copied"
"""Header, without a value, of a record that began in another region."""
PROPERTIES = Path(__file__).with_name("mirror.properties")
_STARTED = "Kafka MirrorMaker started"
_TRANSACTION_MS = 10_000


@dataclass(frozen=True, slots=True)
class Region:
    """A region as the others know it."""

    name: str
    """Letters and digits."""
    bootstrap: str
    """host:port list of its Kafka."""


class MirrorMaker(Daemon):
    """Copies topics from `there` to `here`, with its log and settings beside `folder`."""

    name = "mirror"
    port_names = ()
    start_seconds = 120.0

    def __init__(
        self,
        folder: Path,
        here: Region,
        there: Region,
        topics: Sequence[str],
        *,
        cache_dir: Path | None = None,
        heap_mb: int = 256,
        cancelled: threading.Event | None = None,
    ) -> None:
        """`topics` must have as many partitions in both regions."""
        super().__init__(folder, cancelled)
        self._here, self._there = here, there
        self._topics = topics
        self._cache = cache_root(cache_dir)
        self._heap_mb = heap_mb

    @property
    def _output(self) -> Path:
        return self.log.with_suffix(".out")

    def _prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        jars = fetch_jars(self._cache, MIRROR_LOCK, cancelled=self._cancelled)
        properties = self.folder / "mirror.properties"
        properties.write_text(
            PROPERTIES.read_text().format(
                here=self._here.name,
                there=self._there.name,
                here_bootstrap=self._here.bootstrap,
                there_bootstrap=self._there.bootstrap,
                topics=",".join(self._topics),
                header=COPIED,
                transaction_ms=_TRANSACTION_MS,
                replication=1,
            ),
            encoding="latin-1",
        )
        # The log of the start before does not say that this one has started.
        for file in (self.log, self._output):
            file.unlink(missing_ok=True)
        return [
            *java_command(jars, self._heap_mb, self.log),
            "org.apache.kafka.connect.mirror.MirrorMaker",
            str(properties),
            *("--clusters", self._here.name),
        ], dict(os.environ)

    def _answers(self) -> bool:
        return self.log.exists() and _STARTED in self.log.read_text(errors="replace")
