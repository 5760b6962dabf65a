"""Which topics the marks are of: Kafka gives each topic an identity, and one of the same name that
was deleted and made again has another. Its offsets begin anew, and so must the marks.
"""

from __future__ import annotations

from collections.abc import Mapping

from redis.asyncio import Redis

from config.settings import Settings
from store.generations import Generation
from store.keys import Keys
from store.scripts import Call, Scripts

__all__ = ["follow_topics"]


async def follow_topics(
    redis: Redis, settings: Settings, one: Generation, told: Mapping[str, tuple[str, int]]
) -> list[str]:
    """Drop the marks that a generation has of topics that are not there any more.

    `told` is what Kafka says: identity and number of partitions, by topic. Returns the topics that
    begin anew. Raises redis.RedisError.
    """
    keys = Keys(one.overlaid(settings).store, one.number)
    # Users and totals know of events alone, experiments not of the catalogue.
    of_topic = {
        settings.kafka.events_topic: [*keys.prefixes, *keys.experiments],
        settings.kafka.items_topic: keys.items,
        settings.kafka.recommendations_topic: [*keys.items, *keys.experiments],
    }
    places = [(topic, prefix) for topic in told for prefix in of_topic[topic]]
    pipeline = redis.pipeline(transaction=False)
    for topic, prefix in places:
        pipeline.get(keys.topic(prefix, topic))
    found: list[bytes | None] = await pipeline.execute()
    calls: list[tuple[str, Call]] = []
    for (topic, prefix), known in zip(places, found, strict=True):
        now = f"{told[topic][0]} {told[topic][1]}".encode()
        if known == now:
            continue
        before = int(known.split()[1]) if known else 0
        names = [keys.topic(prefix, topic)]
        for partition in range(max(before, told[topic][1])):
            names += [
                keys.mark(prefix, topic, partition),
                keys.batch_pass(prefix, topic, partition),
            ]
        names.append(keys.replaced(prefix))
        calls.append((topic, ("follow_topic", names, [known or b"", now])))
    if not calls:
        return []
    replies = await Scripts(redis).call([call for _, call in calls])
    return sorted({topic for (topic, _), dropped in zip(calls, replies, strict=True) if dropped})
