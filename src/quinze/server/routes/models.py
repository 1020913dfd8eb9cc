"""/api/models: link, list, show and forget models."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quinze.server.body import json_body
from quinze.server.encoding import Json
from quinze.server.routes.given import given_path
from quinze.server.threads import in_thread
from quinze.service.model_info import ModelInfo
from quinze.service.service import Service


class Models(msgspec.Struct):
    models: list[ModelInfo]


class LinkModel(msgspec.Struct):
    """A model on this machine, to be known by a name. It is not copied."""

    path: str
    name: str | None = None


async def list_models(request: Request) -> Response:
    service: Service = request.app.state.service
    return Json(Models(await in_thread(service.models.list)))


async def link_model(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = await json_body(request, LinkModel)
    return Json(await in_thread(service.models.add, given_path(asked.path, "path"), asked.name), 201)


async def show_model(request: Request) -> Response:
    service: Service = request.app.state.service
    return Json(await in_thread(service.models.info, await _known(request)))


async def forget_model(request: Request) -> Response:
    service: Service = request.app.state.service
    await in_thread(service.models.remove, await _known(request))
    return Response(status_code=204)


async def _known(request: Request) -> str:
    service: Service = request.app.state.service
    return await in_thread(service.models.require, request.path_params["name"])
