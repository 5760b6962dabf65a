"""CloudEvents whose data is an event of ours: what the envelope says fills what the data lacks.

In Kafka's binary mode the attributes are headers, `ce_id`, `ce_time`, `ce_type`, and the value is
the data. https://github.com/cloudevents/spec, version 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from xxhash import xxh3_128_hexdigest

__all__ = ["LONGEST_EVENT_ID", "attributes_of", "bounded", "filled"]

LONGEST_EVENT_ID = 64
_HEADERS = {"ce_id": "id", "ce_time": "time", "ce_type": "type"}
_NULL = b"null"
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def filled(
    data: bytes,
    names: Mapping[str, str],
    *,
    id: str | None = None,
    time: str | None = None,
    type: str | None = None,
) -> tuple[bytes, list[str]]:
    """`data`, a JSON object, with the attributes as event_id, timestamp and type where it has none;
    and which of these it got.

    `names` say what type a name stands for. What is no object is given back as it is.
    """
    try:
        fields: dict[str, Any] = dict(_decoder.decode(data))
    except (ValueError, RecursionError):  # what msgspec raises are ValueErrors
        return data, []
    got = []
    for name, value in (
        ("event_id", bounded(id) if id else None),
        ("timestamp", time),
        ("type", type if type is None else names.get(type, type)),
    ):
        if value is not None and bytes(fields.get(name, _NULL)) == _NULL:
            fields[name] = value
            got.append(name)
    return (_encoder.encode(fields), got) if got else (data, [])


def attributes_of(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """The attributes of those that `filled` takes that are in a Kafka record's headers."""
    found: dict[str, str] = {}
    for header, value in headers:
        name = _HEADERS.get(header)
        if name is not None and value is not None:
            found[name] = value.decode(errors="replace")
    return found


def bounded(text: str) -> str:
    """An id of any length as an event_id; one that is too long as its hash."""
    return text if len(text) <= LONGEST_EVENT_ID else xxh3_128_hexdigest(text.encode())
