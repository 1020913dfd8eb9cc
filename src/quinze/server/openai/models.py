"""GET /v1/models and /v1/models/{id}: what can be named in `model`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from quinze.errors import ModelNotFoundError, QuinzeError
from quinze.server.encoding import Json
from quinze.server.threads import in_thread
from quinze.service.model_info import ModelInfo
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
    found = [_of_model(service, info) for info in sorted(whole, key=lambda info: not info.can_chat)]
    try:
        return [*found, _body(service.embedder().id, 0)]
    except QuinzeError:
        return found


def _of_model(service: Service, info: ModelInfo) -> dict[str, Any]:
    """`max_model_len`, as vLLM calls it: the tokens that a request is granted, its reply included."""
    owner = f"upstream {urlsplit(info.upstream).netloc}" if info.upstream else "quinze"
    granted = info.context_length
    if not info.upstream:
        granted = min(granted, service.settings.context_length or granted)
    return _body(info.name, created_at(info)) | {"owned_by": owner, "max_model_len": granted}


def _body(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "quinze"}
