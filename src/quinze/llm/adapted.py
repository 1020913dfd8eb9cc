"""One model, several adapters: each seen as a model of its own, all on the same weights.

Given an LLM; gives copies of it whose requests pass through an adapter. Knows no names of the registry.
"""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from quinze.engine.constraints import Grammars
from quinze.errors import UnsupportedModelError
from quinze.models.adapters import read_adapter
from quinze.tokenizer.chat_template import ChatTemplate
from quinze.tokenizer.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from quinze.llm.llm import LLM


class Adapted:
    """Those of one LLM. Safe to use from many threads."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[tuple[float, ...], LLM]] = {}

    def get(self, path: Path, name: str | None) -> LLM:
        """Loaded on first use, and again when its files have changed."""
        written = tuple(file.stat().st_mtime for file in sorted(path.glob("adapter*")))
        with self._lock:
            known = self._known.get(path)
            if known is None or known[0] != written:
                known = self._known[path] = (written, self._load(path))
        llm = known[1]
        if name is None or name == llm.name:
            return llm
        named = copy.copy(llm)
        named.name = name
        return named

    def wear(self, path: Path) -> None:
        """The LLM itself passes through an adapter from now on."""
        worn = self.get(path, None)
        for field in ("_adapter", "_template", "_grammars", "tokenizer", "name"):
            setattr(self._llm, field, getattr(worn, field))

    def close(self) -> None:
        with self._lock:
            for _, llm in self._known.values():
                if llm._template is not None and llm._template is not self._llm._template:
                    llm._template.close()
            self._known.clear()

    def _load(self, path: Path) -> LLM:
        llm = copy.copy(self._llm)
        llm._adapter = self._llm._engine.load_adapter(read_adapter(path))
        llm.path, llm.name, llm._lent = path, path.name, True
        if (path / "tokenizer.json").is_file():
            llm.tokenizer = load_tokenizer(path)
            if llm.tokenizer.vocab_size > llm.config.vocab_size:
                raise UnsupportedModelError(
                    f"The tokenizer of {path.name} has {llm.tokenizer.vocab_size:,} tokens; "
                    f"{self._llm.name} knows {llm.config.vocab_size:,}."
                )
            llm._template = ChatTemplate.of(llm.tokenizer)
            llm._grammars = Grammars(llm.tokenizer)
        return llm
