"""/api/knowledge/{name}/documents: each document, its blocks, its pages as pictures, its file."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from quinze.errors import DocumentNotFoundError, InvalidRequestError
from quinze.knowledge.document import Block, Place
from quinze.knowledge.results import DocumentInfo
from quinze.server.encoding import Json
from quinze.server.threads import in_thread
from quinze.service.service import Service


class DocumentList(msgspec.Struct):
    documents: list[DocumentInfo]


class BlockInfo(msgspec.Struct):
    """A block as it is shown; `label` is its place in words."""

    index: int
    kind: str
    text: str
    level: int
    cells: tuple[str, ...]
    header: tuple[str, ...]
    place: Place
    label: str


class Blocks(msgspec.Struct):
    total: int
    start: int
    blocks: list[BlockInfo]


_BLOCKS = 200
_MOST_BLOCKS = 1_000


async def list_documents(request: Request) -> Response:
    service: Service = request.app.state.service
    name = request.path_params["name"]
    documents = await in_thread(lambda: service.knowledge_bases.get(name).documents())
    return Json(DocumentList(documents))


async def show_document(request: Request) -> Response:
    service: Service = request.app.state.service
    name, document_id = _which(request)
    return Json(await in_thread(lambda: service.knowledge_bases.get(name).document(document_id)))


async def remove_document(request: Request) -> Response:
    service: Service = request.app.state.service
    await in_thread(service.remove_document, *_which(request))
    return Response(status_code=204)


async def retry_document(request: Request) -> Response:
    service: Service = request.app.state.service
    job = await in_thread(service.retry, *_which(request))
    return Json(job.snapshot(), 202)


async def blocks(request: Request) -> Response:
    """What was read, in order: what a citation opens."""
    service: Service = request.app.state.service
    name, document_id = _which(request)
    start = _number(request, "start", 0, 0, 10**9)
    limit = _number(request, "limit", _BLOCKS, 1, _MOST_BLOCKS)

    def read() -> Blocks:
        base = service.knowledge_bases.get(name)
        total = base.document(document_id).blocks
        found = base.blocks(document_id, start=start, limit=limit)
        return Blocks(total, start, [_block(start + i, block) for i, block in enumerate(found)])

    return Json(await in_thread(read))


async def page_image(request: Request) -> Response:
    service: Service = request.app.state.service
    name, document_id = _which(request)
    page = request.path_params["page"]
    if not re.fullmatch(r"[0-9]{1,9}", page):
        raise InvalidRequestError(f"The page is {page[:40]!r}; it must be a whole number.", param="page")
    width = _number(request, "width", service.settings.page_image_width, 16, 4096)
    image = await in_thread(service.page_image, name, document_id, int(page), width)
    return Response(image, media_type="image/png", headers={"cache-control": "private, max-age=3600"})


async def document_file(request: Request) -> Response:
    """The document's own file, always as a download: nothing in it may run here."""
    service: Service = request.app.state.service
    path, document = await in_thread(service.document_file, *_which(request))
    return _attachment(path, document.name)


def _attachment(path: Path, shown_name: str) -> Response:
    last = shown_name.rpartition("/")[2].encode("utf-8", "replace").decode()
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", last)[:150] or "document"
    quoted = urllib.parse.quote(last, safe="")
    return FileResponse(
        path,
        media_type="application/octet-stream",
        headers={
            "content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quoted}",
            "content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
        },
    )


def _block(index: int, block: Block) -> BlockInfo:
    return BlockInfo(
        index, block.kind.value, block.text, block.level, block.cells, block.header, block.place,
        block.place.label(),
    )  # fmt: skip


def _which(request: Request) -> tuple[str, int]:
    """The knowledge base's name and the document's id, from the path."""
    given = request.path_params["id"]
    if not re.fullmatch(r"[0-9]{1,18}", given):
        raise DocumentNotFoundError(f"There is no document {given[:40]!r}.", param="id")
    return request.path_params["name"], int(given)


def _number(request: Request, name: str, default: int, low: int, high: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    if not re.fullmatch(r"[0-9]{1,12}", given) or not low <= int(given) <= high:
        raise InvalidRequestError(
            f"{name} is {given[:40]!r}; it must be a whole number between {low} and {high}.", param=name
        )
    return int(given)
