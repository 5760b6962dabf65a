"""HTTPS: the certificate that connections are answered with, read again when it changes."""

from __future__ import annotations

import asyncio
import ssl

import structlog

from config.errors import SettingsError
from config.followed import stamp
from config.settings import HttpSettings

__all__ = ["Certificate"]

log = structlog.get_logger("headwater.http")

_LOOK_SECONDS = 1.0


class Certificate:
    """Holds the one that was last read without a mistake."""

    def __init__(self, http: HttpSettings) -> None:
        """Raises SettingsError for files that do not fit."""
        self._http = http
        self._seen = self._stamps()
        self.context = self._read()
        """None where plain HTTP is spoken. Connections that come after a change get the new one."""

    async def run(self) -> None:
        """Follow the files, forever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Read the files again if one of them has changed."""
        if self.context is None or (stamps := self._stamps()) == self._seen:
            return
        self._seen = stamps
        try:
            # Tried beside the one in use, which half a change would break.
            self._read()
            self._load(self.context)
        except SettingsError as error:
            # The two files are seldom written at one moment: the second change is seen, too.
            log.error("the certificate stays as it was read before", error=str(error))
        else:
            log.info("the certificate was read again", path=str(self._http.cert_file))

    def _read(self) -> ssl.SSLContext | None:
        if self._http.cert_file is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        cert, key = self._http.cert_file, self._http.key_file
        if cert is None:
            return
        try:
            # An empty passphrase: a key that needs one is an error, and nobody is asked for it.
            context.load_cert_chain(cert, key, password=b"")
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"settings http.cert_file and http.key_file: {cert} and {key} are not a PEM "
                f"certificate and its private key without a passphrase: {error}"
            ) from None

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [
            None if path is None else stamp(path)
            for path in (self._http.cert_file, self._http.key_file)
        ]
