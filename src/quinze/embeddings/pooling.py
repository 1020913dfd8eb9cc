"""How a model's file wants its vectors to be taken: from which tokens, and with which words before a text.

Given a checkpoint and its path; returns a Pooling, or None for a model that is no embedder. Read are GGUF's
*.pooling_type, and what sentence-transformers writes beside the weights: modules.json, 1_Pooling/config.json
and config_sentence_transformers.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quinze.errors import FileFormatError, UnsupportedModelError
from quinze.formats.checkpoint import Checkpoint
from quinze.formats.json_file import parse_json, read_json

Kind = Literal["last", "mean", "cls"]

GGUF_KINDS: Mapping[int, Kind] = {1: "mean", 2: "cls", 3: "last"}
RANK = 4
"""GGUF's number for models that judge pairs instead of making vectors."""
FLAGS: Mapping[str, Kind] = {
    "pooling_mode_lasttoken": "last", "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls",
}  # fmt: skip
NAMES: Mapping[str, Kind] = {"lasttoken": "last", "mean": "mean", "cls": "cls"}
QWEN3_QUERY = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
"""As config_sentence_transformers.json of Qwen3-Embedding has it; its GGUF files leave it out."""
MAX_PROMPT = 4096
MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class Pooling:
    kind: Kind
    """last: the vector of the last token; mean: of all; cls: of the first."""
    query_prefix: str = ""
    passage_prefix: str = ""


def pooling_of(path: Path, checkpoint: Checkpoint) -> Pooling | None:
    """None where nothing is said of it."""
    if checkpoint.format == "gguf":
        return _of_gguf(checkpoint)
    if checkpoint.format != "safetensors":
        return None
    return _of_folder(path if path.is_dir() else path.parent)


def _of_gguf(checkpoint: Checkpoint) -> Pooling | None:
    architecture = checkpoint.metadata.get("general.architecture")
    number = checkpoint.metadata.get(f"{architecture}.pooling_type", 0)
    if number == RANK:
        raise UnsupportedModelError(
            f"{checkpoint.path.name} judges pairs of texts (it is a reranker); it makes no vectors.",
            hint="Take an embedding model.",
        )
    kind = GGUF_KINDS.get(number) if type(number) is int else None
    if kind is None:
        return None
    return Pooling(kind, QWEN3_QUERY if (architecture, kind) == ("qwen3", "last") else "")


def _of_folder(folder: Path) -> Pooling | None:
    where = folder / "1_Pooling" / "config.json"
    if not where.is_file():
        return None
    _check_modules(folder)
    query, passage = _prompts(folder)
    return Pooling(_kind(folder.name, read_json(where)), query, passage)


def _kind(name: str, config: Mapping[str, Any]) -> Kind:
    named = config.get("pooling_mode")
    if isinstance(named, str) and named in NAMES:
        return NAMES[named]
    chosen = [flag for flag in config if flag.startswith("pooling_mode_") and config[flag] is True]
    if len(chosen) != 1 or chosen[0] not in FLAGS:
        raise UnsupportedModelError(
            f"{name} pools its vectors by {', '.join(chosen) or repr(named)[:60]}, which Quinze does not.",
            hint=f"It knows {', '.join(FLAGS)}, one at a time.",
        )
    return FLAGS[chosen[0]]


def _check_modules(folder: Path) -> None:
    """Whatever else would be done with the vectors would be missing from ours."""
    path = folder / "modules.json"
    if not path.is_file():
        return
    with path.open("rb") as file:
        listed = parse_json(b'{"modules": ' + file.read(2**20) + b"}", path.name)["modules"]
    kinds = [str(item.get("type")).rpartition(".")[2] for item in listed] if _is_table_list(listed) else None
    if kinds is None:
        raise FileFormatError(f"{path} should list the parts of an embedding model.")
    strange = next((kind for kind in kinds if kind not in MODULES), None)
    if strange is not None:
        raise UnsupportedModelError(
            f"{folder.name} has a part that Quinze cannot run: {strange[:60]!r}.",
            hint=f"It runs embedding models made of {', '.join(MODULES)}.",
        )


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _prompts(folder: Path) -> tuple[str, str]:
    """What stands before a query and before a passage."""
    path = folder / "config_sentence_transformers.json"
    prompts = read_json(path).get("prompts") if path.is_file() else None
    if not isinstance(prompts, dict):
        return "", ""
    texts = {name: text for name, text in prompts.items() if isinstance(text, str)}
    passage = texts.get("document", texts.get("passage", ""))
    query = texts.get("query", "")
    if max(len(query), len(passage)) > MAX_PROMPT:
        raise FileFormatError(f"{path} has a prompt longer than {MAX_PROMPT:,} characters.")
    return query, passage
