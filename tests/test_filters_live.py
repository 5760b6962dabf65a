"""Filters, boosts, availability and scenarios over the wire: Kafka, Redis and a worker are real."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from commands.stack import Stack
from config.services import Services
from tests.live import DEPARTMENTS, ITEMS, PROBLEM, eventually, get, ids, post, shop

pytestmark = pytest.mark.asyncio(loop_scope="module")
MOMENT = 1.0
"""Seconds after which what is not available must not be shown."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenarios") / "scenarios.toml"
    path.write_text('[only-tea]\nfilter = {kind = "tea"}\nstrict = true\n')
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory, scenarios: Path
) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("filters")
    async with shop(
        services,
        home,
        # Answers are compared: nothing may be learned in between.
        learn={"share": 0, "first_events": 0},
        http={"scenarios_file": scenarios},
    ) as stack:
        async with aiohttp.ClientSession(stack.http_url) as http:
            for department in DEPARTMENTS:
                for item in range(ITEMS):
                    await _put(http, department, item)
            # Every one, for the catalogue's other partition and its reader may be a moment behind.
            for department in DEPARTMENTS:
                for item in range(ITEMS):
                    await eventually(
                        partial(_fitting, http, {"item_id": f"{department}-{item}", "price": item}),
                        lambda found: len(found) == 1,
                    )
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(live: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(live.http_url) as session:
        yield session


async def _put(
    http: aiohttp.ClientSession, department: str, item: int, *, available: bool = True
) -> None:
    entry = {
        "title": f"{department.title()} no. {item}",
        "available": available,
        "attributes": {"kind": department, "price": item, "tags": ["odd"] if item % 2 else []},
    }
    async with http.put(f"/v1/items/{department}-{item}", json=entry) as answer:
        assert answer.status == 202, await answer.text()


async def _fitting(http: aiohttp.ClientSession, wanted: dict[str, Any]) -> list[Any]:
    answer = await ask(http, session=["tea-1"], n=100, filter=wanted, strict=True)
    found: list[Any] = answer["items"]
    return found


async def ask(http: aiohttp.ClientSession, **body: Any) -> dict[str, Any]:
    found: dict[str, Any] = await post(http, "/v1/recommendations", body)
    return found


async def test_a_filter_keeps_the_order_of_what_fits(http: aiohttp.ClientSession) -> None:
    session = ["tea-1", "tea-2"]
    everything = ids(await ask(http, session=session, n=10, strict=True))
    wanted = {"kind": {"in": ["tea", "soap"]}, "price": {"gte": 3, "lt": 8}}
    answer = await ask(http, session=session, n=4, filter=wanted)
    assert ids(answer) == [one for one in everything if 3 <= int(one[-1]) < 8][:4]
    assert "filled" not in answer
    odd = ids(await ask(http, session=session, n=4, filter={"tags": "odd"}))
    assert odd == [one for one in everything if int(one[-1]) % 2][:4]
    # Not by attributes alone.
    one = await ask(http, session=session, n=1, filter={"item_id": "tea-7"})
    assert ids(one) == ["tea-7"]


async def test_too_few_are_filled_up_and_told(http: aiohttp.ClientSession) -> None:
    wanted = {"kind": {"in": ["tea", "fish"]}, "price": {"lt": 2}}
    body: dict[str, Any] = {"session": ["tea-5"], "n": 8, "filter": wanted}
    strict = await ask(http, **body, strict=True)
    found = ids(strict)
    # Tea stands beside tea; of fish only trending knows.
    assert found[:2] in (["tea-0", "tea-1"], ["tea-1", "tea-0"])
    assert sorted(found[2:]) == ["fish-0", "fish-1"]
    assert strict["filled"] == {"trending": 2, "outside_filter": 0}
    filled = await ask(http, **body)
    assert ids(filled)[:4] == found
    assert len(filled["items"]) == 8
    assert filled["filled"] == {"trending": 2, "outside_filter": 4}
    assert [one.get("outside_filter", False) for one in filled["items"]] == [False] * 4 + [True] * 4
    assert not any(one["item_id"] in found for one in filled["items"][4:])
    # Nothing fits at all; nobody is known.
    nothing = await ask(http, filter={"price": {"gt": 99}}, n=3, strict=True)
    assert nothing["items"] == []
    some = await ask(http, user_id="nobody", filter={"price": {"gt": 99}}, n=3)
    assert some["filled"] == {"trending": 0, "outside_filter": 3}


async def test_pages_follow_each_other(http: aiohttp.ClientSession) -> None:
    lists: list[tuple[str, dict[str, Any] | None]] = [
        ("/v1/recommendations/u3?", None),
        ("/v1/recommendations/nobody?", None),
        ("/v1/trending?window=7d&", None),
        ("/v1/items/tea-1/similar?", None),
        ("/v1/recommendations", {"session": ["tea-5"], "filter": {"price": {"lt": 2}}}),
        ("/v1/recommendations", {"session": ["tea-5"], "explain": True, "diversity": 0.3}),
    ]

    async def page(path: str, body: dict[str, Any] | None, n: int, offset: int) -> dict[str, Any]:
        if body is None:
            found: dict[str, Any] = await get(http, f"{path}n={n}&offset={offset}")
            return found
        return await ask(http, **body, n=n, offset=offset)

    for path, body in lists:
        whole = (await page(path, body, 9, 0))["items"]
        parts = [await page(path, body, 3, offset) for offset in (0, 3, 6)]
        shown = [item for part in parts for item in part["items"]]
        assert shown == whole
        assert (await page(path, body, 5, 99))["items"] == []
    wanted = {"session": ["tea-5"], "filter": {"kind": "tea", "price": {"lt": 2}}}
    last = await ask(http, **wanted, n=4, offset=1)
    assert last["filled"] == {"trending": 0, "outside_filter": 3}
    for bad in ("-1", "100", "x"):
        problem = await get(http, f"/v1/trending?offset={bad}", 400)
        assert problem["field"] == "offset"


async def test_boosts_multiply(http: aiohttp.ClientSession) -> None:
    body = {"session": ["bread-1", "bread-2"], "n": 8}
    plain = await ask(http, **body)
    scores = {one["item_id"]: one["score"] for one in plain["items"]}
    last = ids(plain)[-1]
    boost = [
        {"filter": {"item_id": last}, "factor": 1000},
        {"filter": {"tags": "odd"}, "factor": 0.5},
    ]
    boosted = await ask(http, **body, boost=boost)
    assert ids(boosted)[0] == last
    for one in boosted["items"]:
        factor = 1000.0 if one["item_id"] == last else 1.0
        factor = factor / 2 if int(one["item_id"][-1]) % 2 else factor
        if one["item_id"] in scores:
            assert one["score"] == pytest.approx(factor * scores[one["item_id"]], rel=1e-6)
    explained = await ask(http, **body, boost=boost, explain=True)
    for one in explained["items"]:
        why = one["explanation"]
        votes = sum(part["co_occurrence"] + part["repeat"] for part in why["contributions"])
        assert why["factor"] * votes + why["trending"] == pytest.approx(one["score"], rel=1e-5)


async def test_a_scenario_filters_and_follows_its_file(
    live: Stack, http: aiohttp.ClientSession, scenarios: Path
) -> None:
    path = "/v1/recommendations/u2?n=5&scenario=only-tea"  # a user of fish
    assert {one.split("-")[0] for one in ids(await get(http, path))} == {"tea"}
    _write(scenarios, '[only-tea]\nfilter = {kind = "soap"}\nstrict = true\n')
    await eventually(
        lambda: get(http, path),
        lambda answer: {one.split("-")[0] for one in ids(answer)} == {"soap"},
    )
    # What cannot be read changes nothing.
    _write(scenarios, "[only-tea]\nfilter = {kind = {near = 1}}\n")
    await _eventually_logged(live, "a file stays as it was read before")
    assert {one.split("-")[0] for one in ids(await get(http, path))} == {"soap"}
    # What the request says goes over it.
    body = {"scenario": "only-tea", "filter": {"kind": "bread"}, "n": 3}
    assert {one.split("-")[0] for one in ids(await ask(http, **body))} == {"bread"}


def _write(path: Path, text: str) -> None:
    path.write_text(text)


async def _eventually_logged(live: Stack, text: str) -> None:
    server = live.server
    assert server is not None

    async def logged() -> bool:
        return text in server.log.read_text()

    await eventually(logged, bool)


async def test_what_is_not_available_vanishes_everywhere(http: aiohttp.ClientSession) -> None:
    await post(http, "/v1/events", [_bought("u1", "fish-1"), _bought("u1", "fish-2")], 202)
    bought = "/v1/items/fish-1/similar?relation=bought"
    await eventually(lambda: get(http, bought), lambda answer: ids(answer) == ["fish-2"])
    paths = [
        "/v1/recommendations/u2?n=40",
        "/v1/recommendations/nobody?n=40",
        "/v1/items/fish-1/similar?n=40",
        "/v1/trending?n=40&window=7d",
        bought,
    ]

    async def shown() -> list[bool]:
        answers = [await get(http, path) for path in paths]
        answers.append(await ask(http, session=["fish-1", "fish-2"], n=40))
        answers.append(await ask(http, session=["tea-1"], filter={"price": {"gte": 0}}, n=40))
        # In the order of their difference, not of their scores.
        varied = await ask(http, session=["fish-1"], n=9, diversity=0.5)
        found = [ids(answer) for answer in answers]
        found.append([item["item_id"] for item in varied["items"]])
        return ["fish-2" in some for some in found]

    assert all(await shown())
    began = time.monotonic()
    await _put(http, "fish", 2, available=False)
    await eventually(shown, lambda found: not any(found), MOMENT + 4)
    print(f"gone after {time.monotonic() - began:.2f} s, all eight requests included")
    entry = await get(http, "/v1/items/fish-2")
    assert entry["available"] is False
    # It still says what goes with it.
    assert ids(await get(http, "/v1/items/fish-2/similar?n=3"))
    await _put(http, "fish", 2)
    await eventually(shown, all)
    # Without an entry, nothing says that it is not available.
    await _put(http, "fish", 2, available=False)
    await eventually(shown, lambda found: not any(found))
    async with http.delete("/v1/items/fish-2") as answer:
        assert answer.status == 202
    await eventually(shown, lambda found: found[0] and found[2] and found[3])
    await _put(http, "fish", 2)


def _bought(user: str, item: str) -> dict[str, Any]:
    now = time.time_ns() // 1_000_000
    return {"user_id": user, "item_id": item, "type": "purchase", "timestamp": now}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"filter": 1}, "filter"),
        ({"filter": {"price": {"below": 3}}}, "filter.price.below"),
        ({"filter": {"or": [{}, {"price": {"lt": "3"}}]}}, "filter.or[1].price.lt"),
        ({"boost": [{"filter": {}, "factor": 0}]}, "boost[0].factor"),
        ({"boost": [{"filter": {"a": None}, "factor": 1}]}, "boost[0].filter.a"),
        ({"boost": [{"filter": {}, "factor": 1}] * 17}, "boost"),
        ({"filter": {"price": {"gt": 10**30}}, "strict": 1}, "strict"),
    ],
)
async def test_what_breaks_a_rule_is_named(
    http: aiohttp.ClientSession, body: dict[str, Any], field: str
) -> None:
    for path, sent, name in (
        ("/v1/recommendations", body, field),
        ("/v1/recommendations/batch", [{}, body], f"[1].{field}"),
    ):
        async with http.post(path, json=sent) as answer:
            assert answer.status == 400
            assert answer.content_type == PROBLEM
            assert (await answer.json(content_type=None))["field"] == name


async def test_a_batch_may_filter_each_its_own_way(http: aiohttp.ClientSession) -> None:
    bodies: list[dict[str, Any]] = [
        {"session": ["tea-1"], "n": 3, "filter": {"kind": kind}, "strict": True}
        for kind in DEPARTMENTS
    ]
    bodies.append({"session": ["tea-1"], "n": 3})
    for _ in range(2):  # what filters say of items is kept
        answers = await post(http, "/v1/recommendations/batch", bodies)
        for kind, answer in zip((*DEPARTMENTS, "tea"), answers, strict=True):
            assert {one.split("-")[0] for one in ids(answer)} == {kind}
            assert len(answer["items"]) == 3
