"""A Redis that speaks TLS: the one in the wheels does not.

`make test` fetches Debian's packages, where there are any, and unpacks them beside the clone's
other data; nothing is installed, so that all other tests go on with the Redis they have.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["find_tls_redis", "libraries_of"]

HOME = Path(__file__).parents[1] / ".headwater" / "tls-redis"
PACKAGES = ("redis-tools", "libjemalloc2", "liblzf1")
"""The server itself is in the first one, under the name of a tool that it is as well."""


def find_tls_redis() -> str | None:
    """Path of a server that can do it; None where there is none."""
    named = filter(None, (shutil.which("redis-server"), shutil.which("valkey-server")))
    for path in (*named, str(HOME / "usr" / "bin" / "redis-server")):
        if Path(path).exists() and _can(path):
            return path
    return None


def libraries_of(path: str) -> str:
    """Folder of the libraries that were unpacked with a server; empty for one of the system."""
    found = glob.glob(str(HOME / "usr" / "lib" / "*" / "libjemalloc.so.2"))
    return str(Path(found[0]).parent) if found and path.startswith(str(HOME)) else ""


def _can(path: str) -> bool:
    """One that can complains of its configuration, another one that it cannot."""
    done = subprocess.run(
        [path, "--port", "0", "--tls-port", "1", "--tls-cert-file", "/none"],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "LD_LIBRARY_PATH": libraries_of(path)},
    )
    return "configure TLS" in done.stdout


def _fetch() -> None:
    HOME.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME.parent) as scratch:
        download = ("apt-get", "-qq", "download", *PACKAGES)
        if not _goes(scratch, *download) and os.geteuid() == 0:
            _goes(scratch, "apt-get", "-qq", "update")
            _goes(scratch, *download)
        for package in Path(scratch).glob("*.deb"):
            _goes(scratch, "dpkg-deb", "-x", str(package), str(HOME))
    tool = HOME / "usr" / "bin" / "redis-check-rdb"
    server = tool.with_name("redis-server")
    if tool.exists() and not server.exists():
        server.symlink_to(tool.name)


def _goes(folder: str, *command: str) -> bool:
    return not subprocess.run(command, cwd=folder, capture_output=True, timeout=300).returncode


if __name__ == "__main__":
    if find_tls_redis() is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        print("fetching a Redis that speaks TLS", file=sys.stderr)
        _fetch()
    if find_tls_redis() is None:
        print("no Redis that speaks TLS; tests of it are skipped", file=sys.stderr)
