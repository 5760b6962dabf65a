"""The id of each request: in its answer's `X-Request-ID`, and in every log line made while it is
worked on.

It is what the request says in `X-Request-ID`, else the trace of its `traceparent` (W3C Trace
Context), so that who asked finds it again here; else a new one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from itertools import count

from multidict import istr
from structlog.contextvars import bind_contextvars, get_contextvars

__all__ = ["HEADER", "begin", "current", "new"]

HEADER = istr("X-Request-ID")
_TRACEPARENT = istr("traceparent")
_ALLOWED = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")

# Unique across processes and restarts without asking anyone.
_prefix = secrets.token_hex(5)
_numbers = count()


def new() -> str:
    """An id of our own."""
    return f"{_prefix}{next(_numbers):x}"


def begin(headers: Mapping[str, str]) -> str:
    """The id of a request whose work begins here: log lines of this task have it from now on."""
    known = headers.get(HEADER)
    if known is None or _ALLOWED.fullmatch(known) is None:
        trace = headers.get(_TRACEPARENT)
        found = None if trace is None else _TRACE.fullmatch(trace)
        known = new() if found is None else found[1]
    bind_contextvars(request_id=known)
    return known


def current() -> str:
    """That of the request that is worked on; empty outside of all."""
    return str(get_contextvars().get("request_id", ""))
