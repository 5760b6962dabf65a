"""`headwater evaluate`: how good the answers are, by protocols that others publish with.

`protocol.py` has the published splits, `evaluate_via.py` the three ways to learn and answer them,
`progressive.py` the validation on a file with times.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.progress import Progress

from commands.csv_events import EventFile
from commands.curve import RANKINGS
from commands.evaluate_via import WAYS
from commands.feed import progress_bar
from commands.process import Json, print_json, run_until_signalled, say
from commands.progressive import Progressive, read_columns
from commands.protocol import Question, Score, Split
from config.errors import HeadwaterError, SettingsError
from config.settings import Settings, load_settings

__all__ = ["Measured", "evaluate", "measure_file", "measure_split"]

_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Measured:
    """What came out."""

    via: str
    score: Score
    train_seconds: float
    query_seconds: float
    curve: list[dict[str, Any]] | None = None
    """Of progressive validation: every ranking over the time of the stream."""

    def as_json(self, data: Path) -> dict[str, Any]:
        """The JSON object of the command."""
        found: dict[str, Any] = {
            "data": str(data),
            "via": self.via,
            "hr_at_20": round(self.score.hit_rate, 2),
            "mrr_at_20": round(self.score.reciprocal_rank, 2),
            "queries": self.score.queries,
            "train_seconds": round(self.train_seconds, 3),
            "microseconds_per_query": round(
                1e6 * self.query_seconds / max(self.score.queries, 1), 1
            ),
        }
        return found if self.curve is None else {**found, "curve": self.curve}


def _at_least_one(kind: object, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError("It must be at least 1.")


def evaluate(
    data: Path,
    *,
    via: Literal["fold", "redis", "http"] = "fold",
    limit: Annotated[int | None, Parameter(validator=_at_least_one)] = None,
    json: Json = False,
) -> int:
    """Measure HR@20 and MRR@20, in percent (docs/evaluation.md).

    Parameters
    ----------
    data
        A folder with train.jsonl.gz and test.jsonl.gz, or a CSV file of events for progressive
        validation.
    via
        Where to learn and ask: counts in memory, a Redis, or a whole deployment over HTTP. A CSV
        file knows fold alone.
    limit
        Ask the first so many questions only.
    """
    settings = load_settings()
    if not data.exists():
        raise SettingsError(f"{data} does not exist: give a folder or a CSV file")
    is_split = data.is_dir()
    if not is_split and via != "fold":
        raise SettingsError(
            f"--via {via} is for a folder with a published split: progressive validation of a CSV "
            "file runs in memory, with --via fold"
        )
    measured: list[Measured] = []

    async def work() -> None:
        with progress_bar() as bar:
            if is_split:
                measured.append(await measure_split(Split(data), settings, via, limit, bar))
            else:
                file = EventFile(data, settings.events)
                measured.append(await measure_file(file, settings, limit, bar))

    run_until_signalled(work)
    if not measured:
        return _INTERRUPTED
    result = measured[0].as_json(data)
    if json:
        print_json(result)
    else:
        curve = result.pop("curve", [])
        for name, value in result.items():
            print(f"{name:<22} {value}")
        for part in curve:
            told = ", ".join(
                f"{name} {part[name]['hr_at_20']:.2f} / {part[name]['mrr_at_20']:.2f}"
                for name in RANKINGS
            )
            print(f"until {part['until']:<16.0%} {told}")
    return 0


async def measure_split(
    split: Split, settings: Settings, via: str, limit: int | None, bar: Progress
) -> Measured:
    """Learn a split's sessions and answer its questions. `via` is one of `evaluate_via.WAYS`."""
    questions = split.questions(limit)
    score = Score()
    async with WAYS[via](settings) as way:
        events = sum(len(session) for session in split.sessions)
        learning = bar.add_task("learning", total=events, note=f"{events:,} events")
        begin = time.perf_counter()
        await way.learn(split, lambda count: bar.update(learning, completed=count))
        learned = time.perf_counter()
        asking = bar.add_task("asking", total=len(questions), note=f"{len(questions):,} questions")
        waiting = iter(questions)

        async def ask(waiting: Iterator[Question]) -> None:
            for question in waiting:
                score.add(await way.rank(question))
                if score.queries % 256 == 0:
                    bar.update(asking, completed=score.queries)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(way.concurrency):
                    group.create_task(ask(waiting))
        except* HeadwaterError as failed:  # the others were cancelled by the first
            raise failed.exceptions[0] from None
        bar.update(asking, completed=score.queries)
        return Measured(via, score, learned - begin, time.perf_counter() - learned)


async def measure_file(
    file: EventFile, settings: Settings, limit: int | None, bar: Progress
) -> Measured:
    """Progressive validation of a file of events."""
    columns, problems = read_columns(file)
    if problems:
        say(f"{file.path}: {len(problems):,} rows rejected and left out; {problems[0]}")
    run = Progressive(settings, columns, limit)
    task = bar.add_task("predicting and learning", total=run.chunks(), note="")
    begin = time.perf_counter()
    asked = 0.0
    for chunk in range(run.chunks()):
        seconds, enough = run.step(chunk, time.perf_counter)
        asked += seconds
        score = run.curve.whole["served"]
        bar.update(task, completed=chunk + 1, note=f"HR@20 {score.hit_rate:.1f} %")
        await asyncio.sleep(0)  # lets a signal through
        if enough:
            break
    seconds = time.perf_counter() - begin - asked
    return Measured("fold", run.curve.whole["served"], seconds, asked, run.curve.as_json())
