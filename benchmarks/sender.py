"""Sends events to Kafka at a rate or as fast as it goes, in a process of its own.

Records are made before the clock runs, and handed to librdkafka a thousand at a time: what is
measured is the receiving end, and this process says what it cost itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from benchmarks.helper import answer_lines
from benchmarks.workload import make_workload, records
from config.errors import StreamError

__all__ = ["send"]

Record = dict[str, bytes]

_AT_ONCE = 1000
_FLUSH_SECONDS = 120.0
_QUEUED = 500_000
_LINGER_MS = 5


def _make_producer(bootstrap: str, failed: list[str]) -> Producer:
    def report(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error.str())

    return Producer(
        {
            "bootstrap.servers": bootstrap,
            # As streams/producer.py promises: in order, without loss or duplicates.
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": _LINGER_MS,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": _QUEUED,
            "delivery.report.only.error": True,
            "on_delivery": report,
            "log_level": 2,
        }
    )


def send(producer: Producer, topic: str, chunk: list[Record]) -> None:
    """Queue records; waits while the queue is full."""
    while True:
        taken = producer.produce_batch(topic, chunk)
        if taken == len(chunk):
            return
        # The queue is full; what was refused is marked.
        chunk = [record for record in chunk if record.pop("_error", None) is not None]
        producer.poll(0.01)


def _prepare(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """`setup`: bootstrap, topic, first_id, and as load the arguments of `make_workload`."""
    topic = setup["topic"]
    load = make_workload(**setup["load"])
    made = [{"key": key, "value": value} for key, value in records(load, setup["first_id"])]
    failed: list[str] = []
    producer = _make_producer(setup["bootstrap"], failed)
    sent = 0

    def work(order: dict[str, Any]) -> dict[str, Any]:
        """Send the next `events`, `rate` a second or at once; answers with when, and at what cost.

        Times are those of time.monotonic, which the processes of one machine share.
        """
        nonlocal sent
        mine = made[sent : sent + order["events"]]
        sent += len(mine)
        rate = order.get("rate")
        spent, begin = time.process_time(), time.monotonic()
        size = _AT_ONCE if rate is None else max(1, min(_AT_ONCE, int(rate / 200)))
        for first in range(0, len(mine), size):
            if rate is not None:
                ahead = begin + first / rate - time.monotonic()
                if ahead > 0:
                    time.sleep(ahead)
            send(producer, topic, mine[first : first + size])
        left = producer.flush(_FLUSH_SECONDS)
        if left or failed:
            raise StreamError(f"{left + len(failed)} records failed: {failed[:1]}; is Kafka up?")
        end = time.monotonic()
        cost = time.process_time() - spent
        return {"events": len(mine), "begin": begin, "end": end, "cpu_seconds": cost}

    return work


if __name__ == "__main__":
    answer_lines(_prepare)
