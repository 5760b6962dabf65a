"""Fetches the jars that Kafka consists of, exactly those that `kafka.lock` names; those that copy
one Kafka into another are in `mirror.lock`.

A lock file is jgo's format: coordinates and SHA-256 of every jar. The jars go into one folder
of the user's cache, named by the lock's content, and every use of that folder checks them again.
`python -m config.jars` resolves the coordinates below anew and writes the locks.
Next: `kafka.py`, which runs them, and `mirror.py`.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config.errors import ServiceError

__all__ = ["LOCK", "MIRROR_LOCK", "cache_root", "fetch_jars", "write_lock"]

LOCK = Path(__file__).with_name("kafka.lock")
MIRROR_LOCK = Path(__file__).with_name("mirror.lock")
REPOSITORY = "https://repo.maven.apache.org/maven2"
# Kafka logs through slf4j 1.7; its POM leaves the choice of the binding to whoever runs it.
_BINDING = ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3")
COORDINATES = {
    LOCK: (("org.apache.kafka", "kafka_2.13", "4.1.1"), _BINDING),
    MIRROR_LOCK: (("org.apache.kafka", "connect-mirror", "4.1.1"), _BINDING),
}
ATTEMPTS = 3


def cache_root(configured: Path | None) -> Path:
    """The folder that jars are kept in: `services.cache_dir`, else the user's cache folder."""
    if configured is not None:
        return configured.expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "headwater"


def fetch_jars(
    cache: Path,
    lock: Path = LOCK,
    repository: str = REPOSITORY,
    cancelled: threading.Event | None = None,
) -> list[Path]:
    """Return the jars of `lock` in its order, fetching what `cache` does not hold intact.

    Two processes may call this at once: one fetches, the other waits and finds the result.
    Raises ServiceError when a jar cannot be fetched, is not what the lock says, or when
    `cancelled` is set meanwhile.
    """
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = cache / f"{lock.stem}-{digest}"
    jars = _read(lock)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{folder.name}.lock"):
            bad = _broken(folder, jars)
            if bad:
                _fetch(folder, bad, repository, cancelled or threading.Event())
    except OSError as error:
        raise ServiceError(
            f"Kafka's jars cannot be kept in {cache}: {error}; "
            "set HEADWATER_SERVICES__CACHE_DIR to a folder that can be written"
        ) from error
    return [folder / name for name in jars]


def write_lock(lock: Path = LOCK, repository: str = REPOSITORY) -> int:
    """Resolve what `lock` is of with all that it needs, write it, return the number of jars."""
    from jgo.env import LockFile
    from jgo.maven import MavenContext
    from jgo.parse import Coordinate

    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch), remote_repos={"central": repository})
        wanted = [
            # raw: the binding's own version management must not decide for Kafka's jars
            context.create_dependency(Coordinate(*coordinate, scope="runtime", raw=index > 0))
            for index, coordinate in enumerate(COORDINATES[lock])
        ]
        given, needed = context.resolver.resolve(wanted)
        needed = [one for one in needed if one.scope in ("compile", "runtime")]
        LockFile.from_resolved_dependencies(
            [*given, *needed], environment_name=lock.stem, min_java_version=17
        ).save(lock)
    return len(given) + len(needed)


def _read(lock: Path) -> dict[str, Any]:
    """File name → locked dependency, in the order of the file."""
    from jgo.env import LockFile

    found = {f"{one.artifactId}-{one.version}.jar": one for one in LockFile.load(lock).dependencies}
    for name, one in found.items():
        if not one.sha256:
            raise ServiceError(f"{lock.name} has no checksum for {name}: write the lock anew")
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _broken(folder: Path, jars: dict[str, Any]) -> dict[str, Any]:
    """Those of `jars` that the folder lacks or holds with other content."""

    def intact(name: str) -> bool:
        path = folder / name
        return path.is_file() and _sha256(path) == jars[name].sha256

    with ThreadPoolExecutor(4) as pool:
        good = list(pool.map(intact, jars))
    return {name: jars[name] for name, ok in zip(jars, good, strict=True) if not ok}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(folder: Path, jars: dict[str, Any], repository: str, cancelled: threading.Event) -> None:
    """Fetch into a scratch folder and move each jar into place once its checksum holds."""
    from jgo.maven import MavenContext

    logging.getLogger(__name__).info("fetching %d jars of Kafka to %s", len(jars), folder)
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder.parent))
    context = MavenContext(
        repo_cache=scratch, local_repos=[], remote_repos={"central": repository}, timeout=15
    )

    def fetch(name: str) -> None:
        wanted = jars[name]
        artifact = (
            context.project(wanted.groupId, wanted.artifactId).at_version(wanted.version).artifact()
        )
        problem = ""
        for _ in range(ATTEMPTS):
            if cancelled.is_set():
                raise ServiceError("fetching Kafka was interrupted")
            try:
                path = artifact.resolve()
            except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
                problem = str(error)
                artifact.cached_path.unlink(missing_ok=True)
                continue
            if _sha256(path) == wanted.sha256:
                path.replace(folder / name)
                return
            problem = "its checksum is not the one in the lock file"
            path.unlink()
        raise ServiceError(
            f"{name} cannot be fetched from {repository}: {problem}; check the network, "
            "or name a Kafka that runs with HEADWATER_KAFKA__BOOTSTRAP"
        )

    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fetch, jars))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    for written in COORDINATES:
        print(f"{write_lock(written)} jars in {written}")
