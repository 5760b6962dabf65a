"""Several Kafka brokers on this machine, each a controller too: what one loses, others have.

Topics have as many replicas as there are brokers, of which a majority must have a record before it
is confirmed.
"""

from __future__ import annotations

import threading
from pathlib import Path

from config.daemon import HOST, at_once
from config.kafka import KafkaServer

__all__ = ["KafkaCluster"]


class KafkaCluster:
    """Brokers by their ids, which begin with 1."""

    name = "kafka cluster"

    def __init__(
        self,
        folder: Path,
        brokers: int = 3,
        heap_mb: int = 256,
        cache_dir: Path | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.folder = folder
        most = brokers // 2 + 1
        replication = {
            "default.replication.factor": brokers,
            "min.insync.replicas": most,
            "offsets.topic.replication.factor": brokers,
            "transaction.state.log.replication.factor": brokers,
            "transaction.state.log.min.isr": most,
            "share.coordinator.state.topic.replication.factor": brokers,
            "share.coordinator.state.topic.min.isr": most,
            # Several of them on one machine are slower to answer each other.
            "broker.heartbeat.interval.ms": 1000,
            "broker.session.timeout.ms": 6000,
        }
        # They know each other before any of them runs.
        properties: dict[int, dict[str, object]] = {
            number: {"node.id": number, **replication} for number in range(1, brokers + 1)
        }
        self.brokers = {
            number: KafkaServer(
                folder / f"broker-{number}" / "kafka",
                cache_dir,
                heap_mb,
                cancelled,
                properties=own,
                cluster="headwater-kafka-0000AA",
            )
            for number, own in properties.items()
        }
        voters = ",".join(
            f"{number}@{HOST}:{broker.reserve_ports()['controller']}"
            for number, broker in self.brokers.items()
        )
        for own in properties.values():
            own["controller.quorum.voters"] = voters

    @property
    def bootstrap(self) -> str:
        """host:port list for clients."""
        return ",".join(broker.bootstrap for broker in self.brokers.values())

    def start(self) -> None:
        """Start all at once: none answers without a majority. Raises ServiceError."""
        at_once(lambda one: one.start(), self.brokers.values())

    def stop(self) -> None:
        """Stop all at once."""
        at_once(lambda one: one.stop(), self.brokers.values())

    def kill(self) -> None:
        """KILL all at once."""
        at_once(lambda one: one.kill(), self.brokers.values())
