"""Quinze itself: health, status, formats, and the description of this very interface."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quinze import __version__
from quinze.errors import QuinzeError
from quinze.server.encoding import Json
from quinze.server.threads import in_thread
from quinze.service.service import Service


class Health(msgspec.Struct):
    status: str
    version: str


class Status(msgspec.Struct):
    version: str
    models_loaded: list[str]
    devices: dict[str, str]
    """Of the loaded models: "cpu" or "cuda"."""
    default_model: str | None
    embedder: str
    home: str
    settings: dict[str, Any]


class Formats(msgspec.Struct):
    formats: dict[str, str]
    """Suffix -> format, of every kind of document that can be read."""


async def health(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
    return Json(Health("ok", __version__))


async def status(request: Request) -> Response:
    return Json(await in_thread(_status, request.app.state.service))


async def formats(request: Request) -> Response:
    service: Service = request.app.state.service
    return Json(Formats(dict(await in_thread(service.rooms.document_formats))))


async def openapi(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
    from quinze.server.openapi import description

    return Json(await in_thread(description))


def _status(service: Service) -> Status:
    try:
        embedder = service.embedder().id
    except QuinzeError:
        embedder = service.settings.embedder
    return Status(
        version=__version__,
        models_loaded=service.models.loaded(),
        devices=service.models.devices(),
        default_model=service.models.default(),
        embedder=embedder,
        home=str(service.home),
        settings=msgspec.to_builtins(service.settings),
    )
