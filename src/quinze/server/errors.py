"""Errors as HTTP answers, all in OpenAI's shape: {"error": {"message", "type", "param", "code", "hint"}}.

Given an exception; knows the status that belongs to it. What is not a person's mistake tells nothing of the
inside.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from quinze.errors import QuinzeError
from quinze.server.encoding import encode

log = logging.getLogger(__name__)

RETRY_AFTER = "1"
"""Seconds; sent with 503, which the official clients heed."""

_CODES = {
    400: "invalid_request",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    411: "length_required",
    413: "too_large",
    415: "unsupported_media_type",
}


class ClientGoneError(Exception):
    """The client has hung up: there is nobody to answer."""


class RefusedError(HTTPException):
    """A request refused for its HTTP, not for what it asks."""

    def __init__(self, status: int, message: str, hint: str = "", code: str = "") -> None:
        super().__init__(status, message)
        self.hint = hint
        self.code = code or _CODES.get(status, "refused")


def error_body(error: BaseException) -> dict[str, Any]:
    """What the client is told."""
    status, message, hint, code, param = 500, "Quinze made a mistake of its own.", "", "internal_error", None
    if isinstance(error, QuinzeError):
        status, message, hint = error.http_status, error.message, error.hint
        code, param = error.code, error.param
    elif isinstance(error, RefusedError):
        status, message, hint, code = error.status_code, error.detail, error.hint, error.code
    elif isinstance(error, HTTPException):
        status, message = error.status_code, error.detail
        code = _CODES.get(status, "refused")
    else:
        hint = "The log of `quinze serve` holds the details."
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code, "hint": hint}}


def status_of(error: BaseException) -> int:
    if isinstance(error, QuinzeError):
        return error.http_status
    return error.status_code if isinstance(error, HTTPException) else 500


def error_response(error: BaseException) -> Response:
    status = status_of(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == 503:
        after = getattr(error, "retry_after", None)
        headers["retry-after"] = RETRY_AFTER if after is None else str(math.ceil(after))
    if status in {408, 411, 413, 415}:
        # The rest of the body may still be on its way; nobody reads it.
        headers["connection"] = "close"
    if status >= 500 and not isinstance(error, QuinzeError):
        log.error("a request failed", exc_info=error)
    return Response(encode(error_body(error)), status, headers, "application/json")


async def handle(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    """Starlette's exception handler."""
    return error_response(error)
