"""What happens to a Redis Cluster in use: a slot moves, a primary is lost together with its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from config.daemon import HOST
from config.redis_cluster import RedisCluster

__all__ = ["Loss", "Move"]

_SECONDS = 30.0


class Move:
    """One slot on its way from one node to another, key by key, as resharding does it."""

    def __init__(self, cluster: RedisCluster, slot: int) -> None:
        self.cluster, self.slot = cluster, slot
        first, *others = sorted(cluster.primaries(), key=self._has, reverse=True)
        self.source, self.target = first, others[0]

    def begin(self) -> None:
        ask, slot = self.cluster.ask, self.slot
        ask(self.target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.cluster.id_of(self.source))
        ask(self.source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.cluster.id_of(self.target))

    def some(self, count: int) -> int:
        """Take so many keys along; returns how many there were."""
        keys = self.cluster.ask(self.source, "CLUSTER", "GETKEYSINSLOT", self.slot, count)
        port = self.cluster.nodes[self.target].ports["redis"]
        if keys:
            self.cluster.ask(self.source, "MIGRATE", HOST, port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def end(self) -> None:
        """The others are told by the nodes themselves."""
        while self.some(100):
            pass
        for node in (self.target, self.source):
            self.cluster.ask(
                node, "CLUSTER", "SETSLOT", self.slot, "NODE", self.cluster.id_of(self.target)
            )

    def _has(self, node: int) -> bool:
        mine = self.cluster.id_of(node).encode()
        for first, last, primary, *_ in self.cluster.ask(node, "CLUSTER SLOTS"):
            if first <= self.slot <= last:
                return bool(primary[2] == mine)
        return False


class Loss:
    """The primary of a slot is cut off from its replica, killed, and replaced by it."""

    def __init__(self, cluster: RedisCluster, slot: int) -> None:
        self.cluster = cluster
        self.primary = Move(cluster, slot).source
        port = cluster.nodes[self.primary].ports["redis"]
        self.replica = next(
            number
            for number in range(len(cluster.nodes))
            if cluster.ask(number, "INFO").get("master_port") == port
        )

    def cut_off(self) -> None:
        """From now on the replica misses what is written."""
        self.cluster.ask(self.replica, "CONFIG", "SET", "masterauth", "wrong")
        self.cluster.ask(self.replica, "CLIENT", "KILL", "TYPE", "master")
        self._until(lambda: self.cluster.ask(self.primary, "INFO")["connected_slaves"] == 0)

    def kill(self) -> None:
        """Returns once the replica has taken over, and every node left knows."""
        port = self.cluster.nodes[self.primary].ports["redis"]
        self.cluster.nodes[self.primary].kill()
        left = [number for number, one in enumerate(self.cluster.nodes) if one.running]

        def owners(number: int) -> set[int]:
            found: Any = self.cluster.ask(number, "CLUSTER", "SLOTS")
            return {int(one[2][1]) for one in found}

        self._until(lambda: not any(port in owners(number) for number in left))

    def heal(self) -> None:
        """The lost node comes back as the replica."""
        self.cluster.ask(self.replica, "CONFIG", "SET", "masterauth", "")
        self.cluster.nodes[self.primary].start()
        self._until(self.cluster.whole)

    def written(self) -> int:
        """Bytes of writes that the primary has had."""
        return int(self.cluster.ask(self.primary, "INFO")["master_repl_offset"])

    def wait_for(self, size: int) -> None:
        """Returns once so many bytes more were written."""
        wanted = self.written() + size
        self._until(lambda: self.written() >= wanted)

    def _until(self, condition: Callable[[], bool]) -> None:
        limit = time.monotonic() + _SECONDS
        while not condition():
            assert time.monotonic() < limit, f"not within {_SECONDS} s"
            time.sleep(0.05)
