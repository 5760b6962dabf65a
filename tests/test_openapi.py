"""The description of the API: complete, made of the types that decode requests, and true."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from aiohttp import web
from msgspec import Meta, Struct

from config.settings import DEFAULT_SCENARIOS, DEFAULT_WEIGHTS, load_settings
from processors.popularity import WINDOWS
from serving.app import make_app
from serving.bodies import QUERY, RecommendBody
from serving.openapi import Answer, Operation, document
from serving.openapi_operations import OPERATIONS, describe
from serving.openapi_types import TrendingQuery
from streams.event import Id

README = Path(__file__).parents[1] / "README.md"
DOCUMENT = describe(DEFAULT_SCENARIOS, DEFAULT_WEIGHTS)
SCHEMAS = DOCUMENT["components"]["schemas"]
PAGE_FILES = ("/admin/", "/console/", "/docs/", "/headwater.js")
"""What pages load is theirs alone, and so is what is asked on the admin port."""


def routes_of(app: web.Application) -> set[str]:
    found = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None
    }
    return {
        f"{method} {path}"
        for method, path in found
        if method != "HEAD" and not path.startswith(PAGE_FILES)
    }


def described(found: dict[str, Any]) -> set[str]:
    return {f"{method.upper()} {path}" for path, of in found["paths"].items() for method in of}


@pytest.fixture
def app() -> web.Application:
    return make_app(load_settings(kafka={"bootstrap": "127.0.0.1:1"}))


async def _nothing(_request: web.Request) -> web.Response:
    return web.Response()


def test_every_route_is_described_and_nothing_else(app: web.Application) -> None:
    assert described(DOCUMENT) == routes_of(app)
    app.router.add_get("/v1/added", _nothing)
    assert routes_of(app) - described(DOCUMENT) == {"GET /v1/added"}


def test_names_tags_and_references_are_sound() -> None:
    names = [one["operationId"] for of in DOCUMENT["paths"].values() for one in of.values()]
    assert len(set(names)) == len(names) == len(OPERATIONS)
    assert {one.tag for one in OPERATIONS} == {tag["name"] for tag in DOCUMENT["tags"]}
    referred = set(
        re.findall(r'#/components/schemas/(\w+)"', msgspec.json.encode(DOCUMENT).decode())
    )
    assert referred == set(SCHEMAS)
    for one in OPERATIONS:
        assert one.summary, one.route
        assert any(200 <= status < 300 for status in one.answers), one.route
        if one.body is not None:
            assert {400, 413} <= set(one.answers), one.route
            assert one.bodies, one.route
    assert all("description" in schema for schema in SCHEMAS.values())


def test_a_body_is_described_by_the_type_that_decodes_it() -> None:
    body = SCHEMAS["RecommendBody"]
    assert list(body["properties"]) == list(RecommendBody.__struct_fields__)
    assert all(one["description"] for one in body["properties"].values())
    assert body["additionalProperties"] is False
    assert body["properties"]["n"]["maximum"] == 100
    parameters = DOCUMENT["paths"]["/v1/recommendations/{user_id}"]["get"]["parameters"]
    assert {one["name"] for one in parameters} == {"user_id", *QUERY}
    told = {one["name"]: one["schema"] for one in parameters}
    assert told["n"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    assert told["diversity"] == {"type": "number", "minimum": 0, "maximum": 1}
    assert told["scenario"] == {"type": "string", "enum": list(DEFAULT_SCENARIOS)}


class Inner(Struct):
    """Inside."""

    depth: Annotated[int, Meta(le=3)] = 0
    """How deep,
    in all.
    """


class Body(Inner):
    """A body."""

    inner: list[Inner] | None = None
    name: str | None = None
    """What it is called."""


def test_a_new_field_shows_by_itself_with_its_bounds_and_its_text() -> None:
    one = Operation("POST /x/{id}", "x", "t", "X", {200: Answer("Y.", Inner)}, body=Body)
    found = document({}, {"t": "T"}, [one], Id, {("Body", "name"): ["a", "b"]})
    properties = found["components"]["schemas"]["Body"]["properties"]
    assert properties["depth"] == {
        "type": "integer",
        "maximum": 3,
        "default": 0,
        "description": "How deep, in all.",
    }
    assert properties["name"] == {
        "anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}],
        "default": None,
        "description": "What it is called.",
    }
    assert properties["inner"]["anyOf"][0]["items"] == {"$ref": "#/components/schemas/Inner"}
    assert found["paths"]["/x/{id}"]["post"]["parameters"][0]["schema"]["maxLength"] == 128


def examples() -> Iterable[tuple[str, Any, Any]]:
    for one in OPERATIONS:
        yield from ((f"{one.route}: {name}", one.body, body) for name, body in one.bodies.items())
        for status, answer in one.answers.items():
            if answer.example is not None:
                yield f"{one.route}: {status}", answer.kind, answer.example
        query = {
            name: value for name, value in one.values.items() if f"{{{name}}}" not in one.route
        }
        if one.query is not None:
            yield f"{one.route}: query", one.query, query
        else:
            assert not query, one.route


@pytest.mark.parametrize(
    ("kind", "value"), [pytest.param(kind, value, id=name) for name, kind, value in examples()]
)
def test_an_example_is_of_its_type(kind: Any, value: Any) -> None:
    msgspec.json.decode(msgspec.json.encode(value), type=kind)


def test_windows_are_those_that_are_counted() -> None:
    (window,) = (one.type for one in msgspec.structs.fields(TrendingQuery) if one.name == "window")
    assert window.__args__ == tuple(WINDOWS)


def test_the_readmes_requests_are_of_the_described_types() -> None:
    text = README.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("curl ")]
    assert len(lines) >= 4
    for line in lines:
        words = shlex.split(line)[1:]
        options = {name: words[words.index(name) + 1] for name in ("-X", "-d") if name in words}
        (url,) = (word for word in words if word.startswith("localhost:8080/"))
        parts = urlsplit(f"http://{url}")
        one = operation_at(options.get("-X", "GET"), parts.path)
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        if query:
            assert one.query is not None, line
            msgspec.convert(query, one.query, strict=False)
            assert set(query) <= set(one.query_names or query), line
        if "-d" in options:
            msgspec.json.decode(options["-d"], type=one.body)
        assert ("-d" in options) == (one.body is not None), line


def operation_at(method: str, path: str) -> Operation:
    found = [
        one
        for one in OPERATIONS
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", one.route), f"{method} {path}")
    ]
    return min(found, key=lambda one: one.route.count("{"))
