"""How to reach Kafka: its address, TLS and login, in the words of the client libraries.

Every client is made with what is said here: librdkafka's with `client_options`, Faust's with
`tls_context` and `password_of` (`streams/connection.py`). What Kafka refuses says here what to do.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError

from config.errors import SettingsError
from config.settings import KafkaSettings

__all__ = [
    "Kafka",
    "Refusals",
    "address_of",
    "client_options",
    "password_of",
    "read_password",
    "tls_context",
]

Kafka = str | KafkaSettings
"""Where it is and how to get in; a string is the address of one that lets everybody in."""

_log = logging.getLogger("headwater.kafka")

_PROBE_SECONDS = 0.5
_FRESH_SECONDS = 60.0
"""librdkafka tells of the same error every half a minute."""
_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}


def address_of(kafka: Kafka) -> str:
    """host:port list. Raises SettingsError where none is set."""
    address = kafka if isinstance(kafka, str) else kafka.bootstrap
    if address is None:
        raise SettingsError(
            "setting kafka.bootstrap (HEADWATER_KAFKA__BOOTSTRAP) is unset: give the host:port of "
            "a Kafka, or run `headwater up`, which starts one and sets it"
        )
    return address


def client_options(kafka: Kafka, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Configuration of a librdkafka client: address, TLS, login, and further `options`. Raises
    SettingsError.
    """
    found: dict[str, Any] = {"bootstrap.servers": address_of(kafka), "log_level": 2}
    if isinstance(kafka, KafkaSettings):
        found |= _security(kafka)
    return {**found, **(options or {})}


def _security(kafka: KafkaSettings) -> dict[str, str]:
    found = {}
    if kafka.tls and kafka.ca_file is not None:
        tls_context(kafka)  # librdkafka tells of a bad file by a number
        found["ssl.ca.location"] = str(kafka.ca_file)
    if (password := password_of(kafka)) is not None:
        found |= {
            "sasl.mechanisms": kafka.sasl_mechanism,
            "sasl.username": kafka.username or "",
            "sasl.password": password,
        }
    protocol = ("SASL_" if kafka.username else "") + ("SSL" if kafka.tls else "PLAINTEXT")
    return {"security.protocol": protocol, **found}


def tls_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    """Checks Kafka's certificate and host name; None without TLS. Raises SettingsError."""
    if not kafka.tls:
        return None
    try:
        return ssl.create_default_context(cafile=kafka.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"setting kafka.ca_file (HEADWATER_KAFKA__CA_FILE): {kafka.ca_file} is no PEM file of "
            f"certificates: {error}"
        ) from None


def password_of(kafka: KafkaSettings) -> str | None:
    """The password to log in with; None without a login. Raises SettingsError."""
    if kafka.username is None:
        return None
    if kafka.password is not None:
        return kafka.password.get_secret_value()
    return read_password(kafka.password_file, "kafka.password_file")


def read_password(path: Path | None, setting: str) -> str:
    """What a file holds, without the line's end. Raises SettingsError."""
    try:
        found = "" if path is None else path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"setting {setting}: {path} cannot be read: {error}") from None
    if not found:
        raise SettingsError(f"setting {setting}: {path} is empty; it is to hold a password")
    return found


class Refusals:
    """Hears from a librdkafka client (`error_cb`) that Kafka does not let it in.

    The client itself goes on trying, and what waits for it only ever ends with its time.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._said, self._heard = "", 0.0
        self._speaks_tls: bool | None = None

    def __call__(self, error: KafkaError) -> None:
        """Takes an error of the client as a whole."""
        if said := self._meaning(error):
            if said != self.said:
                _log.error(said)
            self._said, self._heard = said, time.monotonic()

    @property
    def said(self) -> str:
        """What is wrong and what to do; empty where nothing of late is known to be."""
        return self._said if time.monotonic() - self._heard < _FRESH_SECONDS else ""

    def explain(self, error: KafkaError, otherwise: str = "") -> str:
        """What an error says, and what to do where it is of rights or of the login; else what may
        be done `otherwise`.
        """
        advice = self._meaning(error) or self.said or otherwise
        return f"{error.str()}: {advice}" if advice else error.str()

    def _meaning(self, error: KafkaError) -> str:
        kafka = self._kafka
        user = None if isinstance(kafka, str) else kafka.username
        named = f"user {user!r}" if user else "a client without a login"
        code = error.code()
        if code in _DENIED:
            return (
                f"Kafka does not allow this to {named}: give it the ACL that docs/security.md "
                "names, or log in as another one (HEADWATER_KAFKA__USERNAME)"
            )
        if code == KafkaError._AUTHENTICATION:  # noqa: SLF001 - its only name
            return (
                f"Kafka at {address_of(kafka)} refuses the login of {named}: check "
                "HEADWATER_KAFKA__USERNAME, its password and HEADWATER_KAFKA__SASL_MECHANISM "
                f"({error.str()})"
            )
        if code == KafkaError._SSL:  # noqa: SLF001
            return (
                f"no TLS with Kafka at {address_of(kafka)}: check that this port speaks TLS, "
                "that its certificate is of this host name, and that HEADWATER_KAFKA__CA_FILE has "
                f"the authority it comes from ({error.str()})"
            )
        if code == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001
            return self._mismatch()
        return ""

    def _mismatch(self) -> str:
        """Whether one side speaks TLS and the other does not: librdkafka does not tell that from a
        broker that is restarted, so the first one is asked. Blocks for up to half a second.
        """
        tls = isinstance(self._kafka, KafkaSettings) and self._kafka.tls
        if self._speaks_tls is not tls:
            self._speaks_tls = _speaks_tls(address_of(self._kafka).split(",")[0])
        if self._speaks_tls is None or self._speaks_tls is tls:
            return ""
        if tls:
            return (
                f"Kafka at {address_of(self._kafka)} does not speak TLS: give the port that does "
                "in HEADWATER_KAFKA__BOOTSTRAP, or set HEADWATER_KAFKA__TLS=false"
            )
        return f"Kafka at {address_of(self._kafka)} speaks TLS: set HEADWATER_KAFKA__TLS=true"


def _speaks_tls(address: str) -> bool | None:
    """Whether a port answers a TLS handshake; None where nobody listens, or answers in time."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is told to it
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _PROBE_SECONDS) as connected:
            try:
                context.wrap_socket(connected).close()
            except TimeoutError:
                return None
            except (ssl.SSLError, ConnectionError):
                return False
            return True
    except (OSError, ValueError):
        return None
