"""Tenants over the wire: three shops with the same ids on one worker and one server, against real
Kafka and Redis. What one does, has replayed or loses changes nothing of another, byte for byte.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from yarl import URL

from commands.stack import Stack
from config.api_keys import SCOPES, create_key, read_keys
from config.daemon import free_port
from config.services import Services
from config.settings import DEFAULT_TENANT, Settings
from config.tenants import named_tenant
from serving.app import make_app
from serving.tenants import TENANT_HEADER
from store.connect import connect
from store.generations import Generations
from store.keys import Keys
from streams.offsets import LogOffsets
from streams.tenant_topics import TenantTopics, topics_of
from tests.conftest import own_settings
from tests.live import PROBLEM, HereServer, click, eventually
from tests.test_generations import run

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILE = """
[books]
events.weights = {view = 1.0, click = 1.0, borrow = 2.0}

[shoes]
kafka.partitions = 1

[slow]
rate = "5 per 1 hour"
kafka.partitions = 1
"""
NAMED = ("books", "shoes")
ALL = (DEFAULT_TENANT, *NAMED)
USERS = 6
ITEM = "shared"
"""An item that every shop has; what follows on it is each shop's own."""


@dataclass
class World:
    stack: Stack
    file: Path
    keys_file: Path
    http: aiohttp.ClientSession
    admin: aiohttp.ClientSession
    redis: Redis
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return self.stack.settings

    def key(self, tenant: str, name: str, rate: str | None = None) -> str:
        return create_key(self.keys_file, name, SCOPES, rate, tenant)

    async def ask(
        self, tenant: str, method: str, path: str, *, status: int = 200, **more: Any
    ) -> Any:
        headers = {"X-API-Key": self.keys[tenant]}
        http = self.admin if path.startswith("/admin") else self.http
        async with http.request(method, URL(path, encoded=True), headers=headers, **more) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json(content_type=None)

    async def events(self, tenant: str, events: list[dict[str, Any]]) -> None:
        told = await self.ask(tenant, "POST", "/v1/events", json=events, status=202)
        assert told["accepted"] == len(events)

    async def bytes_of(self, tenant: str) -> dict[bytes, bytes]:
        """Everything that Redis has of a tenant, by key."""
        own = named_tenant(self.settings, tenant)
        keys = [key async for key in self.redis.scan_iter(match=Keys(own.store).pattern)]
        return {key: await self.redis.dump(key) for key in sorted(keys)}  # type: ignore[misc]

    async def settled(self, tenant: str) -> dict[bytes, bytes]:
        """The same, once nothing is on its way."""
        before: dict[bytes, bytes] = {}
        same = 0

        async def look() -> int:
            nonlocal before, same
            now = await self.bytes_of(tenant)
            same = same + 1 if now == before else 0
            before = now
            await asyncio.sleep(0.1)
            return same

        await eventually(look, lambda times: times >= 15, 60)
        return before

    async def answers(self, tenant: str) -> list[Any]:
        """What a tenant's users are answered, without what is new in every answer."""
        found = [
            await self.ask(tenant, "POST", "/v1/recommendations", json={"session": [ITEM]}),
            await self.ask(tenant, "GET", "/v1/recommendations/u1?n=5"),
            await self.ask(tenant, "GET", f"/v1/items/{ITEM}/similar?n=5"),
            await self.ask(tenant, "GET", "/v1/users/u1"),
            await self.ask(tenant, "GET", f"/v1/items/{ITEM}"),
        ]
        for one in found[:3]:
            del one["recommendation_id"]
            for item in one["items"]:
                # Counts fade as time passes.
                item["score"] = float(f"{item['score']:.3g}")
        return found

    async def ends(self, tenant: str) -> Any:
        own = named_tenant(self.settings, tenant)
        return await asyncio.to_thread(lambda: LogOffsets(own).ends())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    home = tmp_path_factory.mktemp("tenants")
    file, keys_file = home / "tenants.toml", home / "keys.json"
    file.write_text(FILE)
    settings = own_settings(
        services,
        home / "home",
        partitions=2,
        http={"keys_file": keys_file, "admin_port": free_port("127.0.0.1")},
        tenants={"file": file},
        learn={"share": 0, "first_events": 0},
        redis={"timeout_seconds": 10},
    )
    made = {one: create_key(keys_file, one, SCOPES, None, one) for one in (*ALL, "slow")}
    admin_url = f"http://127.0.0.1:{settings.http.admin_port}"
    async with Stack(settings, workers=1, processes=1, services=services) as stack:
        async with (
            aiohttp.ClientSession(stack.http_url) as http,
            aiohttp.ClientSession(admin_url) as admin,
        ):
            redis = connect(stack.settings)
            found = World(stack, file, keys_file, http, admin, redis, made)
            await asyncio.gather(*(_fill(found, tenant) for tenant in ALL))
            yield found
            await redis.aclose()


