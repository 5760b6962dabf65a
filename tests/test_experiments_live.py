"""An experiment over the wire, with an effect that is known: what is attributed is what was sent,
while the worker is killed in the midst.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from commands.stack import Stack, child_environment
from config.services import Services
from store.attribution import read_outcomes
from store.connect import connect
from store.keys import Keys
from streams.columns import hash_id
from streams.shown import Shown
from tests.live import click, eventually, get, ids, post, shop
from tests.test_generations import run
from tests.test_poison import read

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEED = 20_260_707
USERS = 300
EFFECT = {"control": 0.2, "steep": 0.5}
BUYING = {"control": 0.05, "steep": 0.3}
RUNNING = """
[elsewhere]
scenarios = ["email"]
[elsewhere.variants.one]
[elsewhere.variants.two]
[steeper]
[steeper.variants.control]
[steeper.variants.steep]
settings = {rank = {idf_power = 6.0, count_power = 1.0, session_items = 1}}
scenario = {exclude_seen = true}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """Two server processes, a worker, and a file of experiments."""
    home = tmp_path_factory.mktemp("experiments")
    file = home / "experiments.toml"
    file.write_text(RUNNING)
    experiments = {"file": str(file), "lift": 1.0}
    learn = {"share": 0, "first_events": 0}
    async with shop(services, home, processes=2, experiments=experiments, learn=learn) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(live: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    # A connection for each request: both processes answer.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(live.http_url, connector=connector) as session:
        processes: set[str] = set()

        def both(answer: dict[str, Any]) -> bool:
            if answer["items"]:
                processes.add(answer["recommendation_id"][:10])
            return len(processes) == 2

        # The second one may begin to listen while the first has long been ready.
        await eventually(lambda: get(session, "/v1/trending"), both)
        yield session


def file_of(live: Stack) -> Path:
    assert live.settings.experiments.file is not None
    return live.settings.experiments.file


def report_of(found: dict[str, Any], name: str = "steeper") -> dict[str, dict[str, Any]]:
    [one] = [each for each in found["experiments"] if each["experiment"] == name]
    return {row["variant"]: row for row in one["variants"]}


def counts_of(found: dict[str, Any], name: str = "steeper") -> dict[str, dict[str, int]]:
    return {
        variant: {
            **{what: row[what] for what in ("users", "answers", "clicks", "purchases")},
            "clickers": row["click_through"]["users"],
            "buyers": row["conversion"]["users"],
        }
        for variant, row in report_of(found, name).items()
    }


async def test_attribution_is_what_was_sent_though_the_worker_is_killed(
    live: Stack, http: aiohttp.ClientSession
) -> None:
    chance = Random(SEED)
    print(f"seed {SEED}")
    wanted: dict[str, Counter[str]] = {name: Counter() for name in EFFECT}
    clicked: defaultdict[str, set[str]] = defaultdict(set)
    variants: dict[str, str] = {}
    shown: dict[str, str] = {}

    async def visit(user: str, number: int) -> list[dict[str, Any]]:
        """Some pages, and what the user does there."""
        events: list[dict[str, Any]] = []
        for page in range(chance.randint(1, 3)):
            if page % 2:
                body = {"user_id": user, "n": 5}
                answer = await post(http, "/v1/recommendations", body)
            else:
                answer = await get(http, f"/v1/recommendations/{user}?n=5")
            items = ids(answer)
            assert answer["experiment"]["name"] == "steeper"
            variant = answer["experiment"]["variant"]
            assert variants.setdefault(user, variant) == variant
            led = answer["recommendation_id"]
            shown[led] = user
            wanted[variant]["answers"] += 1
            for kind, share, people in (
                ("click", EFFECT, "clickers"),
                ("purchase", BUYING, "buyers"),
            ):
                if chance.random() >= share[variant]:
                    continue
                event = click(user, chance.choice(items), type=kind, event_id=f"{led}-{kind}")
                # A purchase is known by what was shown, and a click by what it says.
                event["timestamp"] += 5
                if kind == "click":
                    event["recommendation_id"] = led
                events.append(event)
                wanted[variant]["clicks" if kind == "click" else "purchases"] += 1
                clicked[f"{variant} {people}"].add(user)
                if chance.random() < 0.3:
                    events.append(dict(event))
        # What leads nowhere: items that were not shown, answers of nobody, and other types.
        events.append(click(user, f"elsewhere-{number}", event_id=f"no-{number}"))
        events.append(click(user, "tea-1", event_id=f"no2-{number}", recommendation_id="none"))
        events.append(click(user, "tea-2", event_id=f"no3-{number}", type="cart"))
        return events

    waiting: list[dict[str, Any]] = []
    for number in range(USERS):
        waiting += await visit(f"visitor-{number}", number)
        if number % 10 == 9:
            await post(http, "/v1/events", waiting, 202)
            waiting = []
        if number in (USERS // 3, USERS // 2):
            live.workers[0].kill()
    if waiting:
        await post(http, "/v1/events", waiting, 202)

    for variant in variants.values():
        wanted[variant]["users"] += 1
    for variant, counts in wanted.items():
        for people in ("clickers", "buyers"):
            counts[people] = len(clicked[f"{variant} {people}"])
    found = await eventually(
        lambda: get(http, "/v1/experiments"),
        lambda found: counts_of(found) == {name: dict(of) for name, of in wanted.items()},
        90,
    )
    assert min(of["users"] for of in wanted.values()) > 100
    print(wanted)

    report = report_of(found)
    compared = report["steep"]["click_through_compared"]
    # Several answers a user: the chance to click at all.
    truth = {
        name: sum((1 - (1 - share) ** pages) / 3 for pages in (1, 2, 3))
        for name, share in EFFECT.items()
    }
    assert compared["low"] <= truth["steep"] - truth["control"] <= compared["high"]
    assert compared["word"] == "better"
    assert "Clicks: steep is better than control by" in next(
        each["verdict"] for each in found["experiments"] if each["experiment"] == "steeper"
    )
    assert report["control"]["click_through_compared"] is None

    # The log tells who was shown what, and nothing of answers that belong to no experiment.
    topic = live.settings.kafka.recommendations_topic
    told = {}
    for _, (key, value), _ in read(
        live.settings, topic, sum(of["answers"] for of in wanted.values())
    ):
        one = msgspec.json.decode(value or b"", type=Shown)
        assert (one.user_id or "").encode() == key
        assert one.variant == variants[one.user_id or ""]
        assert len(one.items) == 5
        told[one.recommendation_id] = one.user_id
    assert told == shown


async def test_a_user_is_told_the_same_by_everybody_and_nobody_else_is_in_it(
    live: Stack, http: aiohttp.ClientSession
) -> None:
    before = {
        f"u{n}": (await get(http, f"/v1/recommendations/u{n}"))["experiment"]["variant"]
        for n in range(30)
    }
    assert set(before.values()) == {"control", "steep"}
    assert live.server is not None
    await live.server.stop()
    await live.start_server(2)
    bodies = [{"user_id": user, "explain": True} for user in before]
    found = await post(http, "/v1/recommendations/batch", bodies)
    assert [one["experiment"]["variant"] for one in found] == list(before.values())

    nobody = await post(http, "/v1/recommendations", {"session": ["tea-1", "tea-2"]})
    assert "experiment" not in nobody
    for path in ("/v1/trending", "/v1/items/tea-1/similar"):
        assert "experiment" not in await get(http, path)
    # Another experiment has the e-mails; nobody is in two at once.
    email = await get(http, "/v1/recommendations/u1?scenario=email")
    assert email["experiment"]["name"] == "elsewhere"


async def test_variants_differ_in_settings_and_scenario(http: aiohttp.ClientSession) -> None:
    users: dict[str, str] = {}
    for number in range(40):
        found = await get(http, f"/v1/recommendations/u{number}")
        users.setdefault(found["experiment"]["variant"], f"u{number}")
    for variant, user in users.items():
        path = f"/v1/recommendations/{user}?n=20&explain=true"
        known = {one["item_id"] for one in (await get(http, f"/v1/users/{user}"))["session"]}
        found = await get(http, path)
        assert (set(ids(found)) & known == set()) == (variant == "steep")
        told = [len(one["explanation"]["contributions"]) for one in found["items"]]
        assert (max(told) <= 1) == (variant == "steep")
        # What the request says goes over the variant.
        seen = set(ids(await get(http, f"{path}&exclude_seen=false")))
        assert seen & known


async def test_commands_and_metrics_tell_the_same(live: Stack, http: aiohttp.ClientSession) -> None:
    async def both() -> tuple[Any, Any]:
        told = await get(http, "/v1/experiments/steeper")
        return await run(live.settings, "experiments", "show", "steeper"), told

    # What was shown a moment ago is still being counted.
    _, found = await eventually(both, lambda two: two[0] == two[1])
    listed = await run(live.settings, "experiments", "list")
    assert [one["experiment"] for one in listed["experiments"]] == ["elsewhere", "steeper"]
    said = await run(live.settings, "experiments", "show", "none", code=1)
    assert "there is no experiment 'none': there are elsewhere, steeper" in said

    for words in (("show", "steeper"), ("list",)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "commands", "experiments", *words),
            stdout=asyncio.subprocess.PIPE,
            env=child_environment(live.settings) | {"COLUMNS": "400"},
        )
        text = (await process.communicate())[0].decode()
        assert process.returncode == 0
        assert found["verdict"] in " ".join(text.split())
        assert "control" in text

    async def metrics() -> str:
        async with http.get("/metrics") as answer:
            return await answer.text()

    labels = '{experiment="steeper",variant="control"}'
    text = await metrics()
    first = found["variants"][0]
    assert f"headwater_experiment_clicks_total{labels} {float(first['clicks'])}" in text
    assert f"headwater_experiment_purchases_total{labels} {float(first['purchases'])}" in text
    assert f"headwater_experiment_users{labels} {float(first['users'])}" in text
    assert 'headwater_recommendations_unpublished_total{tenant="default"} 0.0' in text
    await get(http, "/v1/experiments/none", 404)
    await get(http, "/v1/experiments?n=1", 400)


async def test_a_replay_comes_to_the_same(live: Stack, http: aiohttp.ClientSession) -> None:
    before = counts_of(await get(http, "/v1/experiments"))
    said = await run(live.settings, "replay", "--activate")
    assert said["generation"] == 2
    redis = connect(live.settings)
    try:
        keys = Keys(live.settings.store, 2)
        await eventually(lambda: read_outcomes(redis, keys), lambda found: "steeper" in found)
    finally:
        await redis.aclose()
    await eventually(lambda: get(http, "/v1/experiments"), lambda found: counts_of(found) == before)


async def test_forgotten_users_are_forgotten_here(live: Stack, http: aiohttp.ClientSession) -> None:
    keys = Keys(live.settings.store)
    redis = connect(live.settings)
    end = hash_id("visitor-1").to_bytes(8, "little")

    async def known() -> list[bytes]:
        return [
            key
            async for key in redis.scan_iter(match=keys.pattern)
            if key.endswith(end) and b"}m" in key
        ]

    try:
        assert await known()
        async with http.delete("/v1/users/visitor-1") as answer:
            assert answer.status == 202
        await eventually(known, lambda found: found == [])
    finally:
        await redis.aclose()


async def test_experiments_change_without_a_restart(
    live: Stack, http: aiohttp.ClientSession
) -> None:
    file = file_of(live)

    async def of(user: str) -> Any:
        return (await get(http, f"/v1/recommendations/{user}")).get("experiment")

    async def all_alike(wanted: Any) -> None:
        """Both processes have read the file."""
        alike = 0
        limit = time.monotonic() + 20
        while alike < 12:
            alike = alike + 1 if await of("u1") == wanted else 0
            assert time.monotonic() < limit, "the file is not followed"

    file.write_text(RUNNING.replace("[steeper]", "[steeper]\nrunning = false"))
    await all_alike(None)
    found = await get(http, "/v1/experiments/steeper")
    assert found["state"] == "stopped"
    assert found["variants"][0]["users"] > 100
    # What is wrong leaves everything as it was.
    file.write_text("[steeper]\nrunning = 7\n")
    await asyncio.sleep(0.6)
    assert await of("u1") is None
    file.write_text(
        "[later]\nshare = 1\n[later.variants.only]\n[later.variants.never]\nweight=1e-6"
    )
    await all_alike({"name": "later", "variant": "only"})
    found = await get(http, "/v1/experiments/steeper")
    assert (found["state"], found["share"]) == ("removed", None)
