"""OpenAPI 3.1 out of types: what a request may hold is told by the types that decode it.

    operations (openapi_operations.py) + types ──► document ──► GET /openapi.json (routes_docs.py)

Schemas are msgspec's; doc strings of the types and of their fields are the descriptions. A field
that is added to a body, or a bound that changes, is in the document by itself.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Struct

__all__ = ["HTML", "JSON", "PROBLEM", "TEXT", "Answer", "Operation", "document"]

JSON = "application/json"
PROBLEM = "application/problem+json"
TEXT = "text/plain"
HTML = "text/html"

_REF = "#/components/schemas/{name}"
_NAMED = re.compile(r"\{(\w+)\}")
_HEADERS = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "How to send a key.",
        "required": True,
        "schema": {"type": "string"},
    },
}
Allowed = Mapping[tuple[str, str], Collection[str]]
"""Names that a field takes, by type and field, where settings decide on them."""
Object = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What is answered with one status code."""

    text: str
    """When, and what it means."""
    kind: Any
    """Type of the body."""
    media: str = JSON
    headers: Collection[str] = ()
    example: Any = None


@dataclass(frozen=True)
class Operation:
    """What one route does, for who asks it."""

    route: str
    """`GET /v1/users/{user_id}`: what is named in the path is an id."""
    name: str
    """operationId."""
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    text: str = ""
    query: type[Struct] | None = None
    """Each field is a parameter."""
    query_names: Collection[str] | None = None
    """Of those fields, these; None for all."""
    body: Any = None
    """Type of the request's body."""
    bodies: Mapping[str, Any] = field(default_factory=dict)
    """Examples of it, by what each shows."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Examples of parameters."""


def document(
    info: Object,
    tags: Mapping[str, str],
    operations: Iterable[Operation],
    id_kind: Any,
    allowed: Allowed,
) -> Object:
    """The document, ready to be JSON. `tags` have their descriptions; `id_kind` is the type of what
    is named in paths.
    """
    operations = list(operations)
    schemas = _Schemas([id_kind, *_kinds(operations)], allowed)
    paths: dict[str, Object] = {}
    for one in operations:
        method, path = one.route.split()
        paths.setdefault(path, {})[method.lower()] = _operation(one, path, id_kind, schemas)
    return {
        "openapi": "3.1.0",
        "info": info,
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in tags.items()],
        "paths": paths,
        "components": {"schemas": schemas.referred_to(paths)},
    }


def _kinds(operations: Iterable[Operation]) -> Iterator[Any]:
    for one in operations:
        yield from (answer.kind for answer in one.answers.values())
        yield from (kind for kind in (one.query, one.body) if kind is not None)


class _Schemas:
    """Schemas of types, with descriptions and what settings allow filled in."""

    def __init__(self, kinds: list[Any], allowed: Allowed) -> None:
        found, self.components = msgspec.json.schema_components(kinds, ref_template=_REF)
        self._found = list(zip(kinds, found, strict=True))
        for struct in _structs(msgspec.inspect.multi_type_info(kinds)):
            properties = self.components[struct.__name__]["properties"]
            for name, text in _field_texts(struct).items():
                properties[name]["description"] = text
        for (struct_name, name), values in allowed.items():
            _allow(self.components[struct_name]["properties"][name], values)

    def of(self, kind: Any) -> Object:
        """The schema of one of the types."""
        return next(schema for known, schema in self._found if known is kind)

    def referred_to(self, paths: Object) -> Object:
        """Components without those of queries, which are told parameter by parameter."""
        told = msgspec.json.encode([paths, self.components]).decode()
        return {
            name: one for name, one in self.components.items() if _REF.format(name=name) in told
        }


def _operation(one: Operation, path: str, id_kind: Any, schemas: _Schemas) -> Object:
    made: Object = {"operationId": one.name, "tags": [one.tag], "summary": one.summary}
    if one.text:
        made["description"] = " ".join(one.text.split())
    named = _NAMED.findall(path)
    parameters = [_parameter("path", name, schemas.of(id_kind), one.values, True) for name in named]
    if one.query is not None:
        query = schemas.components[one.query.__name__]
        fields, needed = query["properties"], query.get("required", [])
        names = fields if one.query_names is None else [n for n in fields if n in one.query_names]
        parameters += [
            _parameter("query", name, fields[name], one.values, name in needed) for name in names
        ]
    if parameters:
        made["parameters"] = parameters
    if one.body is not None:
        content: Object = {"schema": schemas.of(one.body)}
        if one.bodies:
            content["examples"] = {
                name: {"summary": name, "value": value} for name, value in one.bodies.items()
            }
        made["requestBody"] = {"required": True, "content": {JSON: content}}
    made["responses"] = {
        str(status): _response(answer, schemas) for status, answer in one.answers.items()
    }
    return made


def _parameter(
    place: str, name: str, schema: Object, examples: Mapping[str, Any], needed: bool
) -> Object:
    # A query cannot hold a null: what may be null may be left out.
    schema = dict(schema)
    made: Object = {"name": name, "in": place, "required": needed}
    if text := schema.pop("description", ""):
        made["description"] = text
    if "anyOf" in schema:
        kinds = [kind for kind in schema.pop("anyOf") if kind.get("type") != "null"]
        schema.update(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})
    if schema.get("default", ...) is None:
        del schema["default"]
    made["schema"] = schema
    if name in examples:
        made["example"] = examples[name]
    return made


def _response(answer: Answer, schemas: _Schemas) -> Object:
    content: Object = {"schema": schemas.of(answer.kind)}
    if answer.example is not None:
        content["example"] = answer.example
    made: Object = {"description": answer.text, "content": {answer.media: content}}
    if answer.headers:
        made["headers"] = {name: _HEADERS[name] for name in answer.headers}
    return made


def _allow(schema: Object, values: Collection[str]) -> None:
    """Of all texts, let the schema take these alone."""
    for one in schema.get("anyOf", [schema]):
        if one.get("type") == "string":
            one["enum"] = list(values)


def _structs(told: Any, found: dict[type[Struct], None] | None = None) -> Iterable[type[Struct]]:
    """Every Struct that types, as msgspec tells about them, are made of."""
    found = {} if found is None else found
    if isinstance(told, list | tuple):
        for one in told:
            _structs(one, found)
    elif isinstance(told, Struct):
        if isinstance(told, msgspec.inspect.StructType):
            if told.cls in found:
                return found
            found[told.cls] = None
        for name in told.__struct_fields__:
            _structs(getattr(told, name), found)
    return found


def _field_texts(struct: type[Struct]) -> dict[str, str]:
    """What stands as doc strings below a Struct's fields, those that it inherits included."""
    found: dict[str, str] = {}
    for one in reversed(struct.__mro__):
        if issubclass(one, Struct) and one is not Struct:
            found.update(_own_texts(one))
    return found


def _own_texts(struct: type[Struct]) -> Iterator[tuple[str, str]]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(struct)))
    body = [part for one in tree.body if isinstance(one, ast.ClassDef) for part in one.body]
    for declared, told in pairwise(body):
        if (
            isinstance(declared, ast.AnnAssign)
            and isinstance(declared.target, ast.Name)
            and isinstance(told, ast.Expr)
            and isinstance(told.value, ast.Constant)
        ):
            yield declared.target.id, " ".join(str(told.value.value).split())
