"""Spans as a collector gets them: over OTLP from a real server and worker, across Kafka."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from commands.stack import Stack
from config.daemon import free_port
from config.errors import SettingsError
from config.services import Services
from config.settings import TraceSettings
from config.traces import MOST_LINKS, start_traces, traceparents, traces_on
from tests.conftest import own_settings
from tests.live import click, eventually, get, shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARENT = "00f067aa0ba902b7"


class Collector:
    """Keeps the spans that come in, by service."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/traces", self._take)
        async with TestServer(app) as server:
            yield str(server.make_url("/v1/traces"))

    async def _take(self, request: web.Request) -> web.Response:
        told = ExportTraceServiceRequest.FromString(await request.read())
        for resource in told.resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(names["service.name"], one) for one in scope.spans]
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=body, content_type="application/x-protobuf")

    def of(self, trace: str) -> dict[str, Span]:
        return {one.name: one for _, one in self.spans if one.trace_id.hex() == trace}


def attributes(span: Span) -> dict[str, Any]:
    return {
        one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    made = Collector()
    async with made.running() as url:
        yield made, url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(
    collector: tuple[Collector, str],
    services: Services,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    """Traces what is asked with a trace, and nothing else."""
    traces = {"endpoint": collector[1], "share": 0, "delay_ms": 50}
    async with shop(services, tmp_path_factory.mktemp("traces"), traces=traces) as stack:
        yield stack


def asked(trace: str, kept: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{PARENT}-{kept}"}


async def test_a_request_is_a_tree_of_spans(live: Stack, collector: tuple[Collector, str]) -> None:
    found, _ = collector
    trace = "1" * 32
    async with (
        aiohttp.ClientSession(live.http_url) as http,
        http.get("/v1/recommendations/u1?explain=true", headers=asked(trace)) as answer,
    ):
        assert answer.headers["X-Request-ID"] == trace
    route = "GET /v1/recommendations/{user_id}"

    async def spans() -> dict[str, Span]:
        return found.of(trace)

    tree = await eventually(spans, lambda tree: {route, "answer", "read"} <= set(tree))
    top, answered, read = tree[route], tree["answer"], tree["read"]
    assert top.parent_span_id.hex() == PARENT
    assert answered.parent_span_id == top.span_id
    assert read.parent_span_id == answered.span_id
    assert top.kind == Span.SPAN_KIND_SERVER
    assert read.kind == Span.SPAN_KIND_CLIENT
    assert top.start_time_unix_nano <= read.start_time_unix_nano
    assert read.end_time_unix_nano <= top.end_time_unix_nano
    told = attributes(top)
    assert told["http.route"] == "/v1/recommendations/{user_id}"
    assert told["http.response.status_code"] == 200
    assert told["headwater.degraded"] is False
    assert told["headwater.request_id"] == trace
    assert "u1" not in str(told)


async def test_the_shortest_way_and_a_failure_have_spans(
    live: Stack, collector: tuple[Collector, str]
) -> None:
    found, _ = collector
    async with aiohttp.ClientSession(live.http_url) as http:
        for trace, path in (("2" * 32, "/v1/recommendations/u1"), ("3" * 32, "/v1/trending?n=x")):
            async with http.get(path, headers=asked(trace)) as answer:
                await answer.read()

    async def both() -> list[dict[str, Span]]:
        return [found.of("2" * 32), found.of("3" * 32)]

    plain, bad = await eventually(both, lambda both: len(both[0]) >= 3 and both[1])
    assert "GET /v1/recommendations/{user_id}" in plain
    assert attributes(bad["GET /v1/trending"])["http.response.status_code"] == 400


async def test_an_event_is_followed_through_kafka(
    live: Stack, collector: tuple[Collector, str]
) -> None:
    found, _ = collector
    trace = "4" * 32
    many = [f"{n:032x}" for n in range(0x5000, 0x5000 + 2 * MOST_LINKS)]
    async with aiohttp.ClientSession(live.http_url) as http:

        async def send(one: str) -> None:
            event = click("traced", "tea-1")
            async with http.post("/v1/events", json=event, headers=asked(one)) as answer:
                assert answer.status == 202

        await send(trace)
        await asyncio.gather(*map(send, many))

    async def applied() -> set[str]:
        return {
            link.trace_id.hex()
            for service, one in found.spans
            if (service, one.name) == ("headwater-worker", "apply")
            for link in one.links
        }

    linked = await eventually(applied, lambda linked: trace in linked and set(many) & linked)
    assert linked <= {trace, *many}
    published = found.of(trace)["publish"]
    assert published.parent_span_id == found.of(trace)["POST /v1/events"].span_id
    assert attributes(published)["messaging.destination.name"] == live.settings.kafka.events_topic
    spans = [one for _, one in found.spans if one.name == "apply"]
    assert all(0 < len(one.links) <= MOST_LINKS for one in spans)
    first = next(one for one in spans if trace in {link.trace_id.hex() for link in one.links})
    assert published.span_id in {link.span_id for link in first.links}
    assert first.kind == Span.SPAN_KIND_CONSUMER


async def test_what_nobody_wants_traced_is_not(
    live: Stack, collector: tuple[Collector, str]
) -> None:
    found, _ = collector
    async with aiohttp.ClientSession(live.http_url) as http:
        async with http.get("/v1/recommendations/u1", headers=asked("6" * 32, "00")) as answer:
            assert answer.status == 200
        await get(http, "/v1/recommendations/u2")
        async with http.get("/v1/recommendations/u1", headers=asked("7" * 32)) as answer:
            assert answer.status == 200

    async def last() -> dict[str, Span]:
        return found.of("7" * 32)

    await eventually(last, lambda spans: spans)
    known = {one.trace_id.hex() for _, one in found.spans}
    roots = [one for _, one in found.spans if not one.parent_span_id and one.name != "apply"]
    assert "6" * 32 not in known
    # Requests that are answered together have a root of their own, with links to them.
    assert all(one.name == "answer" and one.links for one in roots)


async def test_a_collector_that_is_away_holds_nobody_up(services: Services, tmp_path: Path) -> None:
    traces = {"endpoint": f"http://127.0.0.1:{free_port()}/v1/traces", "share": 1, "delay_ms": 50}
    settings = own_settings(services, tmp_path, partitions=1, traces=traces)
    async with Stack(settings, workers=0, services=services) as stack:
        async with aiohttp.ClientSession(stack.http_url) as http:
            for _ in range(20):
                await get(http, "/v1/recommendations/u1")
            await asyncio.sleep(0.2)
            assert (await get(http, "/health/live"))["live"]
        assert stack.server is not None
        started = time.monotonic()
        await stack.server.stop()
        assert time.monotonic() - started < 8


async def test_off_is_off() -> None:
    start_traces(TraceSettings(), "nobody")
    assert not traces_on()
    assert traceparents([[("traceparent", b"00-" + b"1" * 32 + b"-" + b"1" * 16 + b"-01")]]) == []
    code = (
        "import sys, serving.app, processors.worker, commands.worker, serving.processes;"
        "sys.exit(any(name.startswith('opentelemetry.exporter') for name in sys.modules))"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await child.wait() == 0


async def test_without_the_packages_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"pip install .headwater\[traces\]"):
        start_traces(TraceSettings(endpoint="http://127.0.0.1:1/v1/traces"), "nobody")
    assert not traces_on()
