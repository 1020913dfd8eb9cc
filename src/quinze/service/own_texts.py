"""A person's own texts: what a file, a folder or a knowledge base says, as plain text.

Given what was typed: a path first, else the name of a knowledge base. Files go through the readers, in their
killable children, so that every format serves that a knowledge base takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quinze.errors import DocumentError, InvalidRequestError, KnowledgeBaseNotFoundError

if TYPE_CHECKING:
    from quinze.knowledge.document import Block
    from quinze.service.service import Service

ENOUGH = 2_000_000
"""Characters after which no more files are read: some hundred thousand tokens."""
HELD_OUT = 0.2
"""Of every text, its end, when some of it must stay unseen."""


@dataclass(frozen=True, slots=True)
class OwnText:
    name: str
    text: str


def own_texts(
    service: Service, given: str, *, progress: Callable[[str], None] = lambda _: None, param: str
) -> list[OwnText]:
    """The texts meant by `given`. InvalidRequestError, naming `param`, when there are none."""
    path = Path(given).expanduser()
    found: list[OwnText] = []
    size = 0
    for text in _of_path(service, path, progress) if path.exists() else _of_base(service, given, param):
        found.append(text)
        size += len(text.text)
        if size >= ENOUGH:
            break
    if not size:
        raise InvalidRequestError(f"There is no text in {given!r:.200}.", param=param)
    return found


def held_out(texts: list[OwnText]) -> tuple[list[str], list[str]]:
    """What may be seen of the texts, and the end of each that is kept apart.

    >>> held_out([OwnText("a", "word " * 10)])
    (['word word word word word word word word '], ['word word '])
    """
    seen, unseen = [], []
    for text in texts:
        cut = int(len(text.text) * (1 - HELD_OUT))
        # Not within a word; Chinese has no blanks, and may be cut anywhere.
        blank = text.text.rfind(" ", max(0, cut - 100), cut) + 1
        cut = blank or cut
        seen.append(text.text[:cut])
        unseen.append(text.text[cut:])
    return seen, unseen


def _of_path(service: Service, path: Path, progress: Callable[[str], None]) -> Iterator[OwnText]:
    from quinze.knowledge.folders import find_files

    for file in find_files([path]):
        progress(file.name)
        try:
            document = service.rooms.readers().read(file.path, name=file.name)
        except DocumentError:
            if file.named_itself:
                raise
            continue
        yield OwnText(file.name, _text(document.blocks))


def _of_base(service: Service, name: str, param: str) -> Iterator[OwnText]:
    try:
        base = service.knowledge_bases.get(name)
    except (KnowledgeBaseNotFoundError, InvalidRequestError) as error:
        raise InvalidRequestError(
            f"There is no file, folder or knowledge base {name!r:.200}.",
            hint="Check the spelling; `quinze kb ls` lists the knowledge bases.",
            param=param,
        ) from error
    for document in base.documents():
        yield OwnText(document.name, _text(base.blocks(document.id)))


def _text(blocks: tuple[Block, ...] | list[Block]) -> str:
    return "\n".join(block.text for block in blocks)