async def _fill(world: World, tenant: str) -> None:
    """The same users see the same item, then what only this shop has."""
    events = [
        click(f"u{user}", item, event_id=f"e{user}-{step}")
        for user in range(USERS)
        for step, item in enumerate((ITEM, f"{tenant}-only-1", f"{tenant}-only-2"))
    ]
    await world.events(tenant, [*events, click(f"{tenant}-only-user", ITEM)])

    async def counted() -> int:
        headers = {"X-API-Key": world.keys[tenant], TENANT_HEADER: tenant}
        async with world.http.get("/health/ready", headers=headers) as answer:
            return int((await answer.json(content_type=None)).get("events", 0))

    await eventually(counted, lambda found: found == len(events) + 1, 60)
    await _title(world, tenant)

    async def trending() -> int:
        return len((await world.ask(tenant, "GET", "/v1/trending"))["items"])

    # What everybody is shown is read once a second.
    await eventually(trending, lambda count: count == 3)


async def _title(world: World, tenant: str) -> None:
    """Have the shared item a title that only this shop gives it."""
    entry = {"title": f"Of {tenant}-only"}
    await world.ask(tenant, "PUT", f"/v1/items/{ITEM}", json=entry, status=202)

    async def title() -> Any:
        async with world.http.get(
            f"/v1/items/{ITEM}", headers={"X-API-Key": world.keys[tenant]}
        ) as answer:
            return (await answer.json(content_type=None)).get("title")

    await eventually(title, lambda found: found == entry["title"])


async def test_the_same_ids_never_mix(world: World) -> None:
    for tenant in ALL:
        others = [f"{one}-only" for one in ALL if one != tenant]
        found = orjson.dumps(await world.answers(tenant)).decode()
        batch = [{"session": [ITEM]}, {"user_id": "u2"}]
        for body in (
            found,
            str(await world.ask(tenant, "GET", "/v1/trending?n=100")),
            str(await world.ask(tenant, "POST", "/v1/recommendations/batch", json=batch)),
        ):
            assert f"{tenant}-only-1" in body
            assert not [one for one in others if one in body]
        known = await world.ask(tenant, "GET", "/v1/users/u1")
        assert known["count"] == 3
        assert (await world.ask(tenant, "GET", f"/v1/items/{ITEM}"))["title"] == f"Of {tenant}-only"


async def test_every_way_in_is_the_tenants(world: World) -> None:
    segment: dict[str, Any] = {
        "type": "track",
        "userId": "way",
        "event": "Product Viewed",
        "messageId": "m",
    }
    segment |= {"properties": {"product_id": "way-segment"}}
    ga4 = {"client_id": "way", "events": [{"name": "view_item", "params": {}}]}
    ga4["events"][0]["params"] = {"items": [{"item_id": "way-ga4"}]}  # type: ignore[index]
    cloud: dict[str, Any] = {"specversion": "1.0", "id": "c", "source": "/s", "type": "click"}
    cloud |= {"data": click("way", "way-cloud")}
    before = {tenant: await world.ends(tenant) for tenant in ALL}
    await world.ask("books", "POST", "/v1/events/segment", json=segment, status=202)
    await world.ask("books", "POST", "/v1/events/ga4", json=ga4, status=202)
    kind = {"Content-Type": "application/cloudevents+json"}
    headers = {**kind, "X-API-Key": world.keys["books"]}
    async with world.http.post("/v1/events", data=orjson.dumps(cloud), headers=headers) as answer:
        assert answer.status == 202, await answer.text()

    async def seen() -> Any:
        return (await world.ask("books", "GET", "/v1/users/way"))["count"]

    await eventually(seen, lambda count: count == 3)
    for tenant in (DEFAULT_TENANT, "shoes"):
        assert await world.ends(tenant) == before[tenant]
        assert (await world.ask(tenant, "GET", "/v1/users/way"))["count"] == 0
    await world.ask("books", "DELETE", "/v1/users/way", status=202)
    await eventually(seen, lambda count: count == 0)


