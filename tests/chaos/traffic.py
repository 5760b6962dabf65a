"""Events into Kafka and requests to the server, each at a steady rate whatever comes back."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable
from random import Random

import aiohttp

from config.errors import StreamError
from streams.event import Event
from streams.producer import EventProducer

__all__ = ["ITEMS", "MINUTE", "USERS", "Asker", "MakeEvents", "Sender", "make_events"]

USERS, ITEMS = 400, 60
MINUTE = 60_000
MakeEvents = Callable[[Random, int, int], list[Event]]
"""(random, how many, time in ms that is now) to events."""

_ANSWER_SECONDS = 10.0
_ID = "posted"


def make_events(rng: Random, count: int, now: int) -> list[Event]:
    """Sessions of many users, with late events, repeated ids and every type."""
    clock = {n: now - rng.randrange(600) * MINUTE for n in range(USERS)}
    kinds = ["view", "view", "view", "click", "cart", "purchase", "like", "dislike"]
    events: list[Event] = []
    for number in range(count):
        if events and rng.random() < 0.01:
            events.append(rng.choice(events[-500:]))
            continue
        user = rng.randrange(USERS)
        clock[user] = min(now, clock[user] + rng.choice([1, 5_000, 20_000, 40 * MINUTE]))
        late = rng.choice([5_000, 3 * MINUTE]) if rng.random() < 0.02 else 0
        events.append(
            Event(
                f"user-{user}",
                f"item-{min(rng.randrange(ITEMS), rng.randrange(ITEMS))}",
                rng.choice(kinds),
                clock[user] - late,
                event_id=f"e{number}",
                session_id=f"s{number % 3}" if user % 7 == 0 else None,
            )
        )
    return events


class Sender:
    """Sends events one by one. `confirmed` are the ids of those that the broker says it has."""

    def __init__(self, bootstrap: str, topic: str, events: list[Event], rate: float) -> None:
        self.confirmed: set[str] = set()
        self.sent = 0
        """Confirmed ones, repeated ids included."""
        self.refused = 0
        self._bootstrap, self._topic = bootstrap, topic
        self._events, self._rate = events, rate
        self.flows = asyncio.Event()
        """Cleared while nothing is to be sent."""
        self.flows.set()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Send no more; `run` then waits until it is known what became of those sent."""
        self.flows.set()
        self._stop.set()

    async def run(self) -> None:
        """Send until stopped, or there are no more."""
        producer = EventProducer(self._bootstrap, self._topic, queue=1_000_000)
        begin = time.monotonic()
        for number, event in enumerate(self._events):
            ahead = number / self._rate - (time.monotonic() - begin)
            if ahead > 0.01:
                await asyncio.sleep(ahead)
            await self.flows.wait()
            if self._stop.is_set():
                break
            producer.send(event, self._reporter(event.event_id or ""))
        # Each one's report says whether it failed; the sum of them is told as an error.
        try:
            await asyncio.to_thread(producer.close, 40.0)
        except StreamError:
            return

    def _reporter(self, event_id: str) -> Callable[[str | None], None]:
        def report(problem: str | None) -> None:
            if problem is None:
                self.confirmed.add(event_id)
                self.sent += 1
            else:
                self.refused += 1

        return report


class Asker:
    """Asks a server for everything it answers, a few requests of each kind."""

    def __init__(self, url: str, rng: Random, rate: float) -> None:
        self.worst = 0.0
        """Seconds."""
        self.asked = 0
        self.degraded = 0
        self.not_2xx: Counter[str] = Counter()
        self.writes = True
        """Whether requests may change something."""
        self.examples: dict[str, str] = {}
        """What one answer of each code that is not 2xx said."""
        self.confirmed: set[str] = set()
        """Ids of posted events that were accepted."""
        self._url, self._rng, self._rate = url, rng, rate
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()

    async def run(self) -> None:
        """Ask until stopped, and wait for the last answers."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self._url, timeout=timeout, connector=connector) as http:
            begin, number = time.monotonic(), 0
            while not self._stop.is_set():
                number += 1
                if (ahead := number / self._rate - (time.monotonic() - begin)) > 0:
                    await asyncio.sleep(ahead)
                task = asyncio.create_task(self._ask(http))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.gather(*self._tasks)

    async def _ask(self, http: aiohttp.ClientSession) -> None:
        rng = self._rng
        user, item = f"user-{rng.randrange(USERS)}", f"item-{rng.randrange(ITEMS)}"
        kind = rng.random()
        posted = ""
        method, path, body = "GET", f"/v1/recommendations/{user}?n=10", None
        if kind < 0.2:
            session = [f"item-{rng.randrange(ITEMS)}" for _ in range(3)]
            method, path, body = "POST", "/v1/recommendations", {"session": session, "n": 10}
        elif kind < 0.3:
            path = f"/v1/items/{item}/similar?n=10"
        elif kind < 0.4:
            path = "/v1/trending?n=10"
        elif kind < 0.5 and self.writes:
            posted = f"{_ID}-{secrets.token_hex(8)}"
            method, path = "POST", "/v1/events"
            body = {"user_id": user, "item_id": item, "type": "view", "event_id": posted}
            body["timestamp"] = int(time.time() * 1000)
        elif 0.5 <= kind < 0.51 and self.writes:
            method, path = "DELETE", f"/v1/users/{user}"
        began = time.monotonic()
        self.asked += 1
        try:
            async with http.request(method, path, json=body) as answer:
                text = await answer.text()
                if not 200 <= answer.status < 300:
                    self._failed(str(answer.status), f"{method} {path}: {text[:300]}")
                elif posted:
                    self.confirmed.add(posted)
                elif '"degraded":true' in text:
                    self.degraded += 1
                if "NaN" in text or "Infinity" in text:
                    self._failed("not a number", text[:300])
        except TimeoutError:
            self._failed("no answer", f"{method} {path}: none in {_ANSWER_SECONDS:.0f} s")
        except aiohttp.ClientError as error:
            self._failed(type(error).__name__, f"{method} {path}: {error}")
        self.worst = max(self.worst, time.monotonic() - began)

    def _failed(self, code: str, said: str) -> None:
        self.not_2xx[code] += 1
        self.examples.setdefault(code, said)
