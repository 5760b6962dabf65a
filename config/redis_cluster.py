"""A Redis Cluster on this machine: primaries, each with a replica that takes its place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.daemon import HOST, at_once
from config.errors import ServiceError
from config.redis_server import SLOTS, RedisServer, is_whole

__all__ = ["ClusterNode", "RedisCluster"]

_NODE_TIMEOUT_MS = 2000
_FORM_SECONDS = 30.0


class ClusterNode(RedisServer):
    """One node; it keeps what it knows of the others in its folder."""

    port_names = ("redis", "bus")

    def _prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        argv, env = super()._prepare()
        more = (
            *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
            *("--cluster-port", str(self.ports["bus"])),
            *("--cluster-node-timeout", str(_NODE_TIMEOUT_MS)),
            # What the other nodes have is answered while one of them is away.
            *("--cluster-require-full-coverage", "no"),
            *("--cluster-allow-replica-migration", "no"),
            *("--repl-diskless-sync-delay", "0"),
        )
        return [*argv, *more], env


class RedisCluster:
    """Nodes 0 … n - 1 begin as the primaries, n … 2n - 1 as their replicas."""

    name = "redis cluster"

    def __init__(
        self, folder: Path, primaries: int = 3, cancelled: threading.Event | None = None
    ) -> None:
        self.folder = folder
        self._cancelled = cancelled or threading.Event()
        self.nodes = [
            ClusterNode(folder / f"node-{number}" / "redis", cancelled)
            for number in range(1, 2 * primaries + 1)
        ]
        self._primaries = primaries

    @property
    def url(self) -> str:
        """redis+cluster:// address."""
        return "redis+cluster://" + ",".join(f"{HOST}:{one.ports['redis']}" for one in self.nodes)

    def start(self) -> None:
        """Start all nodes, and have new ones form a cluster. Raises ServiceError."""
        at_once(lambda one: one.start(), self.nodes)
        if self.ask(0, "CLUSTER INFO")["cluster_slots_assigned"] == "0":
            self._form()
        self._until(self.whole, "does not get whole")

    def stop(self) -> None:
        """Stop all at once."""
        at_once(lambda one: one.stop(), self.nodes)

    def kill(self) -> None:
        """KILL all at once."""
        at_once(lambda one: one.kill(), self.nodes)

    def ask(self, number: int, *command: Any) -> Any:
        """What one node answers. Raises redis.RedisError."""
        port = self.nodes[number].ports["redis"]
        with redis.Redis(HOST, port, socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
            return client.execute_command(*command)

    def whole(self) -> bool:
        """Whether every slot has a primary, and each of these its replica in step with it."""
        try:
            return all(
                is_whole(self.ask(number, "CLUSTER INFO")) for number in self._running()
            ) and (sum(self._follows(number) for number in self._running()) == self._primaries)
        except redis.RedisError:
            return False

    def primaries(self) -> list[int]:
        """The nodes that have slots, as they say themselves. Raises redis.RedisError."""
        return [
            number for number in self._running() if self.ask(number, "INFO")["role"] == "master"
        ]

    def _running(self) -> list[int]:
        return [number for number, one in enumerate(self.nodes) if one.running]

    def _follows(self, number: int) -> bool:
        said = self.ask(number, "INFO")
        return bool(said["role"] == "slave" and said["master_link_status"] == "up")

    def _form(self) -> None:
        count = self._primaries
        bounds = [SLOTS * number // count for number in range(count + 1)]
        for number in range(count):
            self.ask(number, "CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            self.ask(number, "CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.ask(0, "CLUSTER MEET", HOST, node.ports["redis"], node.ports["bus"])
        everybody = {self.id_of(number) for number in range(len(self.nodes))}

        def met() -> bool:
            return all(
                everybody <= {one["node_id"] for one in self.ask(number, "CLUSTER NODES").values()}
                for number in range(len(self.nodes))
            )

        self._until(met, "does not meet")
        for number in range(count):
            follower = count + number
            self.ask(follower, "CLUSTER REPLICATE", self.id_of(number))

    def id_of(self, number: int) -> str:
        """By which the others know a node."""
        found = self.ask(number, "CLUSTER MYID")
        return found.decode() if isinstance(found, bytes) else str(found)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        limit = time.monotonic() + _FORM_SECONDS
        while not condition():
            if time.monotonic() > limit or self._cancelled.wait(0.05):
                raise ServiceError(
                    f"the Redis Cluster in {self.folder} {what} within {_FORM_SECONDS:.0f} s: "
                    "look at its logs, or remove the folder to begin with an empty one"
                )