def _routes(settings: Settings) -> list[tuple[str, str]]:
    """Every route of the application, so that none can be forgotten here."""
    app = make_app(settings)
    found = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method not in ("HEAD", "OPTIONS")
    }
    assert ("GET", "/v1/recommendations/{user_id}") in found
    assert len(found) > 25
    return sorted(found)


_ANOTHERS = {
    "user_id": "shoes-only-user",
    "item_id": ITEM,
    "number": "2",
    "partition": "0",
    "offset": "0",
}
"""What stands for what in paths: what only shoes have, or what means another thing there."""


async def test_a_key_reaches_nothing_of_another_tenant_on_any_route(world: World) -> None:
    shoes = named_tenant(world.settings, "shoes")
    # Something that only shoes have: another generation.
    made = await Generations(world.redis, shoes).create("earliest", {}, {}, "ready")
    assert made.number == 2
    before, log = await world.settled("shoes"), await world.ends("shoes")
    mine = {"X-API-Key": world.keys["books"]}
    bodies: dict[str, bytes] = {
        "/v1/events": orjson.dumps(click("shoes-only-user", "i")),
        "/v1/recommendations": b'{"user_id":"shoes-only-user"}',
        "/v1/recommendations/batch": b'[{"user_id":"shoes-only-user"}]',
    }
    for method, canonical in _routes(world.settings):
        path = re.sub(r"\{(\w+)\}", lambda found: _ANOTHERS.get(found[1], "1"), canonical)
        body = bodies.get(canonical, b"{}" if method in ("POST", "PUT") else None)
        http = world.admin

        async def asked(headers: dict[str, str]) -> tuple[int, str]:
            async with http.request(  # noqa: B023 - called at once
                method,  # noqa: B023
                path,  # noqa: B023
                data=body,  # noqa: B023
                headers=headers,
            ) as answer:
                # A stream goes on as long as somebody listens.
                told = await answer.content.readany()
                if answer.content_type != "text/event-stream":
                    told += await answer.read()
                if answer.status in (401, 403):
                    assert answer.content_type == PROBLEM
                return answer.status, told.decode()

        place = f"{method} {path}"
        # By the header, with a key of one's own, or without any.
        assert (await asked({**mine, TENANT_HEADER: "shoes"}))[0] == 403, place
        assert (await asked({TENANT_HEADER: "shoes"}))[0] == 401, place
        # As one's own: what only the other has is not there.
        status, told = await asked(mine)
        assert status < 500, f"{place}: {told}"
        assert "Of shoes" not in told, place
        assert "shoes-only-1" not in told, place
        if "{number}" in canonical:
            assert status == 404, place
        if canonical.startswith("/v1/users/") and method == "GET":
            assert orjson.loads(told)["count"] == 0
        # What is told to everybody by the deployment is told to a tenant of its own alone.
        if not path.startswith(("/v1/", "/admin/")):
            status, told = await asked({**mine, TENANT_HEADER: "books"})
            assert status == 200, f"{place}: {told}"
            assert "shoes" not in told, place
    assert await world.settled("shoes") == before
    assert await world.ends("shoes") == log
    await _title(world, "books")


