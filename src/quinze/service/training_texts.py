"""What a person may name as text to train on: a file, a folder, or one of their knowledge bases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quinze.errors import InvalidRequestError, KnowledgeBaseNotFoundError

if TYPE_CHECKING:
    from quinze.knowledge.knowledge_base import KnowledgeBase
    from quinze.service.service import Service
    from quinze.training.data.sources import Source


def training_source(service: Service, given: str) -> Source:
    """A source by what it is called: "wiki.jsonl", "wiki=corpus/wiki.jsonl.xz", "kb:home".

    Raises InvalidRequestError where nothing of that name is there, FileFormatError for other files.
    """
    from quinze.training.data.sources import Source

    if given.startswith("kb:"):
        return _of_base(service, given.removeprefix("kb:"))
    label, _, rest = given.rpartition("=")
    path = Path(rest if label and not Path(given).exists() else given).expanduser()
    if not path.exists():
        raise InvalidRequestError(
            f"There is no file or folder {str(path)!r:.200}.",
            hint="Name text, JSONL, CSV or parquet files, folders of them, or kb:NAME for a knowledge base.",
            param="sources",
        )
    return Source.of(path, name=label if label and not Path(given).exists() else "")


def _of_base(service: Service, name: str) -> Source:
    from quinze.training.data.sources import Source

    try:
        base = service.knowledge_bases.get(name)
    except KnowledgeBaseNotFoundError as error:
        raise InvalidRequestError(
            f"There is no knowledge base {name!r:.200}.",
            hint="`quinze kb ls` lists them.",
            param="sources",
        ) from error
    return Source.of_documents(f"kb:{name}", lambda: _documents(base))


def _documents(base: KnowledgeBase) -> Iterator[str]:
    """The text of each document that was read, its blocks one below the other."""
    for document in base.documents():
        if document.status == "ready":
            yield "\n".join(block.text for block in base.blocks(document.id))
