"""`headwater feed`: a CSV of events, and maybe of items, to Kafka at a steady rate.

`send_events` also serves the demo and the evaluation.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from commands.csv_events import EventFile, problem_of
from commands.item_files import ItemFile
from commands.process import Json, TenantName, print_json, say
from config.errors import SettingsError
from config.settings import Settings, load_settings
from config.tenants import named_tenant
from streams.event import Event, Rejection
from streams.item import CatalogueItem
from streams.producer import EventProducer, RecordProducer
from streams.topics import ensure_topics

__all__ = ["Rate", "feed", "progress_bar", "send_events", "send_items"]

_SHOWN_REJECTIONS = 5
_TICK_SECONDS = 0.01
_ENCODER = msgspec.json.Encoder()


def _positive(kind: object, value: float | None) -> None:
    if value is not None and not 0 < value <= 10_000_000:
        raise ValueError("It must be above 0 and at most 10,000,000.")


Rate = Annotated[float | None, Parameter(validator=_positive)]


def feed(
    file: Path,
    *,
    rate: Rate = None,
    items: Path | None = None,
    shift_to_now: Annotated[bool, Parameter(negative=())] = False,
    tenant: TenantName = None,
    json: Json = False,
) -> None:
    """Send a CSV of events to Kafka; rows that break a rule are reported and left out.

    Parameters
    ----------
    file
        CSV, plain or gzip, with the columns timestamp_ms, user_id, item_id, type and maybe
        session_id, in any order.
    rate
        Events a second; as fast as possible by default.
    items
        the catalogue, sent first, in the form that `headwater items` takes.
    shift_to_now
        Move all times by one constant so that the latest event is now.
    tenant
        Whose events they are; the one that is not named by default.
    """
    settings = named_tenant(load_settings(), tenant)
    source = EventFile(file, settings.events)
    catalogue = list(ItemFile(items).rows()) if items is not None else []
    shift = 0
    if shift_to_now:
        count, _, latest = source.span()
        if not count:
            raise SettingsError(f"{file} has no event that could be sent")
        shift = int(time.time() * 1000) - latest
    kafka = settings.kafka
    sent_to = [kafka.events_topic, *([] if items is None else [kafka.items_topic])]
    ensure_topics(settings, needed=sent_to)
    good = [row.item for row in catalogue if isinstance(row.item, CatalogueItem)]
    bad = [problem_of(row.line, row.item) for row in catalogue if isinstance(row.item, Rejection)]
    if items is not None:
        send_items(settings, good)
        _report(items, bad, len(bad))
    problems: list[str] = []
    rejected = 0
    begin = time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task(file.name, total=source.size, note="")

        def events() -> Iterator[Event]:
            nonlocal rejected
            for row in source.rows(shift):
                if isinstance(row.event, Rejection):
                    rejected += 1
                    if len(problems) < _SHOWN_REJECTIONS:
                        problems.append(problem_of(row.line, row.event))
                    continue
                yield row.event
                bar.update(task, completed=row.position)

        def sent(count: int) -> None:
            bar.update(task, note=f"{count:,} events")

        count = send_events(settings, events(), rate=rate, on_sent=sent)
        bar.update(task, completed=source.size)
    seconds = time.monotonic() - begin
    _report(file, problems, rejected)
    if json:
        print_json({"events": count, "seconds": round(seconds, 3), "rejected": rejected})
    else:
        print(f"{count:,} events in {seconds:.1f} s, {rejected:,} rejected")


def send_events(
    settings: Settings,
    events: Iterable[Event],
    *,
    rate: float | None = None,
    on_sent: Callable[[int], None] = lambda count: None,
    stop: threading.Event | None = None,
) -> int:
    """Send events, `rate` a second at a steady pace, and return how many once the broker has them.

    `on_sent` hears the count about a hundred times a second at most; setting `stop` from another
    thread ends it early. Raises StreamError when the broker does not take them.
    """
    stop = stop or threading.Event()
    count = 0
    begin = told = time.monotonic()
    with EventProducer(settings.kafka, settings.kafka.events_topic) as producer:
        for event in events:
            if stop.is_set():
                break
            producer.send(event)
            count += 1
            if count % 64 and rate is None:
                continue  # the clock is not asked for every event
            now = time.monotonic()
            if now - told >= _TICK_SECONDS:
                told = now
                on_sent(count)
            # Ahead of the pace by a tick: pausing after every single event would not be exact.
            ahead = count / rate - (now - begin) if rate is not None else 0.0
            if ahead >= _TICK_SECONDS:
                stop.wait(ahead)
    on_sent(count)
    return count


def send_items(settings: Settings, items: Iterable[CatalogueItem]) -> int:
    """Send catalogue entries; returns how many once the broker has them. Raises StreamError."""
    count = 0
    with RecordProducer(settings.kafka) as producer:
        for item in items:
            value = _ENCODER.encode(item)
            producer.publish(settings.kafka.items_topic, item.item_id.encode(), value)
            count += 1
    return count


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr; tasks have a field `note`. Nothing is drawn where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield bar


def _report(file: Path, problems: list[str], rejected: int) -> None:
    if rejected:
        say(f"{file}: {rejected:,} rows rejected and not sent, the first of them")
        for problem in problems[:_SHOWN_REJECTIONS]:
            say(f"  {problem}")
