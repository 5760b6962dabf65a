"""CloudEvents over HTTP whose data is an event of ours: structured, batched, or in binary mode.

`id`, `time` and `type` are the event's event_id, timestamp and type where its data has none.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import unquote

import msgspec
from msgspec import Meta, Struct

from config.errors import BadInput
from serving.adapters import Draft, Refused, Taken, part
from serving.bodies import MOST_EVENTS, Decoder
from streams.cloudevents import filled
from streams.event import Rejection

__all__ = ["from_cloudevents", "is_cloudevent"]

_STRUCTURED = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"
_VERSION = "1.0"
_ATTRIBUTES = {"event_id": "id", "timestamp": "time", "type": "type"}
_Text = Annotated[str, Meta(min_length=1)]


class _Envelope(Struct):
    specversion: str
    id: _Text
    source: _Text
    type: _Text
    time: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    data_base64: str | None = None


_envelope: Decoder[_Envelope] = Decoder(_Envelope)
_batch: Decoder[list[msgspec.Raw]] = Decoder(
    Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MOST_EVENTS)]
)


def is_cloudevent(headers: Mapping[str, str]) -> bool:
    """Whether a request says that it is one, or several."""
    return "ce-specversion" in headers or _media_type(headers) in (_STRUCTURED, _BATCH)


def from_cloudevents(
    headers: Mapping[str, str], body: bytes, names: Mapping[str, str]
) -> list[Taken]:
    """The events of a request; `headers` are found whatever the case of their names.

    `names` say what type an event's type stands for. Raises BadInput where it is none.
    """
    media_type = _media_type(headers)
    if media_type == _BATCH:
        raws = _batch.read(body)
        return [_structured(n, bytes(raw), f"[{n}].", names) for n, raw in enumerate(raws)]
    if media_type == _STRUCTURED:
        return [_structured(0, body, "", names)]
    return [_binary(headers, body, names)]


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _structured(index: int, raw: bytes, prefix: str, names: Mapping[str, str]) -> Taken:
    try:
        envelope = part(_envelope, raw, prefix)
        _check(envelope.specversion, envelope.datacontenttype, prefix)
        data, place = bytes(envelope.data), prefix + "data"
        if envelope.data_base64 is not None:
            place = prefix + "data_base64"
            try:
                data = base64.b64decode(envelope.data_base64, validate=True)
            except (binascii.Error, ValueError):
                raise Rejection("invalid", "this is no base64", place) from None
        if not data:
            raise Rejection("invalid", "there is no data: it is what the event says", place)
    except Rejection as rejection:
        return Refused(index, rejection)
    value, got = filled(data, names, id=envelope.id, time=envelope.time, type=envelope.type)
    return Draft(index, value, {name: prefix + _ATTRIBUTES[name] for name in got}, place + ".")


def _binary(headers: Mapping[str, str], body: bytes, names: Mapping[str, str]) -> Draft:
    told = {name: _told(headers, name) for name in ("id", "source", "type", "time")}
    for name, text in told.items():
        if not text and name != "time":
            raise BadInput(f"the header ce-{name} is missing", f"ce-{name}")
    try:
        _check(headers["ce-specversion"], headers.get("Content-Type"), "ce-")
    except Rejection as rejection:
        raise BadInput(str(rejection), rejection.field) from None
    time = told["time"] or None
    value, got = filled(body, names, id=told["id"], time=time, type=told["type"])
    return Draft(0, value, {name: "ce-" + _ATTRIBUTES[name] for name in got})


def _told(headers: Mapping[str, str], name: str) -> str:
    """An attribute as text, whatever bytes the header was."""
    return unquote(headers.get(f"ce-{name}", "")).encode(errors="replace").decode()


def _check(version: str, content_type: str | None, prefix: str) -> None:
    """Raises Rejection."""
    if version != _VERSION:
        raise Rejection(
            "invalid", f"specversion {version[:40]!r} is not {_VERSION}", prefix + "specversion"
        )
    kind = (content_type or "application/json").partition(";")[0].strip().lower()
    if not kind.endswith(("/json", "+json")):
        place = "Content-Type" if prefix == "ce-" else prefix + "datacontenttype"
        raise Rejection("invalid", f"data of type {kind[:80]!r} cannot be read, only JSON", place)
