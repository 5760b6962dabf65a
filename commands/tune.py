"""`headwater tune`: the constants of counting and ranking, found on the newest training sessions.

The newest 7 % of a split's training sessions are held out; up to 3,000 of their prefixes, drawn
with a fixed seed, are the questions. What is older is counted (its newest million events, which
bounds time and memory). `test.jsonl.gz` is never read. `tuning.py` has the search, and when it
takes a step to be more than noise.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from commands.feed import progress_bar
from commands.process import Json, print_json, run_until_signalled
from commands.protocol import Split
from commands.tuning import Measure, Search, held_out
from config.errors import SettingsError
from config.settings import load_settings

__all__ = ["tune"]

_INTERRUPTED = 130


def tune(
    data: Path,
    *,
    output: Path = Path("headwater.toml"),
    trials: Annotated[int, Parameter(validator=Number(gte=1))] = 100,
    json: Json = False,
) -> int:
    """Find the constants of ranking on the newest training sessions, and write a settings file.

    Parameters
    ----------
    data
        A folder with train.jsonl.gz and test.jsonl.gz, of which the second is not read.
    output
        File for the settings that differ from the defaults; it must not exist yet.
    trials
        Settings that are measured, at most.
    """
    settings = load_settings()
    if not data.is_dir():
        raise SettingsError(f"{data} is no folder: give one with train.jsonl.gz and test.jsonl.gz")
    _must_be_new(output)
    begin = time.monotonic()
    split = Split(data)
    questions = held_out(split)
    found: list[Search] = []

    async def work() -> None:
        with progress_bar() as bar:
            search = Search(Measure(split, questions, settings), trials, bar)
            await search.run()
            found.append(search)

    run_until_signalled(work)
    if not found:
        return _INTERRUPTED
    search = found[0]
    result = {
        "data": str(data),
        **search.best.as_json(),
        "default": search.default.as_json(),
        "settings": search.changed(),
        "file": str(output),
        "questions": len(questions),
        "trials": search.trials,
        "seconds": round(time.monotonic() - begin, 1),
    }
    _write(output, search)
    if json:
        print_json(result)
    else:
        for name, value in result.items():
            print(f"{name:<12} {value}")
    return 0


def _must_be_new(output: Path) -> None:
    if output.exists():
        raise SettingsError(
            f"{output} exists and is left as it is: name another file with --output"
        )
    if not output.absolute().parent.is_dir():
        raise SettingsError(
            f"{output.parent} is no folder: make it, or name another file with --output"
        )


def _write(output: Path, search: Search) -> None:
    """A settings file. Raises SettingsError where it cannot be written."""
    told, before = search.best.as_json(), search.default.as_json()
    lines = [
        "# Found by `headwater tune`. On the newest training sessions, HR@20 / MRR@20 in percent:",
        f"# {told['hr_at_20']} / {told['mrr_at_20']}, with the defaults "
        f"{before['hr_at_20']} / {before['mrr_at_20']}.",
    ]
    changed = search.changed()
    for group in ("fold", "rank"):
        mine = [f"{n.split('.')[1]} = {v!r}" for n, v in changed.items() if n.startswith(group)]
        if mine:
            lines += ["", f"[{group}]", *mine]
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write("\n".join([*lines, ""]))
    except OSError as error:
        raise SettingsError(
            f"{output} cannot be written ({error.strerror}): name another file with --output"
        ) from None
