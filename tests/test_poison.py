"""Bad input: never an exception, never lost, and the good events around it are kept."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Settings, load_settings
from store.connect import connect
from store.reader import StoreReader
from streams import decode
from streams.columns import hash_names
from streams.decode import decode_batch
from streams.event import EventRules
from streams.producer import RecordProducer
from streams.records import Record, Records
from tests.conftest import StackFactory
from tests.live import eventually

NOW = 1_700_000_000_000
RULES = EventRules(load_settings().events)
Sent = tuple[bytes | None, bytes | None]


def event(extra: bytes = b"", user: bytes = b'"u"', time: bytes = b"1700000000000") -> bytes:
    head = b'{"user_id":%s,"item_id":"i","type":"view","timestamp":%s' % (user, time)
    return head + extra + b"}"


def good(n: int) -> Sent:
    """Events that must be counted, some of them odd."""
    user = ["u", "ü", "\0", "😀" * 128, "\ufeff", "a\u0301"][n % 6]
    fields = {"user_id": user, "item_id": f"item {n % 5}", "type": "view", "timestamp": NOW + n}
    value = orjson.dumps(fields)
    if n % 7 == 0:  # the last of two equal keys counts, as everywhere
        value = value[:-1] + b',"item_id":"the other"}'
    return user.encode(), value


LONG = "😀".encode() * 129
BAD: dict[str, tuple[Sent, str]] = {
    "neither key nor value": ((None, None), "empty"),
    "empty key alone": ((b"", None), "wrong_key"),
    "key alone, no UTF-8": ((b"\xff\xfe", None), "wrong_key"),
    "key alone, too long": ((LONG, None), "wrong_key"),
    "empty value": ((b"u", b""), "not_json"),
    "spaces": ((b"u", b" " * 500), "not_json"),
    "cut off": ((b"u", event()[:-1]), "not_json"),
    "trailing": ((b"u", event() + b"]"), "not_json"),
    "two events": ((b"u", event() + event()), "not_json"),
    "single quotes": ((b"u", event().replace(b'"', b"'")), "not_json"),
    "byte order mark": ((b"u", b"\xef\xbb\xbf" + event()), "not_json"),
    "UTF-16": ((b"u", event().decode().encode("utf-16")), "not_json"),
    "NUL bytes": ((b"u", b"\0" * 40), "not_json"),
    "no UTF-8": ((b"u", event(user=b'"\xff\xfe"')), "not_json"),
    "overlong UTF-8": ((b"u", event(user=b'"\xc0\x80"')), "not_json"),
    "surrogate in bytes": ((b"\xed\xa0\x80", event(user=b'"\xed\xa0\x80"')), "not_json"),
    "lone surrogate": ((b"\xed\xa0\x80", event(user=b'"\\ud800"')), "not_json"),
    "surrogates reversed": ((b"u", event(user=b'"\\udc00\\ud800"')), "not_json"),
    "NaN": ((b"u", event(time=b"NaN")), "not_json"),
    "Infinity": ((b"u", event(time=b"-Infinity")), "not_json"),
    "deep arrays": ((b"u", event(b',"x":' + b"[" * 60_000)), "not_json"),
    "deep objects": ((b"u", event(b',"x":' + b'{"a":' * 12_000)), "not_json"),
    "deeper": ((b"u", b"[" * 100_000), "too_large"),
    "a megabyte": ((b"u", event(b',"x":"%s"' % (b"x" * 1_000_000))), "too_large"),
    "as large as a record may be": ((b"u", b"x" * (2_097_152 - 200)), "too_large"),
    "array": ((b"u", b"[" + event() + b"]"), "invalid"),
    "number": ((b"u", b"17"), "invalid"),
    "null": ((b"u", b"null"), "invalid"),
    "empty object": ((b"u", b"{}"), "invalid"),
    "no user": ((b"u", b'{"item_id":"i","type":"view","timestamp":1}'), "invalid"),
    "empty user": ((b"", event(user=b'""')), "invalid"),
    "user a number": ((b"5", event(user=b"5")), "invalid"),
    "user null": ((b"null", event(user=b"null")), "invalid"),
    "user too long": (
        ("😀".encode() * 129, event(user=b'"%s"' % ("😀".encode() * 129))),
        "invalid",
    ),
    "time negative": ((b"u", event(time=b"-1")), "invalid"),
    "time a float": ((b"u", event(time=b"1700000000000.0")), "invalid"),
    "time with exponent": ((b"u", event(time=b"17e11")), "invalid"),
    "time a bool": ((b"u", event(time=b"true")), "invalid"),
    "time of 64 bits": ((b"u", event(time=b"9223372036854775808")), "invalid"),
    "time of 400 digits": ((b"u", event(time=b"1" * 400)), "invalid"),
    "time of 50000 digits": ((b"u", event(time=b"1" * 50_000)), "invalid"),
    "time before 1970": ((b"u", event(time=b'"1903-01-01T00:00:00Z"')), "invalid"),
    "time without zone": ((b"u", event(time=b'"2020-01-01T00:00:00"')), "invalid"),
    "time far ahead": ((b"u", event(time=b"253402300799999")), "in_future"),
    "time in 9999": ((b"u", event(time=b'"9999-12-31T23:59:59.999999-14:00"')), "in_future"),
    "last time wins": ((b"u", event(b',"timestamp":-5')), "invalid"),
    "position a float": ((b"u", event(b',"position":1.5')), "invalid"),
    "event_id too long": ((b"u", event(b',"event_id":"%s"' % (b"x" * 65))), "invalid"),
    "unknown type": ((b"u", event(b',"type":"sneeze"')), "unknown_type"),
    "type with NUL": ((b"u", event(b',"type":"view\\u0000"')), "unknown_type"),
    "null key": ((None, event()), "no_key"),
    "wrong key": ((b"someone else", event()), "wrong_key"),
    "key no UTF-8": ((b"\xff\xfe", event()), "wrong_key"),
    "empty key": ((b"", event()), "wrong_key"),
}


def mixed(seed: int, goods: int) -> list[tuple[Sent, str | None]]:
    """Good and bad ones in random order, each with why it is refused."""
    everything: list[tuple[Sent, str | None]] = [(good(n), None) for n in range(goods)]
    everything += BAD.values()
    Random(seed).shuffle(everything)
    return everything


@pytest.mark.parametrize("name", BAD)
def test_each_is_refused_for_its_reason(name: str) -> None:
    (key, value), reason = BAD[name]
    records = [Record(0, NOW, *good(1)), Record(1, NOW, key, value)]
    batch = decode_batch(Records.of([*records, Record(2, NOW, *good(2))]), RULES)
    assert batch.events.offset.tolist() == [0, 2]
    assert [dead.rejection.reason for dead in batch.rejected] == [reason]
    assert batch.rejected[0].record == records[1]


@pytest.mark.parametrize("together", [1, 7, 2000])
def test_all_together(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_TOGETHER", together)
    for seed in range(5):
        sent = mixed(seed, 60)
        records = [Record(n, NOW, *one) for n, (one, _) in enumerate(sent)]
        batch = decode_batch(Records.of(records), RULES)
        wanted = [n for n, (_, reason) in enumerate(sent) if reason is None]
        assert batch.events.offset.tolist() == wanted, f"seed {seed}"
        assert hash_names(batch.item_ids).tolist() == batch.events.item.tolist()
        refused = {dead.record.offset: dead.rejection.reason for dead in batch.rejected}
        assert refused == {n: reason for n, (_, reason) in enumerate(sent) if reason}


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = ["user_id", "item_id", "type", "timestamp", "event_id", "session_id", "position"]


@settings(max_examples=300, deadline=None, print_blob=True)
@given(
    st.lists(
        st.tuples(
            st.none() | st.binary(max_size=20) | st.just(b"u"),
            st.none()
            | st.binary(max_size=60)
            | st.dictionaries(st.sampled_from(names), json_values).map(
                lambda fields: orjson.dumps({**orjson.loads(event()), **fields})
            )
            | st.tuples(st.integers(0, 55), st.binary(max_size=4)).map(
                lambda cut: event()[: cut[0]] + cut[1] + event()[cut[0] + len(cut[1]) :]
            ),
        ),
        max_size=4,
    )
)
def test_nothing_raises_and_nothing_is_dropped(sent: list[Sent]) -> None:
    records = [Record(n, NOW, *one) for n, one in enumerate(sent)]
    batch = decode_batch(Records.of(records), RULES)
    offsets = batch.events.offset.tolist() + batch.tombstones.offset.tolist()
    offsets += [dead.record.offset for dead in batch.rejected]
    assert sorted(offsets) == list(range(len(sent)))
    assert all(dead.rejection.reason for dead in batch.rejected)


def read(
    settings: Settings, topic: str, count: int
) -> Iterator[tuple[tuple[int, int], Sent, dict[str, str]]]:
    """The first `count` records of a topic: (partition, offset), key and value, headers."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap,
            "group.id": "poison",
            "auto.offset.reset": "earliest",
            "log_level": 2,
        }
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(settings.kafka.partitions)])
    try:
        for _ in range(count):
            found = consumer.poll(30)
            assert found is not None, f"{topic} holds fewer than {count} records"
            assert found.error() is None
            place = found.partition(), found.offset()
            assert place[0] is not None
            assert place[1] is not None
            headers: Any = found.headers() or []
            yield (
                (place[0], place[1]),
                (found.key(), found.value()),
                {name: (value or b"").decode() for name, value in headers},
            )
        assert consumer.poll(1) is None, f"{topic} holds more than {count} records"
    finally:
        consumer.close()


