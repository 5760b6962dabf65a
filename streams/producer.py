"""An idempotent producer that any service can import to emit events.

    with EventProducer("localhost:9092") as producer:
        producer.send(Event("u1", "i1", "view", 1700000000000))

Where Kafka wants TLS and a login, its settings take the place of the address
(`load_settings().kafka`, or a `KafkaSettings` of your own).

Nothing is lost silently: `send` blocks while the queue is full, every record's fate is reported,
and leaving the block waits for the broker to have them all, or raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from config.errors import StreamError
from config.kafka_access import Kafka, Refusals, client_options
from streams.event import Event

__all__ = ["EventProducer", "Headers", "RecordProducer", "Report"]

Headers = list[tuple[str, str | bytes | None]]
Report = Callable[[str | None], None]
_ENCODER = msgspec.json.Encoder()
_POLL_SECONDS = 0.1


class RecordProducer:
    """Sends records with `acks=all`, in order, without duplicates; a thread hears the reports."""

    def __init__(
        self,
        kafka: Kafka,
        *,
        linger_ms: float = 5,
        queue: int = 100_000,
        largest: int = 4_194_304,
    ) -> None:
        """`queue` bounds the records that wait for the broker, `largest` a record's bytes. Raises
        SettingsError for files of `kafka` that cannot be read.
        """
        self._refusals = Refusals(kafka)
        options = {
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": linger_ms,
            "queue.buffering.max.messages": queue,
            "message.max.bytes": largest,
            "compression.type": "none",
            # Java's and aiokafka's partitioner: all producers must send a user the same way.
            "partitioner": "murmur2_random",
            "delivery.timeout.ms": 30_000,
            "error_cb": self._refusals,
        }
        self._producer = Producer(client_options(kafka, options))
        self._failed: list[str] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._hear, name="kafka-reports", daemon=True)
        self._thread.start()

    def publish(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
        report: Report | None = None,
    ) -> None:
        """Queue one record; waits while the queue is full.

        `report` is called from another thread with None once the broker has the record, or with
        what went wrong; without it a failure is raised by `flush`. Raises StreamError when closed
        or when the record is too large.
        """
        if self._closed.is_set():
            raise StreamError("the producer is closed; make a new one")

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if report is not None:
                report(None if error is None else self._refusals.explain(error))
            elif error is not None:
                self._failed.append(self._refusals.explain(error, "is Kafka up?"))

        while True:
            try:
                self._producer.produce(
                    topic, value, key, headers=headers or [], on_delivery=delivered
                )
                return
            except BufferError:
                self._producer.poll(_POLL_SECONDS)
            except Exception as error:
                raise StreamError(f"Kafka refused a record for {topic}: {error}") from error

    async def publish_all(
        self, records: Sequence[tuple[str, bytes | None, bytes | None, Headers | None]]
    ) -> list[str | None]:
        """Queue (topic, key, value, headers) and wait until the broker has answered for each.

        Returns None for a record that the broker has, else what went wrong.
        """
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        outcomes: list[str | None] = [None] * len(records)
        open_reports = len(records)
        lock = threading.Lock()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        def report_to(position: int) -> Report:
            def report(problem: str | None) -> None:
                nonlocal open_reports
                with lock:
                    outcomes[position] = problem
                    open_reports -= 1
                    last = open_reports == 0
                if last:
                    with contextlib.suppress(RuntimeError):  # the loop ended: nobody waits
                        loop.call_soon_threadsafe(finish)

            return report

        for position, (topic, key, value, headers) in enumerate(records):
            report = report_to(position)
            try:
                self.publish(topic, key, value, headers, report)
            except StreamError as error:
                report(str(error))
        if records:
            await done
        return outcomes

    def flush(self, seconds: float = 30) -> None:
        """Wait until the broker has everything. Raises StreamError when it has not."""
        left = self._producer.flush(seconds)
        if left or self._failed:
            failed, self._failed = self._failed, []
            raise StreamError(
                f"{left} records unconfirmed after {seconds:.0f} s, {len(failed)} failed"
                + (f": {failed[0]}" if failed else "")
                + (f"; {self._refusals.said or 'is Kafka up?'}" if left else "")
            )

    def close(self, seconds: float = 30) -> None:
        """Flush, then end. Raises StreamError as `flush` does."""
        if self._closed.is_set():
            return
        try:
            self.flush(seconds)
        finally:
            self._closed.set()
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _hear(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_POLL_SECONDS)


class EventProducer(RecordProducer):
    """Sends events, keyed by user, to the topic of events."""

    def __init__(
        self, kafka: Kafka, topic: str = "events", *, linger_ms: float = 5, queue: int = 100_000
    ) -> None:
        super().__init__(kafka, linger_ms=linger_ms, queue=queue)
        self._topic = topic

    def send(self, event: Event, report: Report | None = None) -> None:
        """Queue one event; see `publish`."""
        self.publish(self._topic, event.user_id.encode(), _ENCODER.encode(event), report=report)
