"""What can be asked of a server, and told to it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from client.answers import EventsAnswer, Recommendations, RejectedEvent, User
from client.buffer import EventBuffer, OnRejected
from client.calls import Calls
from client.errors import BadRequest, HeadwaterClientError
from client.requests import Boost, Event, Item, RecommendRequest

__all__ = ["HeadwaterClient"]

_EVENTS_AT_ONCE = 1000
_BYTES_AT_ONCE = 524_288
_REQUESTS_AT_ONCE = 100
_encode = msgspec.json.Encoder().encode


class _Anything(Struct):
    """Of an answer that says nothing but that it is good."""


class HeadwaterClient:
    """A client with connections of its own, to be used in `async with`.

    What only reads, and sending events, is tried again after failures that may pass: 429, 503,
    timeouts and broken connections, with pauses that grow, or as long as `Retry-After` says.
    Changes of the catalogue and forgetting a user are tried again only where the server has not
    seen them, or, once, where the connection broke. Everything raises HeadwaterClientError.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        tenant: str | None = None,
        timeout: float = 2.0,
        total: float = 10.0,
        attempts: int = 5,
        connections: int = 100,
        buffer: int = 10_000,
        flush_seconds: float = 1.0,
        on_rejected: OnRejected | None = None,
    ) -> None:
        """`tenant` says whose requests these are where no key does.

        `timeout` bounds an attempt, `total` a call with all of its `attempts`, in seconds.

        Events that are tracked wait for `flush_seconds`, at most `buffer` of them; `on_rejected`
        is told of those that the server does not take, and without it the log is.
        """
        self._url, self._api_key, self._tenant = url, api_key, tenant
        self._timeout, self._total, self._attempts = timeout, total, attempts
        self._connections = connections
        self._most, self._pause, self._on_rejected = buffer, flush_seconds, on_rejected
        self._calls: Calls | None = None
        self._buffer: EventBuffer | None = None

    async def __aenter__(self) -> Self:
        headers = {}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key}"
        if self._tenant is not None:
            headers["Headwater-Tenant"] = self._tenant
        self._calls = Calls(
            self._url,
            headers=headers,
            timeout=self._timeout,
            total=self._total,
            attempts=self._attempts,
            connections=self._connections,
        )
        self._buffer = EventBuffer(
            self._send_all,
            most=self._most,
            batch=min(_EVENTS_AT_ONCE, self._most),
            pause=self._pause,
            on_rejected=self._on_rejected,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send what was tracked. Raises HeadwaterClientError where that fails."""
        calls, buffer = self._open()
        try:
            await buffer.close()
        except HeadwaterClientError:
            if error is None:
                raise
        finally:
            await calls.close()
            self._calls = self._buffer = None

    async def send(self, events: Event | Iterable[Event]) -> EventsAnswer:
        """Send events; returns once the broker has those that can be counted.

        A single event that cannot be raises BadRequest; of several, the answer says which. Where
        this fails, some may have arrived: to send them once more and count them once, give them an
        `event_id` beforehand.
        """
        if not isinstance(events, Event):
            return await self._send_all([_ready(event) for event in events])
        return await self._calls_open().call(
            "POST", "v1/events", EventsAnswer, body=_encode(_ready(events)), safe=True
        )

    def track(self, event: Event) -> None:
        """Send an event in the background, with others. Raises BufferFull."""
        self._open()[1].add(_ready(event))

    async def flush(self) -> None:
        """Return once the server has all that was tracked before."""
        await self._open()[1].flush()

    async def recommend(
        self,
        *,
        user_id: str | None = None,
        session: Sequence[str] | None = None,
        n: int = 20,
        exclude: Sequence[str] | None = None,
        exclude_seen: bool | None = None,
        diversity: float | None = None,
        explain: bool = False,
        scenario: str | None = None,
        filter: Mapping[str, Any] | None = None,
        boost: Sequence[Boost] | None = None,
        strict: bool | None = None,
    ) -> Recommendations:
        """What to show to a user, or to follow a session of item ids, oldest first."""
        asked = RecommendRequest(
            user_id,
            session,
            n,
            exclude,
            exclude_seen,
            diversity,
            explain,
            scenario,
            filter,
            boost,
            strict,
        )
        calls = self._calls_open()
        if user_id is not None and asked == RecommendRequest(user_id, n=n):
            path = f"v1/recommendations/{_in_path(user_id)}?n={n}"  # the server's shortest way
            return await calls.call("GET", path, Recommendations, safe=True)
        return await calls.call(
            "POST", "v1/recommendations", Recommendations, body=_encode(asked), safe=True
        )

    async def recommend_batch(self, requests: Iterable[RecommendRequest]) -> list[Recommendations]:
        """An answer to each of any number of requests, in their order."""
        asked, answers = list(requests), list[Recommendations]()
        for begin in range(0, len(asked), _REQUESTS_AT_ONCE):
            answers += await self._calls_open().call(
                "POST",
                "v1/recommendations/batch",
                list[Recommendations],
                body=_encode(asked[begin : begin + _REQUESTS_AT_ONCE]),
                safe=True,
            )
        return answers

    async def similar(
        self, item_id: str, *, n: int = 20, relation: Literal["viewed", "bought"] = "viewed"
    ) -> Recommendations:
        """What is seen, or bought, together with an item."""
        query = urlencode({"n": n, "relation": relation})
        path = f"v1/items/{_in_path(item_id)}/similar?{query}"
        return await self._calls_open().call("GET", path, Recommendations, safe=True)

    async def trending(
        self, *, n: int = 20, window: Literal["1h", "24h", "7d"] = "1h"
    ) -> Recommendations:
        """What everybody looks at."""
        path = f"v1/trending?{urlencode({'n': n, 'window': window})}"
        return await self._calls_open().call("GET", path, Recommendations, safe=True)

    async def put_item(self, item: Item) -> None:
        """Put an item into the catalogue, in the place of the one of that id."""
        path = f"v1/items/{_in_path(item.item_id)}"
        await self._calls_open().call("PUT", path, _Anything, body=_encode(item), safe=False)

    async def get_item(self, item_id: str) -> Item:
        """An item of the catalogue. Raises NotFound."""
        path = f"v1/items/{_in_path(item_id)}"
        return await self._calls_open().call("GET", path, Item, safe=True)

    async def delete_item(self, item_id: str) -> None:
        """Take an item out of the catalogue."""
        path = f"v1/items/{_in_path(item_id)}"
        await self._calls_open().call("DELETE", path, _Anything, safe=False)

    async def user(self, user_id: str) -> User:
        """What is known of a user; of an unknown one, nothing."""
        path = f"v1/users/{_in_path(user_id)}"
        return await self._calls_open().call("GET", path, User, safe=True)

    async def forget_user(self, user_id: str) -> None:
        """Forget a user for good."""
        path = f"v1/users/{_in_path(user_id)}"
        await self._calls_open().call("DELETE", path, _Anything, safe=False)

    async def _send_all(self, events: Sequence[Event]) -> EventsAnswer:
        """Send events that have ids and times already, in as many requests as it takes."""
        accepted, rejected, before = 0, list[RejectedEvent](), 0
        for pieces in _in_requests(events):
            body = b"[%b]" % b",".join(pieces)
            try:
                answer = await self._calls_open().call(
                    "POST", "v1/events", EventsAnswer, body=body, safe=True
                )
            except BadRequest as error:
                if not error.rejected:
                    raise
                answer = EventsAnswer(0, error.rejected)  # not one of them is good
            accepted += answer.accepted
            rejected += [
                msgspec.structs.replace(one, index=before + one.index) for one in answer.rejected
            ]
            before += len(pieces)
        return EventsAnswer(accepted, tuple(rejected))

    def _open(self) -> tuple[Calls, EventBuffer]:
        if self._calls is None or self._buffer is None:
            raise RuntimeError("a HeadwaterClient is used inside of `async with`")
        return self._calls, self._buffer

    def _calls_open(self) -> Calls:
        return self._open()[0]


def _ready(event: Event) -> Event:
    """The event with an id and a time, which stay the same however often it is sent."""
    if event.event_id is not None and event.timestamp is not None:
        return event
    now = time.time_ns() // 1_000_000
    return msgspec.structs.replace(
        event,
        event_id=secrets.token_hex(16) if event.event_id is None else event.event_id,
        timestamp=now if event.timestamp is None else event.timestamp,
    )


def _in_requests(events: Sequence[Event]) -> Iterator[list[bytes]]:
    """Events as JSON, as many together as one request may hold."""
    pieces: list[bytes] = []
    size = 0
    for event in events:
        piece = _encode(event)
        if pieces and (len(pieces) == _EVENTS_AT_ONCE or size + len(piece) > _BYTES_AT_ONCE):
            yield pieces
            pieces, size = [], 0
        pieces.append(piece)
        size += len(piece) + 1
    if pieces:
        yield pieces


def _in_path(text: str) -> str:
    """An id as a part of a path."""
    quoted = quote(text, safe="")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted
