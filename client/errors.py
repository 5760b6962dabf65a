"""What the client raises: one small tree."""

from __future__ import annotations

from collections.abc import Sequence

from client.answers import RejectedEvent

__all__ = [
    "BadRequest",
    "BufferFull",
    "Denied",
    "HeadwaterClientError",
    "NotFound",
    "Overloaded",
    "ServerError",
    "Unavailable",
    "UnexpectedAnswer",
]


class HeadwaterClientError(Exception):
    """Anything the client raises on purpose."""


class BadRequest(HeadwaterClientError):
    """What was sent breaks a rule (400, 413, 422): sending it again changes nothing."""

    def __init__(
        self, detail: str, field: str | None = None, rejected: Sequence[RejectedEvent] = ()
    ) -> None:
        super().__init__(detail if field is None else f"{field}: {detail}")
        self.detail = detail
        self.field = field
        """The part of the request that does."""
        self.rejected = tuple(rejected)
        """Where events were sent: what is wrong with each."""


class Denied(HeadwaterClientError):
    """The key is missing, unknown, or may not do this (401, 403)."""


class NotFound(HeadwaterClientError):
    """There is no such item (404)."""


class Unavailable(HeadwaterClientError):
    """The server cannot be reached, does not answer in time, or says that it cannot now (503).

    What was sent may have arrived all the same.
    """

    def __init__(self, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        """Seconds after which the server would be asked again, where it says so."""


class Overloaded(Unavailable):
    """Too much is asked, of the server or with this key (429): nothing was done."""


class ServerError(HeadwaterClientError):
    """Something went wrong in the server (500 and others)."""


class UnexpectedAnswer(HeadwaterClientError):
    """What answers is no Headwater server, or one of another version."""


class BufferFull(HeadwaterClientError):
    """More events wait to be sent than may: the server does not keep up, or is not there."""
