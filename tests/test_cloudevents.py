"""CloudEvents' binary mode on Kafka: what a record's headers add to its value."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from config.settings import load_settings
from streams.cloudevents import attributes_of, bounded, filled
from streams.columns import event_key
from streams.decode import decode_batch
from streams.event import EventRules
from streams.records import Header, Record, Records, concatenate_records

NOW = 1_700_000_000_000
RULES = EventRules(load_settings(events={"names": {"seen": "view"}}).events)
HEADERS: list[Header] = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"e-1"),
    ("ce_source", b"/shop"),
    ("ce_type", b"seen"),
    ("ce_time", b"2023-11-14T22:13:19Z"),
    ("content-type", b"application/json"),
]
PLAIN = orjson.dumps({"user_id": "u", "item_id": "i", "type": "view", "timestamp": NOW})


def record(offset: int, value: bytes | None, headers: list[Header] | None = None) -> Record:
    return Record(offset, NOW, b"u", value, HEADERS if headers is None else headers)


def test_the_headers_fill_what_the_data_lacks() -> None:
    values = [
        b'{"user_id":"u","item_id":"i"}',
        b' {"user_id":"u","item_id":"i","event_id":null,"type":"like","timestamp":5} ',
        b'{"user_id":"u","item_id":"i","event_id":"own"}',
    ]
    records = [record(n, value) for n, value in enumerate(values)]
    batch = decode_batch(Records.of([*records, record(3, PLAIN, [])]), RULES)
    assert batch.rejected == []
    assert batch.events.kind.tolist() == [0, 4, 0, 0]
    assert batch.events.time.tolist() == [NOW - 1000, 5, NOW - 1000, NOW]
    assert batch.events.event.tolist() == [event_key("e-1")] * 2 + [event_key("own"), 0]


def test_other_headers_change_nothing() -> None:
    others: list[Header] = [("trace", b"\xff"), ("ce_id", None), ("ce_other", b"x")]
    with_headers = decode_batch(Records.of([record(0, PLAIN, others)]), RULES)
    without = decode_batch(Records.of([record(0, PLAIN, [])]), RULES)
    assert with_headers.events.event.tolist() == without.events.event.tolist() == [0]
    assert with_headers.events.time.tolist() == without.events.time.tolist()


def test_what_cannot_be_counted_can_be_sent_again_as_it_is() -> None:
    future: list[Header] = [("ce_id", b"e"), ("ce_time", b"2099-01-01T00:00:00Z")]
    records = [
        record(0, b'{"user_id":"u","item_id":"i","type":"view"}', future),
        record(1, b"[]"),
        record(2, b"{"),
        record(3, b"{}"),
        record(4, None),
    ]
    batch = decode_batch(Records.of(records), RULES)
    assert [dead.rejection.reason for dead in batch.rejected] == [
        "in_future",
        "invalid",
        "not_json",
        "invalid",
    ]
    assert orjson.loads(batch.rejected[0].record.value or b"")["event_id"] == "e"
    assert [dead.record.value for dead in batch.rejected[1:3]] == [b"[]", b"{"]
    # A record without a value forgets its user, whatever its headers say.
    assert batch.tombstones.offset.tolist() == [4]


def test_records_as_aiokafka_reads_them_keep_their_headers() -> None:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    data = b'{"user_id":"u","item_id":"i"}'
    for n, headers in enumerate([[], HEADERS, [], HEADERS]):
        builder.append(n, NOW, b"u", data if headers else PLAIN, headers)
    batch = MemoryRecords(bytes(builder.build())).next_batch()
    records = Records.of(batch)
    plain = Records.of([record(9, PLAIN, [])])
    assert plain.headers is None
    several = concatenate_records([records.span(1, 4), plain])
    assert [list(one.headers) for one in several] == [HEADERS, [], HEADERS, []]
    assert decode_batch(several, RULES).events.event.tolist() == [event_key("e-1"), 0] * 2
    assert concatenate_records([plain, plain]).headers is None


@pytest.mark.parametrize("offsets", [[], [7], [7, 8, 9], [7, 9], [0, 5, 6]])
def test_offsets_with_and_without_gaps(offsets: list[int]) -> None:
    records = Records.of([record(offset, PLAIN) for offset in offsets])
    assert records.offset.tolist() == offsets
    assert records.offset.dtype == "int64"


_NUMBERS = st.integers(-(2**63), 2**63)
_FIELDS = st.dictionaries(
    st.sampled_from(["event_id", "timestamp", "type", "user_id", "x"]),
    st.none() | st.text(max_size=3) | _NUMBERS | st.lists(_NUMBERS, max_size=2),
)


@given(_FIELDS, *[st.none() | st.text(max_size=70)] * 3, st.sampled_from(["", " ", "\n\t"]))
def test_filled_is_as_if_fields_were_set(
    data: dict[str, Any], event_id: str | None, time: str | None, kind: str | None, space: str
) -> None:
    """The slow way: decode, set, encode."""
    told = {"event_id": bounded(event_id) if event_id else None, "timestamp": time, "type": kind}
    more = {n: value for n, value in told.items() if value is not None and data.get(n) is None}
    body = (space + orjson.dumps(data, option=orjson.OPT_INDENT_2).decode() + space).encode()
    value, got = filled(body, {}, id=event_id, time=time, type=kind)
    assert orjson.loads(value) == {**data, **more}
    assert sorted(got) == sorted(more)


def test_attributes() -> None:
    assert attributes_of(HEADERS) == {"id": "e-1", "type": "seen", "time": "2023-11-14T22:13:19Z"}
    assert attributes_of([("ce_id", b"\xff")]) == {"id": "\ufffd"}
    assert attributes_of([]) == {}


def test_long_ids_are_hashed() -> None:
    assert bounded("x" * 64) == "x" * 64
    assert len(bounded("x" * 65)) == 32
    assert bounded("x" * 65) != bounded("x" * 66)
