"""Errors as RFC 9457 problem details: one place that turns exceptions into answers.

Every problem has `type`, `title`, `status` and `detail`; `field` names the part of the request that
breaks a rule.
"""

from __future__ import annotations

from typing import Any

import orjson
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_exceptions import HTTPException
from redis.exceptions import RedisError

from config.errors import BadInput, HeadwaterError, StoreError, StreamError

__all__ = ["CONTENT_TYPE", "RETRY_SECONDS", "problem", "problem_of"]

log = structlog.get_logger("headwater.http")

CONTENT_TYPE = "application/problem+json"
RETRY_SECONDS = "1"

_TITLES = {
    400: "Bad request",
    401: "Key needed",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Not as things stand",
    413: "Body too large",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available right now",
}


def problem(
    status: int,
    detail: str,
    *,
    field: str | None = None,
    headers: dict[str, str] | None = None,
    **members: Any,
) -> web.Response:
    """One problem as a response; `members` are added to its JSON object."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Request refused"),
        "status": status,
        "detail": detail,
    }
    if field is not None:
        body["field"] = field
    body.update(members)
    # A message may quote what was sent, and that may be no valid text.
    body["detail"] = detail.encode(errors="replace").decode()
    return web.Response(
        status=status, body=orjson.dumps(body), content_type=CONTENT_TYPE, headers=headers
    )


def problem_of(error: Exception, request: web.BaseRequest) -> web.Response:
    """The answer to a request that ended with `error`. What is not expected is logged."""
    if isinstance(error, BadInput):
        return problem(400, str(error), field=error.field or "body")
    if isinstance(error, HTTPException):
        return _of_aiohttp(error, request)
    if isinstance(error, StreamError | StoreError | RedisError | TimeoutError):
        log.warning("not available", path=request.path, error=str(error) or repr(error))
        detail = str(error) if isinstance(error, HeadwaterError) else "the store does not answer"
        return problem(503, detail, headers={"Retry-After": RETRY_SECONDS})
    if isinstance(error, HttpProcessingError | web.RequestPayloadError):
        return problem(400, "the body cannot be read as its headers describe it", field="body")
    if isinstance(error, ConnectionError):  # who asked has gone in the middle of the body
        log.debug("client gone", path=request.path)
        return problem(400, "the connection ended before the body did", field="body")
    log.error("request failed", path=request.path, exc_info=error)
    return problem(500, "something went wrong here; the server's log says what")


def _of_aiohttp(error: HTTPException, request: web.BaseRequest) -> web.Response:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return problem(413, error.text or error.reason, field="body")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return problem(
            405, f"{error.method} is not allowed here: {allowed}", headers={"Allow": allowed}
        )
    if error.status == 404:
        return problem(404, f"there is nothing at {request.path[:200]}", field="path")
    return problem(error.status, error.reason)
