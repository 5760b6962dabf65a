"""Connections to Kafka that break as aiokafka expects it, on uvloop too.

A connection that was reset a moment ago takes no more writes. asyncio's own loop swallows that,
uvloop says it by a RuntimeError, which aiokafka does not know: it ended the routine that fetches,
and the worker read nothing more until its watchdog ended it.
"""

from __future__ import annotations

from typing import Any

from aiokafka import conn
from aiokafka.errors import KafkaConnectionError, KafkaError
from faust.auth import SASLCredentials, SSLCredentials

from config.kafka_access import password_of, tls_context
from config.settings import KafkaSettings

__all__ = ["Connection", "credentials", "use_connections"]


class Connection(conn.AIOKafkaConnection):  # type: ignore[misc] # without types
    """Says by KafkaConnectionError that it was reset, whichever loop it is on."""

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request; returns a future of the response. Raises KafkaConnectionError."""
        try:
            return super().send(request, expect_response)
        except KafkaError:  # a RuntimeError, too
            raise
        except RuntimeError as error:
            self.close(reason=conn.CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(
                f"Connection at {self.host}:{self.port} broken: {error}"
            ) from error


def credentials(kafka: KafkaSettings) -> SASLCredentials | SSLCredentials | None:
    """Faust's `broker_credentials`: TLS and login; None without either. Raises SettingsError."""
    context = tls_context(kafka)
    if (password := password_of(kafka)) is not None:
        return SASLCredentials(
            username=kafka.username,
            password=password,
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return None if context is None else SSLCredentials(context)


def use_connections() -> None:
    """Have aiokafka's clients make these from now on; there is no other way to choose."""
    conn.AIOKafkaConnection = Connection
