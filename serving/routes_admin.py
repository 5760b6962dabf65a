"""What is asked on the admin port alone: generations are switched and dropped, and dead letters
read and sent again.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import orjson
from aiohttp import web
from msgspec import Meta, Struct

from config.errors import BadInput, StoreError
from serving.bodies import Decoder, chosen, parameters
from serving.context import CONTEXT, json_response
from serving.desk import Conflict
from serving.problems import problem
from streams.dead_reader import DeadLetter

__all__ = ["routes"]

_SHOWN_BYTES = 4096


class ActivateBody(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /admin/generations/{number}/activate."""

    now: bool = False
    """However far it is behind."""


class ResendBody(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /admin/dead/{partition}/{offset}/resend."""

    event: msgspec.Raw = msgspec.Raw(b"")
    """In place of what was sent then."""


_activate: Decoder[ActivateBody] = Decoder(ActivateBody)
_resend: Decoder[ResendBody] = Decoder(ResendBody)
_number: Decoder[int] = Decoder(Annotated[int, Meta(ge=0)])


async def list_generations(request: web.Request) -> web.Response:
    """GET /admin/generations."""
    parameters(request, set())
    found = await request.app[CONTEXT].desk.generations()
    return json_response(orjson.dumps({"generations": found}))


async def activate(request: web.Request) -> web.Response:
    """POST /admin/generations/{number}/activate: servers follow within a second."""
    parameters(request, set())
    body = _activate.read(await request.read() or b"{}")
    number = _named(request, "number")
    try:
        await request.app[CONTEXT].desk.activate(number, now=body.now)
    except Conflict as conflict:
        return problem(409, str(conflict))
    except StoreError as error:
        return problem(404, str(error), field="number")
    return json_response(orjson.dumps({"generation": number, "state": "live"}))


async def drop(request: web.Request) -> web.Response:
    """DELETE /admin/generations/{number}: 202, and it goes little by little."""
    parameters(request, set())
    number = _named(request, "number")
    try:
        await request.app[CONTEXT].desk.drop(number)
    except Conflict as conflict:
        return problem(409, str(conflict))
    except StoreError as error:
        return problem(404, str(error), field="number")
    return json_response(orjson.dumps({"generation": number, "state": "dropping"}), 202)


async def dead(request: web.Request) -> web.Response:
    """GET /admin/dead?n=20: the newest dead letters, with their reasons."""
    n = chosen(parameters(request, {"n"}))
    letters, kept = await request.app[CONTEXT].desk.dead(n)
    return json_response(orjson.dumps({"letters": [_told(one) for one in letters], "kept": kept}))


async def resend(request: web.Request) -> web.Response:
    """POST /admin/dead/{partition}/{offset}/resend: 202 once the broker has it again."""
    parameters(request, set())
    partition, offset = _named(request, "partition"), _named(request, "offset")
    body = _resend.read(await request.read() or b"{}")
    try:
        topic = await request.app[CONTEXT].desk.resend(partition, offset, bytes(body.event) or None)
    except Conflict as conflict:
        return problem(409, str(conflict))
    if topic is None:
        return problem(404, f"there is no dead letter at {partition}-{offset}", field="offset")
    return json_response(orjson.dumps({"topic": topic}), 202)


def _named(request: web.Request, name: str) -> int:
    """A whole number in the path. Raises BadInput."""
    try:
        return _number.read(request.match_info[name].encode())
    except BadInput:
        raise BadInput(f"{name} must be a whole number", name) from None


def _told(letter: DeadLetter) -> dict[str, Any]:
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp,
        "reason": letter.reason,
        "message": letter.message,
        "field": letter.field,
        "source": {
            "topic": letter.source_topic,
            "partition": letter.source_partition,
            "offset": letter.source_offset,
        },
        "key": _text(letter.key),
        "value": _text(letter.value),
    }


def _text(data: bytes | None) -> str | None:
    """As far as it can be shown."""
    return None if data is None else data[:_SHOWN_BYTES].decode(errors="replace")


routes = [
    web.get("/admin/generations", list_generations),
    web.post("/admin/generations/{number}/activate", activate),
    web.delete("/admin/generations/{number}", drop),
    web.get("/admin/dead", dead),
    web.post("/admin/dead/{partition}/{offset}/resend", resend),
]
