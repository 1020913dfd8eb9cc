"""Quinze: own a language model whole, on your own computer.

    import quinze

    llm = quinze.LLM("model.gguf")
    print(llm.complete("Once upon a time", max_tokens=64).text)

    notes = quinze.KnowledgeBase("notes")
    notes.add("Documents/")
    print(notes.ask("When is the rent due?").answer)

Names are loaded when they are first used (PEP 562), so that `import quinze` itself costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quinze.api import LLM as LLM
    from quinze.api import Embedder as Embedder
    from quinze.api import KnowledgeBase as KnowledgeBase
    from quinze.engine.constraints import Grammar as Grammar
    from quinze.engine.sampling import SamplingParams as SamplingParams
    from quinze.errors import QuinzeError as QuinzeError
    from quinze.llm.messages import Message as Message

__version__ = "0.1.0"

_HOMES = {
    "LLM": "quinze.api",
    "KnowledgeBase": "quinze.api",
    "Embedder": "quinze.api",
    "Grammar": "quinze.engine.constraints",
    "SamplingParams": "quinze.engine.sampling",
    "Message": "quinze.llm.messages",
    "QuinzeError": "quinze.errors",
}

__all__ = [
    "LLM",
    "Embedder",
    "Grammar",
    "KnowledgeBase",
    "Message",
    "QuinzeError",
    "SamplingParams",
    "__version__",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'quinze' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
