"""/api/knowledge: knowledge bases, made, listed, removed, and filled with files."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quinze.errors import EmptyDocumentError, TooLargeError
from quinze.server.body import body_pieces, json_body
from quinze.server.encoding import Json
from quinze.server.routes.given import given_path
from quinze.server.threads import in_thread
from quinze.service.service import Service

_WRITE_AT_ONCE = 2**20


class KnowledgeBaseInfo(msgspec.Struct):
    name: str
    documents: int
    ready: int
    failed: int
    chunks: int
    bytes: int
    embedder: str | None
    updated_at: str | None
    error: str | None


class KnowledgeBaseList(msgspec.Struct):
    knowledge_bases: list[KnowledgeBaseInfo]


class NewKnowledgeBase(msgspec.Struct):
    name: str


class AddPaths(msgspec.Struct):
    """Files and folders of this machine."""

    paths: list[str]


async def list_knowledge_bases(request: Request) -> Response:
    service: Service = request.app.state.service

    def overviews() -> list[dict[str, Any]]:
        return [service.knowledge_bases.overview(name) for name in service.knowledge_bases.names()]

    return Json({"knowledge_bases": await in_thread(overviews)})


async def new_knowledge_base(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = await json_body(request, NewKnowledgeBase)
    made = await in_thread(service.knowledge_bases.create, asked.name)
    return Json(await in_thread(service.knowledge_bases.overview, made.name), 201)


async def show_knowledge_base(request: Request) -> Response:
    service: Service = request.app.state.service
    base = await in_thread(service.knowledge_bases.get, request.path_params["name"])
    return Json(await in_thread(service.knowledge_bases.overview, base.name))


async def remove_knowledge_base(request: Request) -> Response:
    service: Service = request.app.state.service
    await in_thread(service.remove_knowledge_base, request.path_params["name"])
    return Response(status_code=204)


async def upload(request: Request) -> Response:
    """One file as the raw body; `?name=` is how it is shown."""
    service: Service = request.app.state.service
    base, name = request.path_params["name"], request.query_params.get("name", "")
    limit = service.settings.max_upload_bytes
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and (len(stated) > 18 or int(stated) > limit):
        raise TooLargeError(
            f"The file is larger than the {limit:,} bytes that may be uploaded.",
            hint="Raise max_upload_bytes in settings.json, or add the file by its path.",
        )
    with await in_thread(service.upload, base, name) as incoming:
        gathered = bytearray()
        async for piece in body_pieces(request, limit):
            gathered += piece
            if len(gathered) >= _WRITE_AT_ONCE:
                await in_thread(incoming.write, bytes(gathered))
                gathered.clear()
        await in_thread(incoming.write, bytes(gathered))
        if not incoming.size:
            raise EmptyDocumentError(
                f"{incoming.name} is empty.", hint="Check that it was saved and copied whole.", param="body"
            )
        pending = await in_thread(incoming.finish)
    job = await in_thread(service.add_upload, base, pending)
    return Json(job.snapshot(), 202)


async def add_paths(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = await json_body(request, AddPaths)
    paths = [given_path(path, "paths") for path in asked.paths]
    job = await in_thread(service.add_paths, request.path_params["name"], paths)
    return Json(job.snapshot(), 202)
