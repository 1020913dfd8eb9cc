"""Notebooks: cells in order, with headings, code and printed output; each place names its cell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from quinze.errors import DocumentError
from quinze.knowledge.document import BlockKind
from quinze.knowledge.readers.notebook import read
from quinze.knowledge.readers.report import Report


def notebook(tmp_path: Path, *cells: dict[str, object]) -> Path:
    path = tmp_path / "n.ipynb"
    path.write_text(
        json.dumps({"nbformat": 4, "metadata": {"language_info": {"name": "python"}}, "cells": cells})
    )
    return path


def test_a_real_notebook_keeps_all_its_cells(shared: Callable[[str], Path]) -> None:
    path = shared("data/documents/markitdown/test_notebook.ipynb")
    document = read(path, Report(path.name, "notebook"))
    text = "\n".join(b.text for b in document.blocks)
    for cell in json.loads(path.read_text())["cells"]:
        for line in cell["source"]:
            words = line.strip().strip("#-").strip()  # "---" draws a line
            assert words in text
    assert document.title == "Test Notebook"


def test_places_name_the_cell_the_heading_and_the_symbol(tmp_path: Path) -> None:
    path = notebook(
        tmp_path,
        {"cell_type": "markdown", "source": ["# Sales\n", "\n", "All of **2025**.\n", "- one\n", "- two\n"]},
        {
            "cell_type": "code",
            "source": "def total(x):\n    return sum(x)\n",
            "outputs": [
                {"output_type": "stream", "text": ["\u001b[31m42\u001b[0m\n"]},
                {
                    "output_type": "execute_result",
                    "data": {"text/plain": ["'done'"], "image/png": "aGVsbG8="},
                },
                {"output_type": "error", "ename": "ValueError", "evalue": "no rows", "traceback": ["x"]},
            ],
        },
    )
    blocks = read(path, Report("n.ipynb", "notebook")).blocks
    kinds = [b.kind for b in blocks]
    assert kinds[:4] == [BlockKind.HEADING, BlockKind.PARAGRAPH, BlockKind.LIST_ITEM, BlockKind.LIST_ITEM]
    [function] = [b for b in blocks if b.place.symbol == "total"]
    assert function.place.chapter == "cell 2"
    assert function.place.heading == ("Sales",)
    assert function.place.lines == (1, 2)
    outputs = [b.text for b in blocks if b.place.part == "output"]
    assert outputs == ["42", "'done'", "ValueError: no rows"]


def test_notes_are_read_as_the_markdown_that_they_are(tmp_path: Path) -> None:
    table = "| run | loss |\n|---|---|\n| a | 0.5 |"
    source = f"# Runs\n\n{table}\n\nSee [the *log*](log.txt).\n\n1. first\n   - nested\n"
    blocks = read(
        notebook(tmp_path, {"cell_type": "markdown", "source": source}), Report("n.ipynb", "notebook")
    ).blocks
    assert [(b.text, b.level) for b in blocks] == [
        ("Runs", 1), ("run | loss", 0), ("a | 0.5", 0), ("See the log.", 0), ("1. first", 1), ("nested", 2),
    ]  # fmt: skip
    assert blocks[2].header == ("run", "loss")
    assert {b.place.chapter for b in blocks} == {"cell 1"}
    assert all(b.place.heading == ("Runs",) for b in blocks)


def test_json_that_is_no_notebook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.ipynb"
    path.write_text('{"cells": [')
    with pytest.raises(DocumentError, match="no Jupyter notebook"):
        read(path, Report("n.ipynb", "notebook"))
