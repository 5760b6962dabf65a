"""`headwater items` over a real Kafka: what a file's entries become, and what is refused."""

from __future__ import annotations

import csv
import gzip
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from commands.__main__ import run
from commands.item_files import ItemFile
from config.errors import BadInput
from config.settings import Settings
from streams.event import Rejection
from streams.item import CatalogueItem
from tests.test_feed import environment as environment
from tests.test_feed import records

CSV = "item_id,title,price,kinds,new,available\na,A thing,9.50,red|blue,TRUE,\nb,,,,,False\n"
LINES = (
    b'{"item_id":"a","title":"A thing","attributes":{"price":9.5,"kinds":["red","blue"],'
    b'"new":true}}\n\n{"item_id":"b","available":false}\n'
)
ITEMS = [
    CatalogueItem("a", "A thing", {"price": 9.5, "kinds": ["red", "blue"], "new": True}),
    CatalogueItem("b", available=False),
]


def read(tmp_path: Path, content: bytes) -> list[CatalogueItem | Rejection]:
    path = tmp_path / "items"
    path.write_bytes(content)
    return [row.item for row in ItemFile(path).rows()]


def imported(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    capsys.readouterr()
    assert run(["items", *arguments, "--json"]) == 0, capsys.readouterr().err
    captured = capsys.readouterr()
    found: dict[str, Any] = orjson.loads(captured.out)
    return found, captured.err


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "content", [CSV.encode(), LINES, b"\xef\xbb\xbf" + LINES, b"\xef\xbb\xbf" + CSV.encode()]
)
def test_the_forms_of_a_file(tmp_path: Path, content: bytes, packed: bool) -> None:
    assert read(tmp_path, gzip.compress(content) if packed else content) == ITEMS


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("9.50", 9.5),
        ("-3", -3.0),
        ("0", 0.0),
        ("007", "007"),
        ("1e5", "1e5"),
        ("+1", "+1"),
        ("1,5", "1,5"),
        ("1" * 16, "1" * 16),
        ("٣", "٣"),
        ("nan", "nan"),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("red|blue", ["red", "blue"]),
        ("red|", ["red"]),
        ("1|true", ["1", "true"]),
        ("|", []),
        (" a ", " a "),
    ],
)
def test_what_a_cell_becomes(tmp_path: Path, cell: str, value: object) -> None:
    [item] = read(tmp_path, f'item_id,x\na,"{cell}"\n'.encode())
    assert item == CatalogueItem("a", "", {"x": value})  # type: ignore[dict-item]
    assert type(item.attributes["x"]) is type(value)


