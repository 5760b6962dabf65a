"""Every rule of the event: what is taken, what it becomes, and why the rest is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import load_settings
from streams.columns import (
    EVENT_BITS,
    RESERVED_IDS,
    TAG_BITS,
    EventColumns,
    concatenate,
    event_key,
    event_keys,
    hash_id,
    hash_names,
    session_tag,
    session_tags,
)
from streams.decode import DecodedBatch, decode_batch, decode_batches, join_decoded
from streams.event import EventRules, Rejection, time_of
from streams.records import Record, Records

NOW = 1_700_000_000_000
GOOD: dict[str, Any] = {"user_id": "u", "item_id": "i", "type": "view", "timestamp": NOW}
RULES = EventRules(load_settings().events)


def record(offset: int = 0, key: bytes | None = b"u", **fields: Any) -> Record:
    value = {name: v for name, v in {**GOOD, **fields}.items() if v is not ...}
    return Record(offset, NOW, key, orjson.dumps(value))


def changed(name: str, value: object) -> Record:
    more: dict[str, Any] = {name: value}
    return record(**more)


def decoded(*records: Record) -> DecodedBatch:
    return decode_batch(Records.of(records), RULES)


def rejection(one: Record) -> Rejection:
    """Why a record is refused, alone and behind a good one."""
    alone, behind = decoded(one), decoded(record(7), one)
    assert len(alone.events) == 0
    assert behind.events.offset.tolist() == [7]
    assert str(alone.rejected[0].rejection) == str(behind.rejected[0].rejection)
    assert behind.rejected[0].record == one
    return alone.rejected[0].rejection


def test_the_columns_of_a_full_event() -> None:
    batch = decoded(
        record(
            41,
            "ü".encode(),
            user_id="ü",
            item_id="item 5",
            type="purchase",
            timestamp=NOW - 5,
            event_id="e1",
            session_id="s1",
            recommendation_id="r1",
            position=0,
            unknown={"deep": [1, {"er": None}]},
        )
    )
    events = batch.events
    assert batch.item_ids == [b"item 5"]
    assert batch.rejected == []
    assert events.offset.tolist() == [41]
    assert events.user.tolist() == [hash_id("ü")]
    assert events.item.tolist() == [hash_id("item 5")]
    assert events.time.tolist() == [NOW - 5]
    assert events.kind.tolist() == [3]
    assert events.event.tolist() == [event_key("e1")]
    assert events.tag.tolist() == [session_tag("s1")]


def test_what_is_optional_is_zero() -> None:
    for nothing in (..., None, ""):
        events = decoded(record(event_id=nothing, session_id=nothing)).events
        assert (events.event.tolist(), events.tag.tolist()) == ([0], [0])


def test_types_stand_for_their_place_in_the_settings() -> None:
    rules = EventRules(load_settings(events={"weights": {"b": 1, "a": 0, "c": 2}}).events)
    records = [record(n, type=kind) for n, kind in enumerate("abc")]
    assert decode_batch(Records.of(records), rules).events.kind.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (0, 0),
        (1, 1),
        (NOW, NOW),
        (NOW + 300_000, NOW + 300_000),
        ("1970-01-01T00:00:00Z", 0),
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14t22:13:20z", NOW),
        ("2023-11-14T23:13:20+01:00", NOW),
        ("2023-11-14T22:13:20.123Z", NOW + 123),
        ("2023-11-14T22:13:20.123999Z", NOW + 123),
    ],
)
def test_times(written: object, meant: int) -> None:
    assert decoded(record(timestamp=written)).events.time.tolist() == [meant]


@given(st.datetimes(datetime(1970, 1, 1), datetime(2023, 11, 14)))
@settings(max_examples=50, deadline=None)
def test_times_as_text_are_rounded_down(time: datetime) -> None:
    event = RULES.decode(record(timestamp=time.replace(tzinfo=UTC).isoformat()).value)
    exact = (time.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000
    assert time_of(event) == pytest.approx(exact - 0.5, abs=0.502)


@pytest.mark.parametrize(
    "written",
    [
        -1,
        2**63 - 1,
        2**63,
        2**64,
        10**15,
        float(NOW),
        1.5,
        True,
        None,
        [NOW],
        {},
        "",
        "now",
        str(NOW),
        "2023-11-14T22:13:20",
        "2023-11-14",
        "2023-02-30T00:00:00Z",
        "1969-12-31T23:59:59.999Z",
        "0001-01-01T00:00:00+14:00",
    ],
)
def test_times_that_are_none(written: object) -> None:
    one = record()
    text = orjson.dumps(written) if not isinstance(written, int) else str(written).lower().encode()
    assert one.value is not None
    value = one.value.replace(str(NOW).encode(), text)
    refused = rejection(Record(0, NOW, b"u", value))
    assert (refused.reason, refused.field) == ("invalid", "timestamp")


@pytest.mark.parametrize("digits", [30, 400, 4_299, 4_300, 4_301, 60_000])
def test_integers_longer_than_any_clock(digits: int) -> None:
    one = record()
    assert one.value is not None
    value = one.value.replace(str(NOW).encode(), b"9" * digits)
    refused = rejection(Record(0, NOW, b"u", value))
    assert (refused.reason, refused.field) == ("invalid", "timestamp")


@pytest.mark.parametrize("written", [NOW + 300_001, 253_402_300_799_999, "2023-11-14T22:18:21Z"])
def test_times_to_come(written: object) -> None:
    refused = rejection(record(timestamp=written))
    assert (refused.reason, refused.field) == ("in_future", "timestamp")
    assert "300 s are allowed" in str(refused)


@pytest.mark.parametrize("name", ["user_id", "item_id"])
def test_ids(name: str) -> None:
    bound = "😀" * 128
    for text in ("x", " ", "\0", "é", "e\u0301", "\u202e", bound):
        key = text.encode() if name == "user_id" else b"u"
        assert len(decoded(record(0, key, **{name: text})).events) == 1
    for wrong in ("", bound + "x", None, 5, 1.0, True, ["x"], {"x": 1}, ...):
        refused = rejection(changed(name, wrong))
        assert (refused.reason, refused.field) == ("invalid", name), wrong


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("event_id", ["x" * 64, "😀" * 64], ["x" * 65, 5, True, []]),
        ("session_id", ["x" * 128, "😀" * 128], ["x" * 129, 5, True, []]),
        ("recommendation_id", ["x" * 64], ["x" * 65, 5]),
        ("position", [0, 1_000_000], [-1, 1_000_001, 1.0, "1", True]),
    ],
)
def test_optional_fields(name: str, good: list[object], bad: list[object]) -> None:
    for value in good:
        assert len(decoded(changed(name, value)).events) == 1, value
    for value in bad:
        refused = rejection(changed(name, value))
        assert (refused.reason, refused.field) == ("invalid", name), value


def test_types() -> None:
    refused = rejection(record(type="sneeze"))
    assert (refused.reason, refused.field) == ("unknown_type", "type")
    assert "view, click, cart, purchase, like, dislike" in str(refused)
    assert rejection(record(type="VIEW")).reason == "unknown_type"
    assert rejection(record(type="")).reason == "unknown_type"
    assert len(str(rejection(record(type="x" * 60_000)))) < 200
    for wrong in (None, 1, ["view"], ...):
        assert (rejection(record(type=wrong)).reason) == "invalid"


def test_keys() -> None:
    assert rejection(record(key=None)).reason == "no_key"
    for key in (b"", b"v", b"U", b"u ", b"\xff", b'"u"'):
        assert rejection(record(key=key)).reason == "wrong_key"


def test_sizes() -> None:
    one = record()
    assert one.value is not None
    room = 65_536 - len(one.value)
    fits = Record(0, NOW, b"u", one.value + b" " * room)
    assert len(decoded(fits).events) == 1
    refused = rejection(Record(0, NOW, b"u", one.value + b" " * (room + 1)))
    assert refused.reason == "too_large"
    assert "65536" in str(refused)


def test_values_that_are_no_events() -> None:
    assert rejection(Record(0, NOW, None, None)).reason == "empty"
    for value in (b"", b" ", b"{", b"nonsense", b"\xff\xfe"):
        assert rejection(Record(0, NOW, b"u", value)).reason == "not_json", value
    for value in (b"null", b"1", b'"x"', b"[]", b"{}"):
        assert rejection(Record(0, NOW, b"u", value)).reason == "invalid", value


def test_a_key_without_a_value_is_a_tombstone() -> None:
    longest = ("😀" * 128).encode()
    records = [record(3), Record(4, NOW, b"u", None), record(5, time=NOW), record(6)]
    batch = decoded(*records, Record(8, NOW, longest, None), Record(9, NOW, b"x", b"{"))
    assert batch.events.offset.tolist() == [3, 5, 6]
    assert [dead.record.offset for dead in batch.rejected] == [9]
    assert batch.tombstones.offset.tolist() == [4, 8]
    assert batch.tombstones.user.tolist() == hash_names([b"u", longest]).tolist()
    assert batch.tombstones.row.tolist() == [1, 3]
    assert len(decoded(record()).tombstones) == 0
    for key in (b"", b"\xff\xfe", ("😀" * 129).encode()):
        assert rejection(Record(0, NOW, key, None)).reason == "wrong_key"


def test_tombstones_stand_where_they_stood_when_batches_are_joined_and_cut() -> None:
    gone = Record(9, NOW, b"u", None)
    parts = [decoded(record(), gone), decoded(record(), record(), gone, gone), decoded(gone)]
    joined = join_decoded(parts).tombstones
    assert joined.row.tolist() == [1, 3, 3, 3]
    assert joined.take(
        np.array([True, False, True, True]), np.array([False, True, True])
    ).row.tolist() == [0, 2, 2]


def test_no_records() -> None:
    batch = decoded()
    assert len(batch.events) == 0
    assert batch.events.user.dtype == np.uint64
    assert (batch.item_ids, batch.rejected) == ([], [])


_KINDS = st.sampled_from(["good", "bad", "gone"])


@given(st.lists(st.lists(_KINDS, max_size=4), min_size=1, max_size=5), st.booleans())
def test_batches_decoded_together_are_each_as_alone(
    partitions: list[list[str]], only_good: bool
) -> None:
    made = {
        "good": lambda at: record(at, b"u", item_id=f"i{at}"),
        "bad": lambda at: Record(at, NOW, b"u", b"{"),
        "gone": lambda at: Record(at, NOW, b"u", None),
    }
    batches = [
        Records.of([made["good" if only_good else kind](at) for at, kind in enumerate(kinds)])
        for kinds in partitions
    ]
    together = decode_batches(batches, RULES)
    for found, alone in zip(together, [decode_batch(one, RULES) for one in batches], strict=True):
        for name in EventColumns.__dataclass_fields__:
            one, other = getattr(found.events, name), getattr(alone.events, name)
            assert one.tolist() == other.tolist()
            assert one.dtype == other.dtype
        assert found.item_ids == alone.item_ids
        assert [str(dead.rejection) for dead in found.rejected] == [
            str(dead.rejection) for dead in alone.rejected
        ]
        assert found.tombstones.offset.tolist() == alone.tombstones.offset.tolist()
        assert found.tombstones.row.tolist() == alone.tombstones.row.tolist()


def test_batches_behind_one_another() -> None:
    both = concatenate([decoded(record(1)).events, decoded(record(2), record(3)).events])
    assert both.offset.tolist() == [1, 2, 3]
    assert both.take(np.array([2, 0])).offset.tolist() == [3, 1]


@given(st.lists(st.text(max_size=40), max_size=9))
@settings(max_examples=100, deadline=None)
def test_hashes_keep_to_their_bits(texts: list[str]) -> None:
    texts = [text for text in texts if text.isprintable()]
    names = [text.encode() for text in texts]
    assert hash_names(names).tolist() == [hash_id(text) for text in texts]
    some = [*texts, None]
    keys = [event_key(text) if text else 0 for text in some]
    tags = [session_tag(text) if text else 0 for text in some]
    assert event_keys(some).tolist() == keys
    assert session_tags(some).tolist() == tags
    for text in texts:
        assert RESERVED_IDS <= hash_id(text) < 2**64
        assert 0 < event_key(text) < 2**EVENT_BITS
        assert 0 < session_tag(text) < 2**TAG_BITS
