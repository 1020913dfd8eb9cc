"""Jupyter notebooks: cells in their order, words as the Markdown that they are, code with its output.

Given the file's JSON; only text is taken from outputs. A place names the cell: "cell 3".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from quinze.errors import DocumentError
from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.readers import charset
from quinze.knowledge.readers.code import code_blocks
from quinze.knowledge.readers.markdown import Reading
from quinze.knowledge.readers.report import Report

LONGEST_OUTPUT = 4_000
"""Characters kept of one output; a training log has no end."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def read(path: Path, report: Report) -> Document:
    notebook = _load(path, report)
    language = _language(notebook)
    cells = notebook.get("cells")
    if cells is None:  # the format before version 4
        sheets = notebook.get("worksheets") or [{}]
        cells = [cell for sheet in sheets for cell in sheet.get("cells", [])]
    blocks: list[Block] = []
    words = Reading(report)
    for number, cell in enumerate((c for c in cells if isinstance(c, dict)), 1):
        report.tick()
        kind, source = cell.get("cell_type"), _string(cell.get("source", cell.get("input", "")))
        chapter = f"cell {number}"
        if kind == "code":
            for block in code_blocks(source, language):
                place = msgspec.structs.replace(block.place, chapter=chapter, heading=words.headings.path)
                blocks.append(msgspec.structs.replace(block, place=place))
            blocks.extend(_outputs(cell, chapter, words.headings.path))
        else:
            if kind == "heading":
                source = f"{'#' * int(cell.get('level', 1))} {source}"
            before = len(words.blocks)
            words.read(source)
            for block in words.blocks[before:]:
                place = msgspec.structs.replace(block.place, chapter=chapter, lines=None)
                blocks.append(msgspec.structs.replace(block, place=place))
    title = next((b.text for b in blocks if b.kind is BlockKind.HEADING), "")
    return Document(report.format or "notebook", tuple(blocks), title=title)


def _load(path: Path, report: Report) -> dict[str, Any]:
    try:
        notebook = json.loads(charset.read_text(path, report))
    except (ValueError, RecursionError):
        notebook = None
    if not isinstance(notebook, dict) or not ("cells" in notebook or "worksheets" in notebook):
        raise DocumentError(
            f"{report.name} is no Jupyter notebook that can be read: its JSON is broken or holds no cells.",
            hint="Open it in Jupyter and save it again.",
        )
    return notebook


def _language(notebook: Mapping[str, Any]) -> str:
    metadata = notebook.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    for key in ("language_info", "kernelspec"):
        info = metadata.get(key)
        if isinstance(info, dict):
            name = info.get("name") if key == "language_info" else info.get("language")
            if isinstance(name, str):
                return name.lower()
    return "python"


def _string(value: object) -> str:
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _outputs(cell: Mapping[str, Any], chapter: str, heading: tuple[str, ...]) -> Iterator[Block]:
    """Printed text and results, and the last line of an error."""
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else []:
        if not isinstance(output, dict):
            continue
        data = output.get("data")
        text = _string(output.get("text", "")) or _string(
            data.get("text/plain", "") if isinstance(data, dict) else ""
        )
        if output.get("output_type") == "error":
            text = f"{output.get('ename', 'Error')}: {output.get('evalue', '')}"
        text = _ESCAPES.sub("", text).strip()
        if text:
            place = Place(chapter=chapter, heading=heading, part="output")
            yield Block(BlockKind.CODE, text[:LONGEST_OUTPUT], place)
