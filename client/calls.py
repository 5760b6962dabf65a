"""One call to the server: its attempts, their pauses and deadlines, and what answers mean."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import TypeVar

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from client.answers import RejectedEvent
from client.errors import (
    BadRequest,
    Denied,
    HeadwaterClientError,
    NotFound,
    Overloaded,
    ServerError,
    Unavailable,
    UnexpectedAnswer,
)

__all__ = ["Calls"]

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_T = TypeVar("_T")


class _Problem(Struct):
    """RFC 9457, as far as it is used."""

    detail: str = ""
    field: str | None = None
    rejected: tuple[RejectedEvent, ...] = ()


class _NotConnected(Unavailable):
    """The server has seen nothing of the request."""


class Calls:
    """Makes calls on connections that stay open."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        total: float,
        attempts: int,
        connections: int,
    ) -> None:
        """`timeout` bounds an attempt and `total` a call with all of its attempts, seconds."""
        self._base = URL(url)
        if not self._base.absolute or self._base.scheme not in ("http", "https"):
            raise ValueError(f"{url!r} is no address: http://HOST:PORT")
        self._timeout, self._total, self._attempts = timeout, total, attempts
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            headers=headers,
            timeout=aiohttp.ClientTimeout(),  # attempts have a deadline of their own
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def call(
        self,
        method: str,
        path: str,
        kind: type[_T],
        *,
        body: bytes | None = None,
        safe: bool,
    ) -> _T:
        """The answer to a request, read as `kind`; `path` is encoded and has no `/` before it.

        `safe` requests are tried again after any failure that may pass, others only where the
        server has done nothing: it could not be reached, or answered 429. On a connection that
        breaks aiohttp tries PUT and DELETE once more by itself. Raises HeadwaterClientError.
        """
        url = URL(f"{str(self._base).rstrip('/')}/{path}", encoded=True)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._total
        attempt = 0
        while True:
            attempt += 1
            try:
                left = deadline - loop.time()
                return _read(await self._attempt(method, url, body, min(self._timeout, left)), kind)
            except Unavailable as error:
                if not (safe or isinstance(error, Overloaded | _NotConnected)):
                    raise
                pause = _pause(attempt, error.retry_after)
                if attempt == self._attempts or loop.time() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _attempt(self, method: str, url: URL, body: bytes | None, seconds: float) -> bytes:
        """The body of a good answer. Raises HeadwaterClientError."""
        headers = None if body is None else {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.request(
                    method, url, data=body, headers=headers, allow_redirects=False
                ) as answer,
            ):
                read = await answer.read()
        except aiohttp.ClientConnectorError as error:
            raise _NotConnected(f"no connection to {self._base}: {error}") from error
        except TimeoutError as error:
            raise Unavailable(f"{self._base} did not answer within {seconds:.3g} s") from error
        except aiohttp.ClientError as error:
            raise Unavailable(f"{self._base} broke off: {error!r}") from error
        if 200 <= answer.status < 300:
            return read
        raise _error_of(answer.status, read, answer.headers.get("Retry-After"))


def _read(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnexpectedAnswer(f"the answer is none that this client knows: {error}") from error


def _error_of(status: int, body: bytes, retry_after: str | None) -> HeadwaterClientError:
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):  # of a proxy, perhaps
        problem = _Problem()
    detail = problem.detail or f"the server answered {status}"
    seconds = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    if status == 429:
        return Overloaded(detail, seconds)
    if status in (502, 503, 504):
        return Unavailable(detail, seconds)
    if status in (401, 403):
        return Denied(detail)
    if status == 404 and problem.field != "path":
        return NotFound(detail)
    if status in (400, 413, 422):
        return BadRequest(detail, problem.field, problem.rejected)
    return ServerError(detail) if status >= 500 else UnexpectedAnswer(f"{status}: {detail}")


def _pause(attempt: int, retry_after: float | None) -> float:
    """Seconds before the next attempt: longer each time, and never the same for all clients."""
    most = min(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), _LONGEST_PAUSE_SECONDS)
    chosen = random.uniform(0, most)  # noqa: S311 - it keeps clients apart, and guards nothing
    return chosen if retry_after is None else retry_after + chosen
