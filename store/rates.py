"""Where the rates of API keys are counted: in the Redis that holds everything else."""

from __future__ import annotations

from limits.aio.storage import RedisClusterStorage, RedisStorage
from redis.asyncio import Redis

from store.cluster import ClusterRedis

__all__ = ["rate_storage"]


class _ClusterRates(RedisClusterStorage):
    """Through a client that is there, instead of one of its own."""

    def configure_bridge(self) -> None:
        redis = self.options["redis"]
        self.bridge.storage = redis  # type: ignore[attr-defined] # redispy's
        self.bridge.connection_getter = lambda _: redis  # type: ignore[attr-defined] # redispy's


def rate_storage(redis: Redis, prefix: str) -> RedisStorage:
    """Counts rates under keys that begin with `prefix`, which has a hash tag: each rate takes two
    keys, which must lie on one node.
    """
    if isinstance(redis, ClusterRedis):
        return _ClusterRates(
            "redis+cluster://",
            implementation="redispy",
            key_prefix=prefix,
            redis=redis,  # type: ignore[arg-type] # handed on to configure_bridge
        )
    return RedisStorage(
        "redis://",
        implementation="redispy",
        connection_pool=redis.connection_pool,  # type: ignore[arg-type] # as it documents
        key_prefix=prefix,
    )
