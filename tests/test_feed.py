"""`headwater feed` over a real Kafka: what arrives, what is refused, and at what pace."""

from __future__ import annotations

import csv
import gzip
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from commands.__main__ import run
from commands.csv_events import EventFile, Row
from config.errors import BadInput
from config.settings import Settings, load_settings
from streams.event import Event, Rejection

HEADER = "timestamp_ms,user_id,item_id,type"
START = 1_700_000_000_000


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Commands run in this process find the test's own topics."""
    for name in ("bootstrap", "events_topic", "items_topic", "dead_topic", "recommendations_topic"):
        monkeypatch.setenv(f"HEADWATER_KAFKA__{name.upper()}", getattr(settings.kafka, name))
    return settings


def records(settings: Settings, topic: str, count: int) -> list[Message]:
    """The first `count` records of a topic, and that there are no more."""
    consumer = Consumer(
        {"bootstrap.servers": settings.kafka.bootstrap, "group.id": "t", "log_level": 2}
    )
    try:
        parts = [TopicPartition(topic, p, 0) for p in range(settings.kafka.partitions)]
        ends = [consumer.get_watermark_offsets(part, timeout=20)[1] for part in parts]
        assert sum(ends) == count
        consumer.assign(parts)
        found: list[Message] = []
        limit = time.monotonic() + 30
        while len(found) < count and time.monotonic() < limit:
            found += consumer.consume(count - len(found), timeout=1)
    finally:
        consumer.close()
    assert len(found) == count
    return found


def values(messages: list[Message]) -> list[dict[str, Any]]:
    return [orjson.loads(message.value() or b"") for message in messages]


def fed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    capsys.readouterr()
    assert run(["feed", *arguments, "--json"]) == 0, capsys.readouterr().err
    captured = capsys.readouterr()
    found: dict[str, Any] = orjson.loads(captured.out)
    return found, captured.err


def test_events_arrive_whole_and_in_order(
    environment: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(START + i, f"u{i % 17}", f"i{i % 31}", "view") for i in range(2000)]
    path = tmp_path / "events.csv"
    path.write_text("\n".join([HEADER, *(",".join(map(str, row)) for row in rows)]) + "\n")
    found, said = fed(capsys, str(path))
    assert (found["events"], found["rejected"]) == (2000, 0)
    assert found["seconds"] > 0
    assert "rejected" not in said
    messages = records(environment, environment.kafka.events_topic, 2000)
    assert all(
        m.key() == v["user_id"].encode() for m, v in zip(messages, values(messages), strict=True)
    )
    by_user: dict[str, list[int]] = {}
    for value in values(messages):
        by_user.setdefault(value["user_id"], []).append(value["timestamp"])
    assert len(by_user) == 17
    assert all(times == sorted(times) for times in by_user.values())
    assert (
        sorted((v["timestamp"], v["user_id"], v["item_id"], v["type"]) for v in values(messages))
        == rows
    )


