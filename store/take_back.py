"""User shards that are ahead of counts are taken back, on Redis Cluster.

Items are committed before users, so a Redis that falls back as a whole leaves users behind, and
whoever reads the log again meets the sessions as they were. Of a cluster, one node alone may fall
back: a primary that came back without its last second, a replica that missed it. Item shards that
lie there then lack events whose users, on other nodes, have them in their sessions already, and
what these events add can only be told from the sessions as they were before.

So each commit to a user shard keeps what it replaces for `store.undo_seconds`, in the same script.
Where a partition's marks show users ahead, their shards are taken back, commit by commit, to where
the counts are. From then on it is as if all had fallen back together.
"""

from __future__ import annotations

import structlog

from config.errors import StoreError
from store.commit import Marks
from store.keys import Keys
from store.scripts import Call, Scripts

__all__ = ["UsersAhead", "take_back"]

log = structlog.get_logger("headwater.store")

_AT_ONCE = 20
"""Commits that one call takes back: some milliseconds of Redis each."""


class UsersAhead(StoreError):
    """What users did is in their sessions, is not in all counts, and cannot be taken back."""


async def take_back(scripts: Scripts, keys: Keys, topic: str, partition: int, marks: Marks) -> None:
    """Take user shards back to where they are not ahead of what the counts contain.

    Raises redis.RedisError, and UsersAhead where what would have to be taken back is not kept any
    more.
    """
    lowest = marks.lowest_counts
    log.warning(
        "counts lost their end: sessions are taken back",
        topic=topic,
        partition=partition,
        counted=lowest,
        sessions=int(marks.users.max()),
    )
    for prefix, mark in zip(keys.users, marks.users.tolist(), strict=True):
        names = [keys.mark(prefix, topic, partition), prefix, keys.replaced(prefix)]
        call: Call = ("take_back", names, [lowest, _AT_ONCE])
        while mark > lowest:
            ((mark, unknown),) = await scripts.call([call])
            if unknown:
                raise UsersAhead(
                    f"a node of the Redis Cluster lost more than is kept (store.undo_seconds): of "
                    f"{topic}-{partition} counts end at {lowest} and sessions at {mark}; nothing "
                    "more of it is counted here. Build a generation from the log with `headwater "
                    "replay --from earliest --activate`"
                )
