"""POST /v1/embeddings: texts in, vectors out, as numbers or as base64 of little-endian float32.

The official Python client asks for base64 whenever its user names no encoding.
"""

from __future__ import annotations

import base64
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from quinze.embeddings.embedder import Embedder, shortened
from quinze.errors import InvalidRequestError
from quinze.server.body import json_body
from quinze.server.encoding import Json
from quinze.server.openai.protocol import EmbeddingRequest
from quinze.server.threads import in_thread
from quinze.service.service import Service

MAX_INPUTS = 2048


async def embeddings(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = await json_body(request, EmbeddingRequest)
    texts = _texts(asked.input)
    encoding = asked.encoding_format or "float"
    if encoding not in {"float", "base64"}:
        raise InvalidRequestError(
            f'encoding_format is {encoding[:40]!r}; it must be "float" or "base64".', param="encoding_format"
        )
    embedder = await in_thread(service.embedder, asked.model)
    _check_dimensions(asked.dimensions, embedder)
    vectors, tokens, model = await in_thread(service.embed, texts, model=asked.model)
    if asked.dimensions is not None:
        vectors = shortened(vectors, asked.dimensions)
    data: list[dict[str, Any]] = []
    for index, vector in enumerate(vectors):
        shown: Any = (
            base64.b64encode(vector.astype("<f4").tobytes()).decode()
            if encoding == "base64"
            else vector.tolist()
        )
        data.append({"object": "embedding", "index": index, "embedding": shown})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Json({"object": "list", "data": data, "model": model, "usage": usage})


def _check_dimensions(asked: int | None, embedder: Embedder) -> None:
    whole = embedder.dimensions
    if asked in {None, whole} or (embedder.matryoshka and asked is not None and 1 <= asked < whole):
        return
    raise InvalidRequestError(
        f"{embedder.id} gives vectors of {whole} dimensions{' or fewer' if embedder.matryoshka else ''}, "
        f"not of {asked}.",
        hint="Leave dimensions out.",
        param="dimensions",
    )


def _texts(given: str | list[Any]) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidRequestError(
            "input must be a text or a list of texts"
            + (" of at least one." if not texts else "; token ids are not read."),
            hint="With LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)." if texts else "",
            param="input",
        )
    if len(texts) > MAX_INPUTS:
        raise InvalidRequestError(
            f"input holds {len(texts):,} texts; {MAX_INPUTS:,} are the most.",
            hint="Send them in several requests.",
            param="input",
        )
    for i, text in enumerate(texts):
        if not text:
            raise InvalidRequestError(f"input[{i}] is empty.", param=f"input[{i}]")
    return texts