def test_any_order_of_columns_and_gzip(
    environment: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.csv.gz"
    path.write_bytes(
        gzip.compress(
            "\ufeffprice,type,session_id,item_id,user_id,timestamp_ms\r\n"
            f'9.5,cart,s1,"a, ""b""",ü,{START}\r\n'
            f"1,view,,c,v,{START + 1}\r\n".encode()
        )
    )
    found, _ = fed(capsys, str(path))
    assert (found["events"], found["rejected"]) == (2, 0)
    got = values(records(environment, environment.kafka.events_topic, 2))
    first = {
        "user_id": "ü",
        "item_id": 'a, "b"',
        "type": "cart",
        "timestamp": START,
        "session_id": "s1",
    }
    second = {"user_id": "v", "item_id": "c", "type": "view", "timestamp": START + 1}
    assert sorted(got, key=lambda value: value["timestamp"]) == [first, second]


def test_rows_that_break_a_rule_are_told_and_left_out(
    environment: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    future = int(time.time() * 1000) + 3_600_000
    bad = {
        "yesterday,u,a,view": "timestamp_ms 'yesterday' is not a whole number",
        f"{START},,a,view": "user_id",
        f"{START},u,{'x' * 129},view": "item_id",
        f"{START},u,a,blink": "type 'blink' is none of view",
        f"{START},u,a": "3 columns where the header has 4",
        f"{future},u,a,view": "in the future",
        "-5,u,a,view": "timestamp_ms '-5'",
    }
    lines = [HEADER, f"{START},u,a,view", "", *bad, f"{START},u,b,view"]
    path = tmp_path / "events.csv"
    path.write_text("\n".join(lines))
    found, said = fed(capsys, str(path))
    assert (found["events"], found["rejected"]) == (2, len(bad))
    assert f"{len(bad)} rows rejected" in said
    for line, reason in list(enumerate(bad.values(), 4))[:5]:
        assert any(f"line {line}: " in one and reason in one for one in said.splitlines()), line
    assert "line 9: " not in said
    got = values(records(environment, environment.kafka.events_topic, 2))
    assert sorted(value["item_id"] for value in got) == ["a", "b"]


def test_a_steady_pace(
    environment: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.csv"
    path.write_text("\n".join([HEADER, *(f"{START + i},u{i},i,view" for i in range(300))]))
    found, _ = fed(capsys, str(path), "--rate", "150")
    assert 1.9 < found["seconds"] < 10
    messages = records(environment, environment.kafka.events_topic, 300)
    arrived = sorted(message.timestamp()[1] for message in messages)
    # The first ones wait for the connection; from there on the broker sees the pace.
    assert 0.7 < (arrived[-1] - arrived[150]) / 1000 < 2
    assert 0.3 < (arrived[225] - arrived[150]) / (arrived[-1] - arrived[150]) < 0.7


def test_times_can_be_moved_to_now(
    environment: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.csv"
    rows = [f"{START + 5000},u,b,view", f"{START},u,a,view", f"{START + 9000},u,c,view"]
    path.write_text("\n".join([HEADER, *rows]))
    before = int(time.time() * 1000)
    found, _ = fed(capsys, str(path), "--shift-to-now")
    after = int(time.time() * 1000)
    assert found["events"] == 3
    got = values(records(environment, environment.kafka.events_topic, 3))
    times = {value["item_id"]: value["timestamp"] for value in got}
    assert before <= times["c"] <= after
    assert (times["c"] - times["a"], times["c"] - times["b"]) == (9000, 4000)


def test_a_catalogue_goes_first(
    environment: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.csv"
    path.write_text(f"{HEADER}\n{START},u,a,view\n")
    items = tmp_path / "items.csv"
    items.write_text(
        "title,item_id,price,colour,code\nA thing,a,9.50,red,007\n,b,12,,\n"
        f"no id,,1,,\n{'x' * 600},c,1,,\n"
    )
    found, said = fed(capsys, str(path), "--items", str(items))
    assert found == {"events": 1, "seconds": found["seconds"], "rejected": 0}
    assert "items.csv: 2 rows rejected" in said
    assert "line 4: " in said
    messages = records(environment, environment.kafka.items_topic, 2)
    got = {message.key(): orjson.loads(message.value() or b"") for message in messages}
    attributes = {"price": 9.5, "colour": "red", "code": "007"}
    assert got == {
        b"a": {"item_id": "a", "title": "A thing", "attributes": attributes},
        b"b": {"item_id": "b", "attributes": {"price": 12.0}},
    }


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (None, [], "cannot be read"),
        ("", [], "has no column timestamp_ms, user_id, item_id, type"),
        ("user_id,timestamp_ms,kind\n", [], "has no column item_id, type"),
        (f"{HEADER}\n", ["--shift-to-now"], "no event"),
        (f"{HEADER}\n", ["--rate", "0"], "above 0"),
        (f"{HEADER}\n", ["--items", "/nowhere.csv"], "cannot be read"),
    ],
)
def test_what_cannot_be_fed(
    content: str | None,
    options: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "events.csv"
    if content is not None:
        path.write_text(content)
    assert run(["feed", str(path), *options]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_without_a_kafka_it_says_how_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.csv"
    path.write_text(f"{HEADER}\n{START},u,a,view\n")
    assert run(["feed", str(path)]) == 2
    assert "HEADWATER_KAFKA__BOOTSTRAP" in capsys.readouterr().err


def test_a_file_that_ends_in_the_middle(tmp_path: Path) -> None:
    whole = gzip.compress(
        "\n".join([HEADER, *(f"{i},u{i},a{i * 7919},view" for i in range(5000))]).encode()
    )
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    read: list[Row] = []
    with pytest.raises(BadInput, match=r"cut\.csv\.gz, after line \d+"):
        read.extend(EventFile(path, load_settings().events).rows())
    assert len(read) > 1000
    assert all(isinstance(row.event, Event) for row in read)
    path.write_bytes(f"{HEADER}\n1,\xff,a,view\n".encode("latin-1"))
    with pytest.raises(BadInput, match="utf-8"):
        list(EventFile(path, load_settings().events).rows())


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=130)
_ROW = st.tuples(st.integers(-5, START), _TEXT, _TEXT, st.sampled_from(["view", "like", "?"]))


@effort(max_examples=60, deadline=None)
@given(rows=st.lists(_ROW, max_size=30), packed=st.booleans())
def test_every_row_is_an_event_or_a_rejection(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str, str, str]], packed: bool
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([HEADER.split(","), *rows])
    path = tmp_path_factory.mktemp("rows") / "events.csv"
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if packed else data)

    def expected() -> Iterator[Event | None]:
        for moment, user, item, kind in rows:
            good = moment >= 0 and 0 < len(user) <= 128 and 0 < len(item) <= 128 and kind != "?"
            yield Event(user, item, kind, moment) if good else None

    found = [row.event for row in EventFile(path, load_settings().events).rows()]
    assert [None if isinstance(one, Rejection) else one for one in found] == list(expected())
