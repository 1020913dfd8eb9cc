"""GET /v1/models and /v1/models/{id}: what can be named in `model`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from quinze.errors import ModelNotFoundError, QuinzeError
from quinze.server.encoding import Json
from quinze.server.threads import in_thread
from quinze.service.registry import created_at
from quinze.service.service import Service


async def list_models(request: Request) -> Response:
    """The models that are whole, those that chat first; the embedder last."""
    return Json({"object": "list", "data": await in_thread(_all, request.app.state.service)})


async def show_model(request: Request) -> Response:
    name = request.path_params["name"]
    for found in await in_thread(_all, request.app.state.service):
        if found["id"] == name:
            return Json(found)
    raise ModelNotFoundError(
        f"There is no model {name[:200]!r}.", hint="GET /v1/models lists them.", param="model"
    )


def _all(service: Service) -> list[dict[str, Any]]:
    whole = [info for info in service.models.list() if not info.error]
    found = [_body(info.name, created_at(info)) for info in sorted(whole, key=lambda info: not info.can_chat)]
    try:
        return [*found, _body(service.embedder().id, 0)]
    except QuinzeError:
        return found


def _body(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "quinze"}
