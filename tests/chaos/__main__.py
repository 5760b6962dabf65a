"""`python -m tests.chaos [FAULT …]`: runs the table of faults, or some of it, one row each.

Ends with 1 when a row failed. The rows go to stderr as they come, and to a file with --json.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Self

import orjson
import uvloop
from cyclopts import App, Parameter

from config.settings import load_settings
from tests.chaos.row import HEAD, Row
from tests.chaos.run import Fault, Worlds, run
from tests.chaos.table import FAULTS
from tests.chaos.world import Skipped, World

__all__ = ["main"]

app = App(name="python -m tests.chaos", help_format="plaintext")


class _Worlds:
    """One world at a time, which runs share until they want another or have left it broken."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._number = 0
        self._made_by: Worlds | None = None
        self._now: World | None = None
        self._exits = AsyncExitStack()

    async def of(self, fault: Fault) -> World:
        """A world for one run. Raises Skipped."""
        if self._now is None or self._made_by is not fault.world or not self._now.whole():
            await self.close()
            self._number += 1
            folder = self._home / f"world-{self._number}"
            self._exits.callback(shutil.rmtree, folder, ignore_errors=True)
            self._now = await self._exits.enter_async_context(fault.world(folder))
            self._made_by = fault.world
        return self._now

    async def close(self) -> None:
        """Stop what runs."""
        self._now = None
        await self._exits.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _write(path: Path, rows: Sequence[Row]) -> None:
    found = [row.as_json() for row in rows]
    path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


async def run_all(
    faults: Sequence[Fault], home: Path, seed: int, *, keep: bool, json: Path | None
) -> list[Row]:
    """Run faults one after the other, telling each row as it comes."""
    rows: list[Row] = []
    print(f"seed {seed}\n{HEAD}", file=sys.stderr, flush=True)
    async with _Worlds(home) as worlds:
        for fault in faults:
            folder = home / fault.name
            try:
                row = await run(fault, await worlds.of(fault), folder, seed)
            except Skipped as skipped:
                row = Row(fault.name, fault.what, seed, skipped=str(skipped))
            rows.append(row)
            if json is not None:
                _write(json, rows)
            print(row.line, file=sys.stderr, flush=True)
            if row.failures:
                await worlds.close()  # what it left may be anything
                print(f"  its logs: {folder / 'logs'}", file=sys.stderr)
                for note in row.notes:
                    print(f"  {note}", file=sys.stderr)
            elif not keep:
                shutil.rmtree(folder, ignore_errors=True)
    return rows


@app.default
def main(
    *names: str,
    json: Annotated[Path | None, Parameter(name="--json")] = None,
    seed: int | None = None,
    keep: bool = False,
) -> int:
    """Run the table of faults.

    Parameters
    ----------
    names
        Faults to run; all where none is named.
    json
        File that the rows are written to.
    seed
        What chance begins with; printed where it is not given.
    keep
        Leave the logs of all runs, not just of those that failed.
    """
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        print(f"no fault {unknown[0]}; there are: {' '.join(FAULTS)}", file=sys.stderr)
        return 2
    # A million events are kept and compared: looking through them for cycles, again and again,
    # takes half as long as the comparison.
    gc.set_threshold(100_000, 50, 1000)
    # Every kill is told in the row.
    logging.getLogger("config.supervisor").setLevel(logging.ERROR)
    load_settings()  # what is wrong with the environment is said at once
    # Those that share a world come one after the other.
    chosen = [FAULTS[name] for name in names or FAULTS]
    order = list(dict.fromkeys(fault.world for fault in chosen))
    chosen.sort(key=lambda fault: order.index(fault.world))
    seed = secrets.randbelow(1 << 32) if seed is None else seed
    home = Path(tempfile.mkdtemp(prefix="headwater-chaos-"))
    began = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(run_all(chosen, home, seed, keep=keep, json=json))
    failed = [row.fault for row in rows if row.failures]
    print(
        f"{len(rows)} faults in {(time.monotonic() - began) / 60:.1f} min; "
        f"failed: {', '.join(failed) or 'none'}",
        file=sys.stderr,
    )
    if keep:
        print(f"logs: {home}", file=sys.stderr)
    elif not failed:
        shutil.rmtree(home, ignore_errors=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(app())
