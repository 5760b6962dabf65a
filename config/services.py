"""Kafka and Redis for everything that runs here: the given ones, else our own, started together.

Used by `headwater up` and by the tests alike. Data, logs and ports are in `services.data_dir`,
so that the next start resumes where this one ended.
Next: `kafka.py` and `redis_server.py`; `daemon.py` below them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from config.daemon import Daemon
from config.errors import ServiceError, SettingsError
from config.kafka import KafkaServer, kafka_answers
from config.redis_server import RedisServer, redis_process
from config.settings import Settings

__all__ = ["Services"]

GIVEN_SECONDS = 15.0

_log = logging.getLogger(__name__)


class Services:
    """The two services; a context manager. `kafka` and `redis` are None where one is given."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cancelled = threading.Event()
        folder = settings.services.data_dir.expanduser().absolute()
        self.kafka: KafkaServer | None = None
        self.redis: RedisServer | None = None
        if settings.kafka.bootstrap is None:
            self.kafka = KafkaServer(
                folder / "kafka",
                settings.services.cache_dir,
                settings.services.kafka_heap_mb,
                self._cancelled,
            )
        if settings.redis.url is None:
            self.redis = RedisServer(folder / "redis", self._cancelled)

    @property
    def kafka_bootstrap(self) -> str:
        """host:port list of the Kafka in use."""
        return self.kafka.bootstrap if self.kafka else self._settings.kafka.bootstrap or ""

    @property
    def redis_url(self) -> str:
        """redis:// address of the Redis in use."""
        return self.redis.url if self.redis else self._settings.redis.url or ""

    def bind(self, settings: Settings) -> Settings:
        """`settings` with the addresses of these services filled in."""
        kafka = settings.kafka.model_copy(update={"bootstrap": self.kafka_bootstrap})
        redis = settings.redis.model_copy(update={"url": self.redis_url})
        return settings.model_copy(update={"kafka": kafka, "redis": redis})

    def start(self) -> None:
        """Start what is not given, both at once; returns when both services answer.

        Raises ServiceError; then nothing that was started here is left running.
        """
        self._ask_given()
        own = self._own()
        if not own:
            return
        _log.info("starting %s", " and ".join(one.name for one in own))
        try:
            with ThreadPoolExecutor(len(own)) as pool:
                for future in [pool.submit(self._start_one, one) for one in own]:
                    future.result()
        except BaseException:
            self._cancelled.set()
            self.stop()
            raise

    def cancel(self) -> None:
        """From another thread: make a `start` that is under way give up soon."""
        self._cancelled.set()

    def stop(self) -> None:
        """Stop what was started here, both at once; returns when nothing is left of them."""
        own = self._own()
        if own:
            with ThreadPoolExecutor(len(own)) as pool:
                list(pool.map(lambda one: one.stop(), own))

    def _ask_given(self) -> None:
        bootstrap, url = self._settings.kafka.bootstrap, self._settings.redis.url
        if bootstrap is not None:
            self._until(lambda: kafka_answers(bootstrap), "Kafka", "KAFKA__BOOTSTRAP")
        if url is not None:
            try:
                self._until(lambda: redis_process(url) is not None, "Redis", "REDIS__URL")
            except ValueError as error:
                raise SettingsError(f"setting redis.url (HEADWATER_REDIS__URL): {error}") from None

    def _until(self, answers: Callable[[], bool], name: str, variable: str) -> None:
        limit = time.monotonic() + GIVEN_SECONDS
        while not answers():
            if time.monotonic() > limit or self._cancelled.wait(0.2):
                raise ServiceError(
                    f"the {name} that HEADWATER_{variable} names does not answer within "
                    f"{GIVEN_SECONDS:.0f} s: check the address, or unset it and one is started here"
                )

    def _own(self) -> list[Daemon]:
        return [one for one in (self.kafka, self.redis) if one is not None]

    def _start_one(self, one: Daemon) -> None:
        try:
            one.start()
        except OSError as error:
            self._cancelled.set()
            raise ServiceError(
                f"{one.name} cannot be started in {one.folder}: {error}; "
                "set HEADWATER_SERVICES__DATA_DIR to a folder that can be written"
            ) from error
        except ServiceError:
            self._cancelled.set()  # the other one need not go on
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
