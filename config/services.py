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
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from config.daemon import at_once
from config.errors import ServiceError, SettingsError
from config.kafka import KafkaServer, kafka_answers
from config.kafka_cluster import KafkaCluster
from config.redis_cluster import RedisCluster
from config.redis_server import RedisServer, redis_answers
from config.settings import Settings

__all__ = ["Services"]

GIVEN_SECONDS = 15.0
_SHARDS = 4
"""Of a Redis Cluster: hash tags of so many lie on each of three nodes, for items and for users."""

_log = logging.getLogger(__name__)


class _Own(Protocol):
    """What is started here."""

    name: str
    folder: Path

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


class Services:
    """The two services; a context manager. `kafka` and `redis` are None where one is given, or
    where it is a cluster.
    """

    def __init__(self, settings: Settings, *, cluster: bool = False) -> None:
        """`cluster`: what is started here are three brokers and six Redis nodes."""
        self._settings = settings
        self._cancelled = threading.Event()
        folder = settings.services.data_dir.expanduser().absolute()
        self.kafka: KafkaServer | None = None
        self.redis: RedisServer | None = None
        self.kafka_cluster: KafkaCluster | None = None
        self.redis_cluster: RedisCluster | None = None
        cache, heap_mb = settings.services.cache_dir, settings.services.kafka_heap_mb
        if settings.kafka.bootstrap is not None:
            pass
        elif cluster:
            self.kafka_cluster = KafkaCluster(
                folder / "kafka-cluster", 3, heap_mb // 2, cache, self._cancelled
            )
        else:
            self.kafka = KafkaServer(folder / "kafka", cache, heap_mb, self._cancelled)
        if settings.redis.url is not None:
            pass
        elif cluster:
            self.redis_cluster = RedisCluster(folder / "redis-cluster", 3, self._cancelled)
        else:
            self.redis = RedisServer(folder / "redis", self._cancelled)

    @property
    def kafka_bootstrap(self) -> str:
        """host:port list of the Kafka in use."""
        own = self.kafka or self.kafka_cluster
        return own.bootstrap if own else self._settings.kafka.bootstrap or ""

    @property
    def redis_url(self) -> str:
        """redis:// address of the Redis in use."""
        own = self.redis or self.redis_cluster
        return own.url if own else self._settings.redis.url or ""

    @property
    def near_redis_url(self) -> str:
        """The same, through its socket where it has one: for small commands and short waits. What
        goes by the megabyte, as a worker's commits do in a backlog, is slower that way.
        """
        return self.redis.near_url if self.redis else self.redis_url

    def bind(self, settings: Settings) -> Settings:
        """`settings` with the addresses of these services filled in, and, where they are clusters,
        as many replicas as there are brokers, and shards on every Redis node.
        """
        update: dict[str, object] = {"bootstrap": self.kafka_bootstrap}
        if self.kafka_cluster is not None:
            update["replication"] = max(settings.kafka.replication, len(self.kafka_cluster.brokers))
        kafka = settings.kafka.model_copy(update=update)
        store = settings.store
        if self.redis_cluster is not None:
            store = store.model_copy(update={"shards": max(store.shards, _SHARDS)})
        redis = settings.redis.model_copy(update={"url": self.redis_url})
        return settings.model_copy(update={"kafka": kafka, "redis": redis, "store": store})

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
            at_once(self._start_one, own)
        except BaseException:
            self._cancelled.set()
            self.stop()
            raise

    def cancel(self) -> None:
        """From another thread: make a `start` that is under way give up soon."""
        self._cancelled.set()

    def stop(self) -> None:
        """Stop what was started here, both at once; returns when nothing is left of them."""
        at_once(lambda one: one.stop(), self._own())

    def kill(self) -> None:
        """KILL what was started here, all at once, as the loss of its machines would."""
        at_once(lambda one: one.kill(), self._own())

    def _ask_given(self) -> None:
        kafka, redis = self._settings.kafka, self._settings.redis
        if kafka.bootstrap is not None:
            self._until(lambda: kafka_answers(kafka), "Kafka", "KAFKA__BOOTSTRAP")
        if redis.url is not None:
            try:
                self._until(lambda: redis_answers(redis), "Redis", "REDIS__URL")
            except ValueError as error:
                raise SettingsError(f"setting redis.url (HEADWATER_REDIS__URL): {error}") from None

    def _until(self, answers: Callable[[], bool], name: str, variable: str) -> None:
        limit = time.monotonic() + GIVEN_SECONDS
        while not answers():
            if time.monotonic() > limit or self._cancelled.wait(0.2):
                raise ServiceError(
                    f"the {name} that HEADWATER_{variable} names does not answer within "
                    f"{GIVEN_SECONDS:.0f} s: check the address and whether TLS is spoken there "
                    "(docs/security.md), or unset it and one is started here"
                )

    def _own(self) -> list[_Own]:
        every = (self.kafka, self.kafka_cluster, self.redis, self.redis_cluster)
        return [one for one in every if one is not None]

    def _start_one(self, one: _Own) -> None:
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
