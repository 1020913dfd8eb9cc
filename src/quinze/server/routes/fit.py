"""/api/fit: whether a model fits into this machine's memory, and how fast it will be."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from quinze.errors import InvalidRequestError
from quinze.server.encoding import Json
from quinze.server.threads import in_thread
from quinze.service.fit import fit
from quinze.service.service import Service


async def fit_model(request: Request) -> Response:
    service: Service = request.app.state.service
    given = request.query_params
    name = await in_thread(service.models.require, given.get("name", ""))
    with_speed = given.get("speed", "1") != "0"
    return Json(await in_thread(fit, service, name, context=_context(given), with_speed=with_speed))


def _context(given: Mapping[str, str]) -> int | None:
    text = given.get("context")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidRequestError(f"context is {text[:40]!r}; it must be a whole number.", param="context")
    return int(text)