async def test_settings_are_a_tenants_alone(world: World) -> None:
    borrowed = {**click("reader", ITEM), "type": "borrow"}
    await world.events("books", [borrowed])
    for tenant in (DEFAULT_TENANT, "shoes"):
        told = await world.ask(tenant, "POST", "/v1/events", json=borrowed, status=400)
        assert told["field"] == "type"
    partitions = await asyncio.to_thread(TenantTopics(world.settings).partitions)
    counts = [partitions[named_tenant(world.settings, one).kafka.events_topic] for one in ALL]
    assert counts == [2, 2, 1]


async def test_rates_are_of_a_key_and_of_a_tenant(world: World) -> None:
    world.keys["few"] = world.key("books", "few", "3 per 1 hour")
    world.keys["second"] = world.key("slow", "second")

    async def status(key: str) -> int:
        async with world.http.get("/v1/trending", headers={"X-API-Key": world.keys[key]}) as answer:
            return answer.status

    await eventually(lambda: status("few"), lambda code: code == 200)
    assert [await status("few") for _ in range(4)] == [200, 200, 429, 429]
    # Both keys of one tenant count together. Asking for an unknown key is not counted.
    await eventually(lambda: status("second"), lambda code: code == 200)
    codes = [await status(key) for key in ("slow", "second") * 3]
    assert codes.count(200) == 4
    assert codes[4:] == [429, 429]
    assert {await status(tenant) for tenant in ALL} == {200}
    for tenant in ("books", "slow"):
        own = Keys(named_tenant(world.settings, tenant).store).pattern
        rates = [key async for key in world.redis.scan_iter(match=own) if b"{c}rate" in key]
        assert rates


async def test_metrics_say_whose(world: World) -> None:
    async with world.http.get("/metrics") as answer:
        text = await answer.text()
    for tenant in ALL:
        for name in (
            "events_applied_total",
            "event_visible_seconds_count",
            "consumer_lag_records",
            "hit_rate",
            "request_seconds_count",
        ):
            assert re.search(rf'^headwater_{name}\{{[^}}]*tenant="{tenant}"', text, re.MULTILINE)
    assert set(re.findall(r'tenant="(\w+)"', text)) == {*ALL, "slow"}
    headers = {"X-API-Key": world.keys["books"], TENANT_HEADER: "books"}
    async with world.http.get("/metrics", headers=headers) as answer:
        assert set(re.findall(r'tenant="(\w+)"', await answer.text())) == {"books"}


async def test_without_keys_the_header_says_whose(world: World) -> None:
    http = world.settings.http.model_copy(update={"keys_file": None, "admin_port": None})
    open_to_all = world.settings.model_copy(update={"http": http})
    async with HereServer(make_app(open_to_all)) as server, aiohttp.ClientSession() as session:

        async def asked(*named: str) -> tuple[int, Any]:
            headers = [(TENANT_HEADER, one) for one in named]
            async with session.get(server.make_url(f"/v1/items/{ITEM}"), headers=headers) as answer:
                if answer.status >= 400:
                    assert answer.content_type == PROBLEM
                return answer.status, await answer.json(content_type=None)

        assert (await asked())[1]["title"] == f"Of {DEFAULT_TENANT}-only"
        assert (await asked(DEFAULT_TENANT))[1]["title"] == f"Of {DEFAULT_TENANT}-only"
        for tenant in NAMED:
            assert (await asked(tenant))[1]["title"] == f"Of {tenant}-only"
        # The plainest request of all goes a way of its own where nothing names a tenant.
        for tenant in ALL:
            named = {} if tenant == DEFAULT_TENANT else {TENANT_HEADER.lower(): tenant}
            url = server.make_url("/v1/recommendations/u1?n=5")

            async def plainly(url: URL = url, named: dict[str, str] = named) -> str:
                async with session.get(url, headers=named) as answer:
                    return await answer.text()

            body = await eventually(plainly, lambda body: '"degraded":false' in body)
            assert f"{tenant}-only-" in body
            assert not [one for one in ALL if one != tenant and f"{one}-only-" in body]
        status, told = await asked("nobody")
        assert (status, told["field"]) == (404, TENANT_HEADER)
        assert "'nobody'" in told["detail"]
        assert (await asked("books", "shoes"))[0] == 400


