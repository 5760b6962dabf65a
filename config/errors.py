"""The one error tree. Every message says what is wrong and what to do next."""

from __future__ import annotations

__all__ = [
    "BadInput",
    "HeadwaterError",
    "ServiceError",
    "SettingsError",
    "StoreError",
    "StreamError",
]


class HeadwaterError(Exception):
    """Anything Headwater raises on purpose."""


class SettingsError(HeadwaterError):
    """A setting or a command-line argument is out of its range. Commands exit with 2."""


class ServiceError(HeadwaterError):
    """An embedded Kafka or Redis could not be fetched, started or reached."""


class StreamError(HeadwaterError):
    """Kafka refused or did not confirm something."""


class StoreError(HeadwaterError):
    """Redis holds something that Headwater did not write, or refused a command."""


class BadInput(HeadwaterError):
    """Input from outside breaks a rule; `field` names the part of it that does."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field
