"""The description of the HTTP interface (OpenAPI 3.1), made from the very types that requests are read with.

Given nothing; a test holds it together with the table of routes in app.py. Served as /openapi.json.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from quinze import __version__
from quinze.knowledge.results import DocumentInfo
from quinze.rag.answers import Answer
from quinze.server.openai import protocol
from quinze.server.routes import asking, classify, documents, jobs, knowledge, models, pulls, runs, system
from quinze.service.fit import Fit
from quinze.service.jobs import JobState
from quinze.service.model_info import ModelInfo
from quinze.service.run_info import RunDetail, RunInfo


class ErrorDetail(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str
    hint: str


class Error(msgspec.Struct):
    """What every refusal looks like."""

    error: ErrorDetail


@dataclass(frozen=True)
class Operation:
    """What a route is for. Types are msgspec's, or a media type where the body is no JSON."""

    summary: str
    response: Any = None
    request: Any = None
    status: int = 200
    query: tuple[str, ...] = ()
    tag: str = "quinze"


_OPENAI = "openai"
_BASE = "/api/knowledge/{name}"
_DOCUMENT = _BASE + "/documents/{id}"
_RUN = "/api/runs/{name}"
_EVENTS = "text/event-stream"
_WORDS = frozenset({"name", "language"})
"""Query parameters that are texts; the others are numbers."""

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/health"): Operation("Whether the service answers", system.Health),
    ("GET", "/openapi.json"): Operation("This description", dict[str, Any]),
    ("POST", "/v1/chat/completions"): Operation(
        "Chat with a model; with `stream`, server-sent chunks",
        dict[str, Any],
        protocol.ChatRequest,
        tag=_OPENAI,
    ),
    ("POST", "/v1/completions"): Operation(
        "Continue a text; with `stream`, server-sent chunks",
        dict[str, Any],
        protocol.CompletionRequest,
        tag=_OPENAI,
    ),
    ("POST", "/v1/embeddings"): Operation(
        "Vectors of texts", dict[str, Any], protocol.EmbeddingRequest, tag=_OPENAI
    ),
    ("GET", "/v1/models"): Operation("The models", dict[str, Any], tag=_OPENAI),
    ("GET", "/v1/models/{name}"): Operation("One model", dict[str, Any], tag=_OPENAI),
    ("GET", "/api/status"): Operation("Version, models, embedder, home and settings", system.Status),
    ("GET", "/api/formats"): Operation("The kinds of document that can be read", system.Formats),
    ("GET", "/api/models"): Operation("The models, broken ones with their reason", models.Models),
    ("POST", "/api/models"): Operation(
        "Link a model of this machine by a name", ModelInfo, models.LinkModel, 201
    ),
    ("GET", "/api/models/{name}"): Operation("One model", ModelInfo),
    ("DELETE", "/api/models/{name}"): Operation("Forget the link; the file stays", status=204),
    ("GET", "/api/fit"): Operation(
        "Whether a model fits into this machine, and how fast it will be",
        Fit,
        query=("name", "context", "speed"),
    ),
    ("POST", "/api/classify"): Operation(
        "The probability of each label for each text, with no training",
        classify.ClassifyReply,
        classify.ClassifyRequest,
    ),
    ("POST", "/api/pull"): Operation(
        "Bring a model here from a hub; server-sent events", _EVENTS, pulls.PullRequest
    ),
    ("GET", "/api/knowledge"): Operation("The knowledge bases", knowledge.KnowledgeBaseList),
    ("POST", "/api/knowledge"): Operation(
        "Make a knowledge base", knowledge.KnowledgeBaseInfo, knowledge.NewKnowledgeBase, 201
    ),
    ("GET", _BASE): Operation("One knowledge base", knowledge.KnowledgeBaseInfo),
    ("DELETE", _BASE): Operation("Remove it, with the files uploaded into it", status=204),
    ("GET", _BASE + "/documents"): Operation("Its documents", documents.DocumentList),
    ("POST", _BASE + "/documents"): Operation(
        "Upload one file as the raw body", JobState, "application/octet-stream", 202, ("name",)
    ),
    ("POST", _BASE + "/paths"): Operation(
        "Read files and folders of this machine", JobState, knowledge.AddPaths, 202
    ),
    ("POST", _BASE + "/search"): Operation(
        "The passages that answer best", asking.SearchReply, asking.SearchRequest
    ),
    ("GET", _DOCUMENT): Operation("One document", DocumentInfo),
    ("DELETE", _DOCUMENT): Operation("Remove a document", status=204),
    ("POST", _DOCUMENT + "/retry"): Operation("Read a document again", JobState, status=202),
    ("GET", _DOCUMENT + "/blocks"): Operation(
        "What was read of it, in order", documents.Blocks, query=("start", "limit")
    ),
    ("GET", _DOCUMENT + "/pages/{page}.png"): Operation("A page as a picture", "image/png", query=("width",)),
    ("GET", _DOCUMENT + "/file"): Operation("Its own file, as a download", "application/octet-stream"),
    ("POST", "/api/ask"): Operation(
        "Ask the documents; with `stream`, server-sent events", Answer, asking.AskRequest
    ),
    ("GET", "/api/jobs"): Operation("The jobs, newest first", jobs.JobList),
    ("GET", "/api/jobs/{id}"): Operation("One job", JobState),
    ("DELETE", "/api/jobs/{id}"): Operation("Cancel a job", JobState, status=202),
    ("GET", "/api/jobs/{id}/events"): Operation("Its progress, live, until it ends", _EVENTS),
    ("GET", "/api/runs"): Operation("The training runs, those under way first", runs.RunList),
    ("POST", "/api/runs"): Operation("Begin a training run", RunInfo, runs.NewRun, 201),
    ("POST", "/api/runs/folders"): Operation(
        "Know a run that lies elsewhere on this machine", RunInfo, runs.AddRun, 201
    ),
    ("GET", _RUN): Operation("One run, with settings, floors and findings", RunDetail, query=("language",)),
    ("DELETE", _RUN): Operation("Take a run that is over from the list; its folder stays", status=204),
    ("GET", _RUN + "/events"): Operation(
        "What happens in it, live, until it ends", _EVENTS, query=("language", "steps")
    ),
    ("POST", _RUN + "/pause"): Operation("Let it rest after its step", RunInfo, status=202),
    ("POST", _RUN + "/resume"): Operation("Let it go on, or start it again", RunInfo, status=202),
    ("POST", _RUN + "/stop"): Operation("End it after its step, keeping its best", RunInfo, status=202),
}