@pytest.mark.parametrize(
    ("cell", "available"),
    [("true", True), ("1", True), ("", True), ("0", False), ("FALSE", False), ("no", None)],
)
def test_what_is_available(tmp_path: Path, cell: str, available: bool | None) -> None:
    [item] = read(tmp_path, f"available,item_id\n{cell},a\n".encode())
    if available is None:
        assert isinstance(item, Rejection)
        assert item.field == "available"
    else:
        assert item == CatalogueItem("a", available=available)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"item_id":""}', "item_id"),
        ('{"title":"x"}', "item_id"),
        ('{"item_id":"a","price":5}', "price"),
        ('{"item_id":"a","attributes":{"x":{}}}', "attributes"),
        ('{"item_id":"a"', "not JSON"),
        ("7", "Expected `object`"),
        ('{"item_id":"a","attributes":' + '{"x":' * 5000, "attributes"),
    ],
)
def test_lines_that_break_a_rule(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(f'{{"item_id":"first"}}\n{line}\n{{"item_id":"last"}}')
    first, bad, last = ItemFile(path).rows()
    assert (first.item, last.item) == (CatalogueItem("first"), CatalogueItem("last"))
    assert (first.line, bad.line, last.line) == (1, 2, 3)
    assert isinstance(bad.item, Rejection)
    assert said in f"{bad.item.field}: {bad.item}"


def test_everything_arrives_and_what_is_bad_is_named(
    environment: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "items.csv.gz"
    good = [f"i{n},Title {n},{n}" for n in range(3000)]
    bad = [f"{'x' * 129},t,1"] * 11
    short = ["i1,t"]
    rows = ["item_id,title,price", *good[:5], *bad, *short, *good[5:]]
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    found, said = imported(capsys, str(path))
    assert found == {"items": 3000, "seconds": found["seconds"], "rejected": 12}
    lines = said.splitlines()
    assert [line for line in lines if "item_id" in line] == lines[:10]
    assert lines[0].startswith("items.csv.gz, line 7: item_id: ")
    assert lines[10:] == ["items.csv.gz: 2 more were rejected and not sent"]
    messages = records(environment, environment.kafka.items_topic, 3000)
    values = [
        msgspec.json.decode(message.value() or b"", type=CatalogueItem) for message in messages
    ]
    keys = [(message.key() or b"").decode() for message in messages]
    assert keys == [item.item_id for item in values]
    assert {item.item_id: (item.title, item.attributes["price"]) for item in values} == {
        f"i{n}": (f"Title {n}", float(n)) for n in range(3000)
    }


def test_the_last_entry_of_an_item_counts_and_stdin_is_read(
    environment: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BufferedReader(io.BytesIO(b'{"item_id":"a"}\n{"item_id":"a","title":"new"}\n'))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=content))
    found, _ = imported(capsys, "-")
    assert (found["items"], found["rejected"]) == (2, 0)
    messages = records(environment, environment.kafka.items_topic, 2)
    assert [orjson.loads(message.value() or b"").get("title") for message in messages] == [
        None,
        "new",
    ]


def test_an_entry_that_no_record_can_hold(
    environment: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "items.jsonl"
    large = {"item_id": "large", "attributes": {"x": "y" * environment.kafka.max_record_bytes}}
    path.write_bytes(orjson.dumps(large) + b'\n{"item_id":"small"}\n')
    found, said = imported(capsys, str(path))
    assert (found["items"], found["rejected"]) == (1, 1)
    assert "line 1: " in said
    assert "bytes" in said
    records(environment, environment.kafka.items_topic, 1)


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (None, 2, "cannot be read"),
        ("", 2, "has no column item_id"),
        ("id,title\na,b\n", 2, "has no column item_id"),
        ("item_id,x,x\n", 2, "the column 'x' more than once"),
        ('[{"item_id":"a"}]', 2, "one object on each line"),
    ],
)
def test_what_cannot_be_imported(
    environment: Settings,
    content: str | None,
    code: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "items.csv"
    if content is not None:
        path.write_text(content)
    assert run(["items", str(path)]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


@pytest.mark.parametrize("whole", [CSV.encode() * 500, LINES * 500])
def test_a_file_that_ends_in_the_middle(tmp_path: Path, whole: bytes) -> None:
    packed = gzip.compress(whole, 0)
    path = tmp_path / "cut.gz"
    path.write_bytes(packed[: len(packed) // 2])
    read: list[CatalogueItem | Rejection] = []
    with pytest.raises(BadInput, match=r"cut\.gz"):
        read.extend(row.item for row in ItemFile(path).rows())
    assert read[:2] == ITEMS


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)


@effort(max_examples=60, deadline=None)
@given(st.lists(st.lists(_TEXT, min_size=3, max_size=3), max_size=9))
def test_no_row_is_lost(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["item_id", "title", "x"], *rows])
    found = read(tmp_path_factory.mktemp("rows"), text.getvalue().encode())
    assert len(found) == len(rows)
    for item, (item_id, title, cell) in zip(found, rows, strict=True):
        if isinstance(item, Rejection):
            assert item_id == ""
        else:
            assert (item.item_id, item.title) == (item_id, title)
            assert ("x" in item.attributes) == (cell != "")