async def test_a_replay_of_one_leaves_the_others_as_they_are(world: World) -> None:
    others = (DEFAULT_TENANT, "shoes")
    before = {one: (await world.settled(one), await world.answers(one)) for one in others}
    own = await world.answers("books")
    told = await run(world.settings, "replay", "--activate", "--tenant", "books")
    assert told["state"] == "live"

    async def generation() -> Any:
        found = await world.ask("books", "GET", "/admin/generations")
        return [one["generation"] for one in found["generations"] if one["state"] == "live"]

    await eventually(generation, lambda live: live == [told["generation"]])
    for one in others:
        assert (await world.settled(one), await world.answers(one)) == before[one]

    async def again() -> Any:
        return await world.answers("books")

    await eventually(again, lambda found: found == own)
    # Who counts goes on in the new one.
    await world.events("books", [click("after", ITEM)])

    async def counted() -> Any:
        return (await world.ask("books", "GET", "/v1/users/after"))["count"]

    await eventually(counted, bool)
    found = await run(world.settings, "inspect", "user", "after", "--tenant", "books")
    assert found["count"] == 1
    assert (await run(world.settings, "inspect", "user", "after"))["count"] == 0


async def test_one_that_is_dropped_leaves_nothing_and_the_others_as_they_are(
    world: World,
) -> None:
    listed = (await run(world.settings, "tenants", "list"))["tenants"]
    assert [one["tenant"] for one in listed] == [*ALL, "slow"]
    assert [one["api_keys"] for one in listed] == [1, 2, 1, 2]
    books = named_tenant(world.settings, "books")
    log = await run(world.settings, "tenants", "drop", "books", code=2)
    assert "take its table out first" in log
    others = (DEFAULT_TENANT, "shoes")
    before = {one: (await world.settled(one), await world.answers(one)) for one in others}
    world.file.write_text("[shoes]\nkafka.partitions = 1\n\n[hats]\nkafka.partitions = 1\n")

    async def refused() -> int:
        headers = {"X-API-Key": world.keys["books"]}
        async with world.http.get("/v1/trending", headers=headers) as answer:
            return answer.status

    await eventually(refused, lambda status: status == 403)
    told = await run(world.settings, "tenants", "drop", "books")
    assert sorted(told["topics"]) == sorted(topics_of(books))
    assert told["api_keys"] == 2
    assert told["keys"] > 0
    assert not [key async for key in world.redis.scan_iter(match=Keys(books.store).pattern)]
    left = await asyncio.to_thread(TenantTopics(world.settings).partitions)
    assert not set(topics_of(books)) & set(left)
    assert not [one for one in read_keys(world.keys_file).values() if one.tenant == "books"]
    await eventually(refused, lambda status: status == 401)
    for one in others:
        assert (await world.settled(one), await world.answers(one)) == before[one]
    assert "nothing of a tenant" in await run(world.settings, "tenants", "drop", "books", code=1)
    # One that has come meanwhile is there, and the worker's keeper has not seen it end.
    world.keys["hats"] = world.key("hats", "hats")
    await asyncio.gather(_until_counted(world, "hats"), _until_counted(world, "shoes"))
    assert [worker.restarts for worker in world.stack.workers] == [0]
    listed = (await run(world.settings, "tenants", "list"))["tenants"]
    assert [(one["tenant"], one["state"]) for one in listed] == [
        (DEFAULT_TENANT, "served"),
        ("shoes", "served"),
        ("hats", "served"),
        ("slow", "left over"),
    ]


async def _until_counted(world: World, tenant: str) -> None:
    """An event of a tenant is seen in an answer."""
    headers = {"X-API-Key": world.keys[tenant]}
    name = "z" + hashlib.sha256(tenant.encode()).hexdigest()[:8]

    async def sent() -> int:
        event = click(name, ITEM, event_id="once")
        async with world.http.post("/v1/events", json=event, headers=headers) as answer:
            return answer.status

    async def counted() -> int:
        async with world.http.get(f"/v1/users/{name}", headers=headers) as answer:
            return int((await answer.json(content_type=None)).get("count", 0))

    await eventually(sent, lambda status: status == 202, 60)
    assert await eventually(counted, bool, 60) == 1
