"""The HTTP application: the table of all routes, behind the guard.

Given a Service; holds no state of its own but the sign that the server is closing. Every route is described
in openapi.py, and a test holds the two together.
"""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from quinze.errors import QuinzeError
from quinze.server import static_files
from quinze.server.errors import handle
from quinze.server.middleware import Guard
from quinze.server.openai.chat import chat_completions
from quinze.server.openai.completions import completions
from quinze.server.openai.embeddings import embeddings
from quinze.server.openai.models import model, models
from quinze.server.routes import asking, documents, jobs, knowledge, system
from quinze.server.routes import models as own_models
from quinze.service.service import Service

_BASE = "/api/knowledge/{name}"
_DOCUMENT = _BASE + "/documents/{id}"

ROUTES = [
    Route("/health", system.health),
    Route("/openapi.json", system.openapi),
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
    Route("/v1/models", models),
    Route("/v1/models/{name:path}", model),
    Route("/api/status", system.status),
    Route("/api/formats", system.formats),
    Route("/api/models", own_models.list_models),
    Route("/api/models", own_models.link_model, methods=["POST"]),
    Route("/api/models/{name}", own_models.show_model),
    Route("/api/models/{name}", own_models.forget_model, methods=["DELETE"]),
    Route("/api/knowledge", knowledge.list_knowledge_bases),
    Route("/api/knowledge", knowledge.new_knowledge_base, methods=["POST"]),
    Route(_BASE, knowledge.show_knowledge_base),
    Route(_BASE, knowledge.remove_knowledge_base, methods=["DELETE"]),
    Route(_BASE + "/documents", documents.list_documents),
    Route(_BASE + "/documents", knowledge.upload, methods=["POST"]),
    Route(_BASE + "/paths", knowledge.add_paths, methods=["POST"]),
    Route(_BASE + "/search", asking.search, methods=["POST"]),
    Route(_DOCUMENT, documents.show_document),
    Route(_DOCUMENT, documents.remove_document, methods=["DELETE"]),
    Route(_DOCUMENT + "/retry", documents.retry_document, methods=["POST"]),
    Route(_DOCUMENT + "/blocks", documents.blocks),
    Route(_DOCUMENT + "/pages/{page}.png", documents.page_image),
    Route(_DOCUMENT + "/file", documents.document_file),
    Route("/api/ask", asking.ask, methods=["POST"]),
    Route("/api/jobs", jobs.list_jobs),
    Route("/api/jobs/{id}", jobs.show_job),
    Route("/api/jobs/{id}", jobs.cancel_job, methods=["DELETE"]),
    Route("/api/jobs/{id}/events", jobs.job_events),
    Route("/{path:path}", static_files.page),
]


def create_app(service: Service) -> Starlette:
    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Guard, settings=service.settings)],
        exception_handlers={QuinzeError: handle, HTTPException: handle},
    )
    app.state.service = service
    app.state.closing = asyncio.Event()
    app.state.page_folder = static_files.FOLDER
    return app
