"""Request bodies and how they are decoded. Whatever breaks a rule names its field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from config.errors import BadInput
from serving.answers import MOST
from streams.event import MOST_CHARACTERS, Id

__all__ = [
    "MOST_EVENTS",
    "BatchBody",
    "Decoder",
    "ItemBody",
    "RecommendBody",
    "chosen",
    "parameters",
    "path_id",
    "plain_n",
    "query_body",
]

MOST_EVENTS = 1000
"""Events of one request, at most."""
DEFAULT_N = 20

Ids = Annotated[list[Id], Meta(max_length=1000)]
_PLANNED = {"filter", "boost"}
_QUERY = {"n", "scenario", "exclude_seen", "diversity", "explain"}
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ESCAPES = re.compile(r"%(?![0-9a-fA-F]{2})")
_T = TypeVar("_T")


class RecommendBody(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/recommendations."""

    user_id: Id | None = None
    session: Ids | None = None
    n: Annotated[int, Meta(ge=1, le=MOST)] = DEFAULT_N
    exclude: Ids | None = None
    exclude_seen: bool | None = None
    diversity: Annotated[float, Meta(ge=0, le=1)] | None = None
    explain: bool = False
    scenario: str | None = None


class ItemBody(Struct, frozen=True, forbid_unknown_fields=True):
    """PUT /v1/items/{item_id}."""

    item_id: Id | None = None
    title: Annotated[str, Meta(max_length=512)] = ""
    attributes: dict[str, str | float | bool | list[str] | None] = {}


BatchBody = Annotated[list[RecommendBody], Meta(min_length=1, max_length=100)]
"""POST /v1/recommendations/batch."""


class Decoder(Generic[_T]):
    """A JSON decoder that raises BadInput."""

    def __init__(self, kind: Any) -> None:
        """`kind` is the type, or the annotated type, of what is read."""
        self._decoder: msgspec.json.Decoder[_T] = msgspec.json.Decoder(kind)

    def read(self, body: bytes) -> _T:
        """The body's value. Raises BadInput with the field that breaks a rule."""
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _bad(str(error)) from None
        except RecursionError:
            raise BadInput("the body is nested too deeply", "body") from None
        except UnicodeDecodeError:
            raise BadInput("the body is not UTF-8", "body") from None
        except msgspec.DecodeError as error:
            raise BadInput(f"the body is not JSON: {error}", "body") from None


def _bad(message: str) -> BadInput:
    """`Expected `int` >= 1 - at `$[3].n`` as a message and the field `[3].n`."""
    text, _, path = message.partition(" - at `")
    field = path.rstrip("`").removeprefix("$").lstrip(".")
    named = re.search(r"field `([^`]*)`", text)
    if named:
        field = f"{field}.{named[1]}" if field else named[1]
        if named[1] in _PLANNED:
            text = f"`{named[1]}` is not supported by this server; leave it out"
    return BadInput(text, field or "body")


def path_id(request: web.Request, name: str) -> str:
    """The id in `/v1/<kind>/<id>…`, percent-decoded. Raises BadInput named `name`."""
    raw = request.rel_url.raw_path.split("/")[3]
    if _ESCAPES.search(raw):
        raise BadInput(f"{name}: a % in the path must be written %25", name)
    try:
        value = unquote_to_bytes(raw.encode()).decode() if "%" in raw else raw
        value.encode()
    except UnicodeError:
        raise BadInput(f"{name}: the path is not UTF-8", name) from None
    if not 1 <= len(value) <= MOST_CHARACTERS:
        raise BadInput(
            f"{name} has {len(value)} characters; 1 to {MOST_CHARACTERS} are allowed", name
        )
    return value


def plain_n(raw_query: str) -> int | None:
    """`n` of a query, as it was sent, that holds at most that; None where it may hold more, or is
    no number that is allowed.

    Nearly every query is such a one, and is spared being parsed.
    """
    if not raw_query:
        return DEFAULT_N
    text = raw_query[2:]
    if not raw_query.startswith("n=") or len(text) > 3 or not (text.isascii() and text.isdigit()):
        return None
    n = int(text)
    return n if 1 <= n <= MOST else None


def query_body(request: web.Request, user_id: str) -> RecommendBody:
    """The body that asks for the same as GET /v1/recommendations/{user_id}. Raises BadInput."""
    query = parameters(request, _QUERY)
    return RecommendBody(
        user_id=user_id,
        n=chosen(query),
        exclude_seen=_flag(query, "exclude_seen"),
        diversity=_share(query, "diversity"),
        explain=_flag(query, "explain") or False,
        scenario=query.get("scenario"),
    )


def parameters(request: web.Request, allowed: set[str]) -> Mapping[str, str]:
    """The query's parameters. Raises BadInput for one that is not allowed or stands twice."""
    query = request.query
    for name in query:
        if name not in allowed:
            raise BadInput(f"unknown parameter {name[:40]!r}", name[:40])
        if len(query.getall(name)) > 1:
            raise BadInput(f"{name} is given more than once", name)
    return query


def chosen(query: Mapping[str, str]) -> int:
    """`n` of a query's parameters. Raises BadInput."""
    text = query.get("n")
    if text is None:
        return DEFAULT_N
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise BadInput(f"n must be a whole number from 1 to {MOST}, not {text[:40]!r}", "n")
    n = int(text)
    if not 1 <= n <= MOST:
        raise BadInput(f"n must be from 1 to {MOST}, not {text}", "n")
    return n


def _flag(query: Mapping[str, str], name: str) -> bool | None:
    text = query.get(name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise BadInput(f"{name} must be true or false, not {text[:40]!r}", name)
    return text == "true"


def _share(query: Mapping[str, str], name: str) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    # float() alone would take digits of any script, spaces, nan and 1_0 as well.
    if _NUMBER.fullmatch(text) and 0 <= (value := float(text)) <= 1:
        return value
    raise BadInput(f"{name} must be a number from 0 to 1, not {text[:40]!r}", name)
