"""docs/quickstart.md, run as it is written."""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from commands.stack import child_environment
from config.services import Services
from tests.conftest import own_settings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/quickstart.md").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 60.0
"""For one block; a block after "wait until" is run again and again for as long."""
AGAIN_SECONDS = 0.2
STARTED = "headwater up"
GIVEN = ("HEADWATER_KAFKA__BOOTSTRAP", "HEADWATER_REDIS__URL")
END = "--- end of block ---"


@dataclass
class Block:
    """Commands, and what the page says that they print."""

    commands: str
    expected: str | None
    waits: bool
    """The text before it says "wait until"."""


def blocks(page: str) -> list[Block]:
    """The page's `sh` blocks; a `text` block is what those before it print."""
    found: list[Block] = []
    before = 0
    for match in FENCE.finditer(page):
        kind, text = match.groups()
        prose, before = page[before : match.start()], match.end()
        if kind == "sh":
            found.append(Block(text, None, "wait until" in prose.lower()))
        else:
            assert kind == "text"
            assert found, "printed by nothing"
            assert found[-1].expected is None
            assert not prose.strip(), f"between commands and what they print: {prose}"
            found[-1].expected = text
    return found


def is_as_shown(printed: str, expected: str) -> bool:
    """Whether it is literally what the page shows, with anything in place of each `…`; spaces at
    the ends of lines do not count.
    """
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("…"))
    lines = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    return re.fullmatch(pattern, lines, re.DOTALL) is not None


class Shell:
    """One shell that runs block after block, as a terminal does. Its stderr is ours."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def run(self, commands: str) -> str:
        """What the commands print. Fails when that takes too long, or the shell ends."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{commands}\nprintf '\\n%s\\n' '{END}'\n")
        self._process.stdin.flush()
        printed = ""
        limit = time.monotonic() + SECONDS
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, limit - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"not within {SECONDS} s, or the shell ended: {commands}{printed}")
            if line.strip() == END:
                return printed
            printed += line

    def close(self) -> None:
        """Nothing that it started is left running."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)


@contextmanager
def _shell(folder: Path, env: dict[str, str]) -> Iterator[Shell]:
    shell = Shell(folder, env)
    try:
        yield shell
    finally:
        shell.run('kill "$UP" 2>/dev/null; wait')
        shell.close()


def _make_clone(folder: Path) -> None:
    """What `make setup` and the commands need of the project, its environment included."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (folder / name).symlink_to(ROOT / name)
    environment = folder / ".venv"
    environment.mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".installed":
            (environment / part.name).symlink_to(part)
    (environment / ".installed").touch()  # newer than what it is made from: nothing is left to do


@pytest.fixture
def clone(services: Services, tmp_path: Path) -> Iterator[Shell]:
    """A shell in a folder like a clone's, with services that run and a free port."""
    folder = tmp_path / "clone"
    folder.mkdir()
    _make_clone(folder)
    settings = own_settings(services, folder / ".headwater", partitions=2)
    with _shell(folder, child_environment(settings)) as shell:
        yield shell


def test_what_is_printed_is_compared() -> None:
    assert is_as_shown('{"a":1,"b":2}\n', '{"a":…,"b":2}\n')
    assert not is_as_shown('{"a":1,"b":3}\n', '{"a":…,"b":2}\n')
    assert not is_as_shown("more\nconsole: http://a/\n", "console: http://…/\n")
    some = blocks(
        "Wait until it is:\n\n```sh\ndate\n```\n\n```text\n…\n```\n\nThen\n\n```sh\nls\n```\n"
    )
    assert some == [Block("date\n", "…\n", True), Block("ls\n", None, False)]


def test_every_command_of_the_quickstart_does_what_it_says(clone: Shell) -> None:
    some = blocks(PAGE)
    assert len(some) > 10
    for block in some:
        if STARTED in block.commands:  # given to `up` alone: who reads the page has none set
            clone.run(f"{block.commands}\nunset {' '.join(GIVEN)}")
            continue
        limit = time.monotonic() + (SECONDS if block.waits else 0)
        while True:
            printed = clone.run(block.commands)
            print(block.commands, printed, sep="\n")
            if block.expected is None or is_as_shown(printed, block.expected):
                break
            if time.monotonic() > limit:
                pytest.fail(f"{block.commands}\nprinted\n{printed}\nnot\n{block.expected}")
            time.sleep(AGAIN_SECONDS)
