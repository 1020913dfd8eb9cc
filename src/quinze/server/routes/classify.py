"""/api/classify: texts and labels in, the probability of each label out."""

from __future__ import annotations

import threading

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quinze.errors import InvalidRequestError
from quinze.evaluation.classification import Classification, classify
from quinze.server.body import json_body
from quinze.server.encoding import Json
from quinze.server.threads import cancellable
from quinze.service.classify import EMBEDDERS, classifier
from quinze.service.service import Service

MAX_TEXTS = 1024
MAX_CHARACTERS = 100_000
PIECE = 32
"""Texts between two looks whether the client is still there."""


class ClassifyRequest(msgspec.Struct):
    texts: list[str] | str
    labels: list[str]
    """Each "name" or "name=description"."""
    model: str | None = None
    multi: bool = False
    threshold: float = 0.5
    abstain: float = 0.0
    margin: float = 0.0
    template: str | None = None
    temperature: float | None = None
    calibrate: bool = True


class ClassifyReply(msgspec.Struct):
    model: str
    data: list[Classification]


async def classify_texts(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = await json_body(request, ClassifyRequest)
    return Json(await cancellable(request, lambda cancel: _answer(service, asked, cancel)))


def _answer(service: Service, asked: ClassifyRequest, cancel: threading.Event) -> ClassifyReply:
    texts = [asked.texts] if isinstance(asked.texts, str) else asked.texts
    if not 0 < len(texts) <= MAX_TEXTS or max(map(len, texts)) > MAX_CHARACTERS:
        raise InvalidRequestError(
            f"texts must hold 1 to {MAX_TEXTS:,} texts of at most {MAX_CHARACTERS:,} characters.",
            param="texts",
        )
    own = {*EMBEDDERS, service.embedder().id}
    if asked.model is not None and asked.model not in own:
        service.models.require(asked.model)
    with classifier(
        service,
        asked.labels,
        model=asked.model,
        template=asked.template,
        temperature=asked.temperature,
        calibrate=asked.calibrate,
        cancel=cancel,
    ) as (name, one):
        data: list[Classification] = []
        for begin in range(0, len(texts), PIECE):
            # A client that has hung up waits for nothing more.
            if cancel.is_set():
                break
            data += classify(
                one,
                texts[begin : begin + PIECE],
                multi=asked.multi,
                threshold=asked.threshold,
                abstain=asked.abstain,
                margin=asked.margin,
            )
    return ClassifyReply(name, data)
