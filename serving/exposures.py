"""Tells the log what was shown, without holding up the answers that show it.

Records are put by for a moment and handed to librdkafka together, which sends them in batches of
its own. While Kafka is slow or away, a bounded number waits; the rest is left out and counted.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import msgspec

from config.errors import StreamError
from config.settings import DEFAULT_TENANT
from serving import metrics
from serving.experiments import Assigned
from streams.producer import RecordProducer
from streams.shown import Shown

__all__ = ["Exposures"]

_PUT_BY_SECONDS = 0.02
_MOST_WAITING = 20_000
"""A fraction of what librdkafka queues: behind a full queue, the event loop would stand."""


class Exposures:
    """Publishes a record for an answer, in no order with events."""

    def __init__(
        self,
        producer: RecordProducer,
        topic: str,
        *,
        everything: bool,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        """`everything` is the setting experiments.publish_all."""
        self._tenant = tenant
        self.everything = everything
        self._producer = producer
        self._topic = topic
        self._encoder = msgspec.json.Encoder()
        self._put_by: list[Shown] = []
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = 0
        self._lock = threading.Lock()
        """Reports come from another thread."""

    def tell(
        self,
        recommendation_id: str,
        user_id: str | None,
        items: list[str],
        *,
        assigned: Assigned | None = None,
        cost: float | None = None,
        degraded: bool = False,
    ) -> None:
        """An answer shows these items. Where the last one is a new item, `cost` is what was given
        up for it, see `Scored.explored`.

        The record is keyed by user, or by the answer where nobody is named.
        """
        if cost is not None:
            metrics.EXPLORED.labels(self._tenant).inc()
            metrics.EXPLORED_COST.labels(self._tenant).inc(cost)
        self._put_by.append(
            Shown(
                recommendation_id,
                time.time_ns() // 1_000_000,
                user_id,
                items,
                items[-1:] if cost is not None else [],
                assigned.experiment if assigned is not None else None,
                assigned.variant if assigned is not None else None,
                degraded,
            )
        )
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PUT_BY_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand over what was put by."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        some, self._put_by = self._put_by, []
        room = max(0, _MOST_WAITING - self._waiting)
        for shown in some[:room]:
            with self._lock:
                self._waiting += 1
            key = (shown.user_id or shown.recommendation_id).encode()
            tries = bool(shown.explored)
            try:
                self._producer.publish(
                    self._topic,
                    key,
                    self._encoder.encode(shown),
                    report=self._reported_new if tries else self._reported,
                )
            except StreamError as error:
                (self._reported_new if tries else self._reported)(str(error))
        self._count_untold(some[room:])

    def _reported(self, problem: str | None) -> None:
        with self._lock:
            self._waiting -= 1
        if problem is None:
            metrics.PUBLISHED.labels(self._tenant).inc()
        else:
            metrics.UNPUBLISHED.labels(self._tenant).inc()

    def _reported_new(self, problem: str | None) -> None:
        self._reported(problem)
        if problem is not None:
            metrics.UNTOLD.labels(self._tenant).inc()

    def _count_untold(self, left_out: Sequence[Shown]) -> None:
        if left_out:
            metrics.UNPUBLISHED.labels(self._tenant).inc(len(left_out))
            tried = sum(bool(one.explored) for one in left_out)
            metrics.UNTOLD.labels(self._tenant).inc(tried)
