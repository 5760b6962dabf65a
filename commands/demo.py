"""`headwater demo`: everything on this machine, and a stream of what people really did.

The deployment lives in a folder of its own that is removed at the end, so every demo begins with
nothing known. `movielens.py` has the data; `--data` takes a file instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import numpy as np
from redis.exceptions import RedisError
from yarl import URL

from commands.csv_events import EventFile
from commands.feed import Rate, progress_bar, send_events, send_items
from commands.item_files import ItemFile
from commands.movielens import fetch_movielens
from commands.process import Json, in_thread, run_until_signalled, say
from commands.stack import Stack
from commands.up import announce
from config.errors import ServiceError, SettingsError
from config.settings import EventSettings, Settings, load_settings
from store.connect import connect
from store.generations import Generations
from store.reader import StoreReader
from streams.columns import hash_id
from streams.event import Event, Rejection, time_of
from streams.item import CatalogueItem

__all__ = ["DemoData", "as_if_this_week", "demo", "from_file"]

DEFAULT_RATE = 2000.0
_DAYS = 6
_USERS = 3
_SHOWN = 5
_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 15.0
_REMEMBERED_SECONDS = 2.5
_STALLED_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class DemoData:
    """What the demo streams."""

    name: str
    total: int
    """Number of events."""
    earliest: int
    """Time of the first event, ms since 1970."""
    latest: int
    """Time of the latest event, ms since 1970."""
    events: Callable[[], Iterator[Event]]
    """All events with the times that they had."""
    items: list[CatalogueItem]


def demo(*, data: Path | None = None, rate: Rate = DEFAULT_RATE, json: Json = False) -> None:
    """Start everything here and stream real events through it; stop it all on a signal.

    Parameters
    ----------
    data
        CSV of events to stream instead of MovieLens-100K, in the form that `headwater feed` takes;
        titles come from the items.csv or items.csv.gz beside it.
    rate
        Events a second.
    """
    settings = load_settings()
    given = from_file(data, settings.events) if data is not None else None
    home = settings.services.data_dir.expanduser().absolute()

    async def work() -> None:
        chosen = given or await _movielens(settings)
        with _scratch(home) as folder:
            services = settings.services.model_copy(update={"data_dir": folder})
            own = settings.model_copy(update={"services": services})
            async with Stack(own) as stack:
                streaming = asyncio.create_task(_stream(stack, chosen, rate or DEFAULT_RATE, json))
                failed = asyncio.create_task(stack.failed())
                try:
                    await asyncio.wait({streaming, failed}, return_when=asyncio.FIRST_COMPLETED)
                    if streaming.done():
                        await streaming
                    await failed  # the console stays up until a signal comes
                finally:
                    streaming.cancel()
                    failed.cancel()
                    await asyncio.gather(streaming, failed, return_exceptions=True)

    run_until_signalled(work)


def from_file(path: Path, settings: EventSettings) -> DemoData:
    """The demo of a CSV file, with the catalogue beside it where there is one.

    Raises SettingsError where the file is missing, lacks a column or holds no event.
    """
    file = EventFile(path, settings)
    total, earliest, latest = file.span()
    if not total:
        raise SettingsError(f"{path} has no event that could be sent")
    beside = (path.with_name("items.csv"), path.with_name("items.csv.gz"))
    catalogue = next((one for one in beside if one.is_file() and one != path), None)
    items = [
        row.item
        for row in (ItemFile(catalogue).rows() if catalogue is not None else ())
        if isinstance(row.item, CatalogueItem)
    ]

    def events() -> Iterator[Event]:
        return (row.event for row in file.rows() if not isinstance(row.event, Rejection))

    return DemoData(path.name, total, earliest, latest, events, items)


async def _movielens(settings: Settings) -> DemoData:
    known = settings.events.weights
    if "view" not in known or "like" not in known:
        raise SettingsError(
            "the demo needs the event types view and like in setting events.weights"
        )
    found = await fetch_movielens(settings.services.cache_dir)
    times = [time_of(event) for event in found.events]
    return DemoData(
        "MovieLens-100K",
        len(times),
        min(times),
        max(times),
        lambda: iter(found.events),
        found.items,
    )


def as_if_this_week(
    events: Iterable[Event], earliest: int, latest: int, now: int, pause_ms: float
) -> Iterator[Event]:
    """The events with times as if the last were now and the first at most _DAYS ago.

    So a click that somebody adds while older ones still stream is no leap in time that would empty
    every trending window. Pauses shrink with the rest; sessions keep what they were by their ids.
    """
    pace = min(1.0, _DAYS * 86_400_000 / max(1, latest - earliest))
    last: dict[str, int] = {}
    begun: dict[str, int] = {}
    for event in events:
        time, user = time_of(event), event.user_id
        if time - last.get(user, time) >= pause_ms or user not in begun:
            begun[user] = time
        last[user] = time
        yield msgspec.structs.replace(
            event,
            timestamp=now - int((latest - time) * pace),
            session_id=event.session_id or f"{begun[user]:x}",
        )


async def _stream(stack: Stack, data: DemoData, rate: float, json: bool) -> None:
    """Send everything, announce once answers can be had, and show some at the end."""
    settings = stack.settings
    now = int(time.time() * 1000)
    pause_ms = settings.events.session_pause_minutes * 60_000
    latest_users: deque[str] = deque(maxlen=1000)
    say(f"streaming {data.name}: {data.total:,} events, {rate:,.0f} a second")
    with progress_bar() as bar:
        task = bar.add_task(data.name, total=data.total, note="")

        def events() -> Iterator[Event]:
            found = as_if_this_week(data.events(), data.earliest, data.latest, now, pause_ms)
            for event in found:
                latest_users.append(event.user_id)
                yield event

        stop = threading.Event()

        def send() -> int:
            return send_events(
                settings,
                events(),
                rate=rate,
                on_sent=lambda count: bar.update(task, completed=count, note=f"{count:,} events"),
                stop=stop,
            )

        async def send_and_wait() -> None:
            await in_thread(lambda: send_items(settings, data.items))
            await _until_known(settings, data.items)
            await _until_counted(settings, await in_thread(send, stop.set))

        counted = asyncio.create_task(send_and_wait())
        try:
            async with _client(stack) as http:
                await _until_answering(http, counted)
            announce(stack, json)
            await counted
        finally:
            counted.cancel()
            await asyncio.gather(counted, return_exceptions=True)
    async with _client(stack) as http:
        await _show(http, list(dict.fromkeys(reversed(latest_users)))[:_USERS], json)


def _client(stack: Stack) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
    return aiohttp.ClientSession(stack.http_url, timeout=timeout)


async def _until_answering(http: aiohttp.ClientSession, counted: asyncio.Task[None]) -> None:
    """Wait until something trends and goes with enough else to recommend.

    Data too small for that are waited for to the end; raises what ended `counted` early.
    """
    last_look = False
    while not last_look:
        if counted.done():
            counted.result()
            # What servers remember of a moment ago is gone by now.
            await asyncio.sleep(_REMEMBERED_SECONDS)
            last_look = True
        trending = await _items(http, "/v1/trending?n=3")
        if trending:
            item = quote(trending[0]["item_id"], safe="")
            if len(await _items(http, f"/v1/items/{item}/similar?n={_SHOWN}")) == _SHOWN:
                return
        await asyncio.sleep(_POLL_SECONDS)


async def _until_known(settings: Settings, items: list[CatalogueItem]) -> None:
    """Wait until the store has the catalogue, so that nothing is shown without its title."""
    ids = np.array([hash_id(item.item_id) for item in items], np.uint64)

    async def known(reader: StoreReader) -> int:
        return sum(text.catalogue is not None for text in await reader.texts(ids))

    await _until_stored(settings, known, len(items), "items")


async def _until_counted(settings: Settings, sent: int) -> None:
    """Wait until the store counts as many events as were sent, or more: others may send too."""

    async def counted(reader: StoreReader) -> int:
        return (await reader.totals()).get("events", 0)

    await _until_stored(settings, counted, sent, "events")


async def _until_stored(
    settings: Settings, count: Callable[[StoreReader], Awaitable[int]], wanted: int, what: str
) -> None:
    redis = connect(settings)
    try:
        live = await Generations(redis, settings).live_or_first(settings)
        reader = StoreReader(redis, live.overlaid(settings), live.number)
        stored, moved = -1, time.monotonic()
        while stored < wanted:
            found = await count(reader)
            if found != stored:
                stored, moved = found, time.monotonic()
            elif time.monotonic() - moved > _STALLED_SECONDS:
                raise ServiceError(
                    f"{stored:,} of {wanted:,} {what} reached the store, and nothing more for "
                    f"{_STALLED_SECONDS:.0f} s; look at the worker's log"
                )
            await asyncio.sleep(_POLL_SECONDS)
    except RedisError as error:
        raise ServiceError(f"Redis does not answer: {error}") from error
    finally:
        await redis.aclose()


async def _show(http: aiohttp.ClientSession, users: list[str], json: bool) -> None:
    """Say what these users are recommended: on stdout, or on stderr beside `--json`."""
    tell = say if json else _print
    tell("all events are counted; recommended now, for example,")
    for user in users:
        items = await _items(http, f"/v1/recommendations/{quote(user, safe='')}?n={_SHOWN}")
        titles = " · ".join(item.get("title") or item["item_id"] for item in items)
        tell(f"  to {user}: {titles}")
    tell("Ctrl-C ends the demo")


async def _items(http: aiohttp.ClientSession, path: str) -> list[dict[str, Any]]:
    """The items of an answer. Raises ServiceError when there is none for too long."""
    limit = time.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            async with http.get(URL(path, encoded=True)) as answer:
                answer.raise_for_status()
                items: list[dict[str, Any]] = (await answer.json())["items"]
                return items
        except (aiohttp.ClientError, TimeoutError) as error:
            if time.monotonic() > limit:
                raise ServiceError(f"the server does not answer {path}: {error!r}") from error
            await asyncio.sleep(_POLL_SECONDS)


def _print(line: str) -> None:
    print(line, flush=True)


@contextlib.contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    """A folder for one demo, removed with all it holds."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix="demo-", dir=home, ignore_cleanup_errors=True)
    except OSError as error:
        raise ServiceError(
            f"the demo cannot write to {home}: {error}; "
            "set HEADWATER_SERVICES__DATA_DIR to a folder that can be written"
        ) from error
    with scratch as folder:
        yield Path(folder)
