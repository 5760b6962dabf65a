"""Marks are of one topic, and go with it. A live one is made again in the table of faults."""

from __future__ import annotations

from config.settings import Settings
from store.commit import Marks
from store.connect import connect
from store.generations import first_generation
from store.keys import Keys
from store.topics import follow_topics
from store.writer import StoreWriter


async def test_marks_go_with_their_topic(settings: Settings) -> None:
    redis = connect(settings)
    events, items = settings.kafka.events_topic, settings.kafka.items_topic
    one, keys = first_generation(settings), Keys(settings.store)

    async def mark() -> None:
        for prefix in keys.prefixes:
            for partition in range(4):
                await redis.set(keys.mark(prefix, events, partition), 7)
                await redis.set(keys.mark(prefix, items, partition), 7)
        for prefix in keys.experiments:
            await redis.set(keys.mark(prefix, events, 0), 7)

    async def marks() -> list[Marks]:
        writer = StoreWriter(redis, settings)
        return [await writer.read_marks(events, partition) for partition in range(4)]

    try:
        first = {events: ("a", 4), items: ("b", 4)}
        # What was counted before anybody asked for identities stays.
        await mark()
        assert await follow_topics(redis, settings, one, first) == []
        assert await follow_topics(redis, settings, one, first) == []
        assert {found.lowest for found in await marks()} == {7}
        # It gets more partitions, and is the same topic.
        assert await follow_topics(redis, settings, one, {**first, events: ("a", 6)}) == []
        assert {found.lowest for found in await marks()} == {7}
        # The new one has fewer partitions; marks of all go.
        again = {events: ("c", 2), items: ("b", 4)}
        assert await follow_topics(redis, settings, one, again) == [events]
        for found in await marks():
            assert {*found.items.tolist(), *found.users.tolist(), found.totals} == {-1}
        assert await redis.get(keys.mark(keys.items[0], items, 0)) == b"7"
        assert await redis.get(keys.mark(keys.experiments[0], events, 0)) is None
        assert await follow_topics(redis, settings, one, again) == []
        # Of what Kafka does not tell now, nothing is known.
        await mark()
        assert await follow_topics(redis, settings, one, {}) == []
        assert {found.lowest for found in await marks()} == {7}
    finally:
        await redis.aclose()