async def test_a_worker_buries_every_bad_record_and_counts_every_good_one(
    settings: Settings, stack_factory: StackFactory
) -> None:
    sent = mixed(seed=1, goods=300)
    assert settings.kafka.bootstrap is not None
    with RecordProducer(settings.kafka.bootstrap) as producer:
        for (key, value), _ in sent:
            producer.publish(settings.kafka.events_topic, key, value)
    stored = {
        place: one for place, one, _ in read(settings, settings.kafka.events_topic, len(sent))
    }
    async with stack_factory(workers=1, processes=0):
        letters = list(read(settings, settings.kafka.dead_topic, len(BAD)))
        redis = connect(settings)
        reader = StoreReader(redis, settings)
        await eventually(reader.totals, lambda totals: totals.get("events", 0) >= 300)
        assert (await reader.totals())["events"] == 300
        await redis.aclose()
    reasons = sorted((str(one), reason) for one, reason in BAD.values())
    assert sorted((str(one), headers["reason"]) for _, one, headers in letters) == reasons
    sources = set()
    for _, one, headers in letters:
        assert headers["source.topic"] == settings.kafka.events_topic
        source = int(headers["source.partition"]), int(headers["source.offset"])
        assert stored[source] == one
        assert headers["message"]
        sources.add(source)
    assert len(sources) == len(BAD)
