"""Request bodies and how they are decoded. Whatever breaks a rule names its field.

Doc strings of bodies and of their fields are texts of /openapi.json: see `openapi.py`.
"""

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
from serving.filters import MOST_BOOSTS
from streams.event import MOST_CHARACTERS, Id

__all__ = [
    "DEFAULT_N",
    "MOST_EVENTS",
    "QUERY",
    "BatchBody",
    "BoostBody",
    "Decoder",
    "ItemBody",
    "RecommendBody",
    "chosen",
    "paged",
    "parameters",
    "path_id",
    "plain_n",
    "query_body",
]

MOST_EVENTS = 1000
"""Events of one request, at most."""
DEFAULT_N = 20

Ids = Annotated[list[Id], Meta(max_length=1000)]
QUERY = {"n", "offset", "scenario", "exclude_seen", "diversity", "explain"}
"""Fields of RecommendBody that GET /v1/recommendations/{user_id} takes as parameters."""
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ESCAPES = re.compile(r"%(?![0-9a-fA-F]{2})")
_Filter = Annotated[dict[str, Any], Meta(extra_json_schema={"$ref": "#/components/schemas/Filter"})]
_T = TypeVar("_T")


class BoostBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Items that are to be shown rather, or less."""

    filter: _Filter
    """Which ones."""
    factor: Annotated[float, Meta(gt=0, le=1000)]
    """What their scores are multiplied by."""


class RecommendBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What to recommend, and to whom."""

    user_id: Id | None = None
    """Whose session and history count."""
    session: Ids | None = None
    """Items in time order, the latest last; in place of the user's own session."""
    n: Annotated[int, Meta(ge=1, le=MOST)] = DEFAULT_N
    """Items to answer with, at most."""
    offset: Annotated[int, Meta(ge=0, lt=MOST)] = 0
    """The page begins behind so many items; a list ends after 100."""
    exclude: Ids | None = None
    """Items that must not be answered with."""
    exclude_seen: bool | None = None
    """Leave out what is in the user's history and in the session."""
    diversity: Annotated[float, Meta(ge=0, le=1)] | None = None
    """How much the items differ: from 0, the best scores, to 1."""
    explain: bool = False
    """Say of each item what its score is made of."""
    scenario: str | None = None
    """A named set of these; what else the request says goes over it."""
    filter: _Filter | None = None
    """Which items may be answered with, by what the catalogue says of them."""
    boost: Annotated[list[BoostBody], Meta(max_length=MOST_BOOSTS)] | None = None
    """Items whose scores are multiplied."""
    strict: bool | None = None
    """Rather too few items than one that does not fit the filter."""


class ItemBody(Struct, frozen=True, forbid_unknown_fields=True):
    """An item's entry in the catalogue, to be."""

    item_id: Id | None = None
    """The one in the path, where it is given at all."""
    title: Annotated[str, Meta(max_length=512)] = ""
    """What answers call it."""
    available: bool = True
    """One that is not is never recommended."""
    attributes: dict[str, str | float | bool | list[str] | None] = {}
    """What it is like, by names of your own."""


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
    query = parameters(request, QUERY)
    return RecommendBody(
        user_id=user_id,
        n=chosen(query),
        offset=_offset(query),
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


def paged(query: Mapping[str, str]) -> tuple[int, int]:
    """Items in all, and how many of the first are left out: `n` and `offset` of a query's
    parameters. Raises BadInput.
    """
    n, offset = chosen(query), _offset(query)
    return min(n + offset, MOST), offset


def _offset(query: Mapping[str, str]) -> int:
    text = query.get("offset", "0")
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) >= MOST:
        raise BadInput(
            f"offset must be a whole number from 0 to {MOST - 1}, not {text[:40]!r}", "offset"
        )
    return int(text)


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
