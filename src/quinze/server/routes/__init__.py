"""The table of all routes. Each is described in openapi.py, and a test holds the two together."""

from __future__ import annotations

from starlette.routing import Route

from quinze.server import static_files
from quinze.server.openai.chat import chat_completions
from quinze.server.openai.completions import completions
from quinze.server.openai.embeddings import embeddings
from quinze.server.openai.models import list_models, show_model
from quinze.server.routes import (
    asking,
    classify,
    documents,
    fit,
    jobs,
    knowledge,
    models,
    pulls,
    runs,
    system,
)

_BASE = "/api/knowledge/{name}"
_DOCUMENT = _BASE + "/documents/{id}"


def routes() -> list[Route]:
    return [
        Route("/health", system.health),
        Route("/openapi.json", system.openapi),
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/v1/models", list_models),
        Route("/v1/models/{name:path}", show_model),
        Route("/api/status", system.status),
        Route("/api/formats", system.formats),
        Route("/api/models", models.list_models),
        Route("/api/models", models.link_model, methods=["POST"]),
        Route("/api/models/{name}", models.show_model),
        Route("/api/models/{name}", models.forget_model, methods=["DELETE"]),
        Route("/api/pull", pulls.pull_model, methods=["POST"]),
        Route("/api/fit", fit.fit_model),
        Route("/api/classify", classify.classify_texts, methods=["POST"]),
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
        Route("/api/runs", runs.list_runs),
        Route("/api/runs", runs.start_run, methods=["POST"]),
        Route("/api/runs/folders", runs.add_folder, methods=["POST"]),
        Route("/api/runs/{name}", runs.show_run),
        Route("/api/runs/{name}", runs.forget_run, methods=["DELETE"]),
        Route("/api/runs/{name}/events", runs.run_events),
        Route("/api/runs/{name}/pause", runs.pause_run, methods=["POST"]),
        Route("/api/runs/{name}/resume", runs.resume_run, methods=["POST"]),
        Route("/api/runs/{name}/stop", runs.stop_run, methods=["POST"]),
        Route("/{path:path}", static_files.page),
    ]