def description() -> dict[str, Any]:
    types = [Error]
    for operation in OPERATIONS.values():
        types += [kind for kind in (operation.request, operation.response) if _is_json(kind)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = {repr(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, operation, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Quinze",
            "version": __version__,
            "description": "Chat with a model on this computer, and ask your own documents. Loopback only.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "openai"}, {"name": "quinze"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(method: str, path: str, operation: Operation, schema_of: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    parameters += [
        {
            "name": name,
            "in": "query",
            "required": name == "name",
            "schema": {"type": "string" if name in _WORDS else "integer"},
        }
        for name in operation.query
    ]
    success: dict[str, Any] = {"description": "Done"}
    if operation.response is not None:
        success["content"] = _content(operation.response, schema_of)
    found: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {
            str(operation.status): success,
            "default": {"description": "Refused", "content": _content(Error, schema_of)},
        },
    }
    if parameters:
        found["parameters"] = parameters
    if operation.request is not None:
        found["requestBody"] = {"required": True, "content": _content(operation.request, schema_of)}
    return found


def _content(kind: Any, schema_of: dict[str, Any]) -> dict[str, Any]:
    """`content` of a request or a response."""
    if isinstance(kind, str):
        is_text = kind.startswith("text/")
        return {kind: {"schema": {"type": "string"} if is_text else {"type": "string", "format": "binary"}}}
    return {"application/json": {"schema": schema_of[repr(kind)]}}


def _is_json(kind: Any) -> bool:
    return kind is not None and not isinstance(kind, str)
