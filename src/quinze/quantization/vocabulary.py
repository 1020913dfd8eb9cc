"""A vocabulary and its chat template as GGUF's pairs, from tokenizer.json, tokenizer.model or llama2.c.

Only what GGUF can say is written: SentencePiece, and byte-level BPE with a pre-tokenizer that llama.cpp has a
name for. Anything else is refused, because a file that splits text in another way talks nonsense.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from quinze.errors import UnsupportedModelError
from quinze.formats.checkpoint import Checkpoint
from quinze.formats.json_file import read_json
from quinze.tokenizer import spm
from quinze.tokenizer.hugging_face import Words
from quinze.tokenizer.patterns import PRE_TOKENIZERS
from quinze.tokenizer.sources import llama2c_pieces

MAX_BYTES = 64 * 2**20
EOT = "tokenizer.ggml.eot_token_id"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5


def vocabulary_keys(path: Path, checkpoint: Checkpoint, size: int) -> dict[str, Any]:
    """`size`: rows of the embedding; tokens that are missing get names that no text has."""
    if checkpoint.format == "llama2c":
        # Its stories are parted by BOS, which ends a text as EOS does (tokenizer/sources.py).
        return _sentence_pieces(llama2c_pieces(path.parent, size), size) | {EOT: 1}
    folder = path if path.is_dir() else path.parent
    for name in ("tokenizer.model", "spiece.model"):
        if (folder / name).is_file():
            words = Words(folder)
            pieces = spm.read_model(folder / name)
            for text, (id_, special) in words.added().items():
                _add(pieces, text, id_, special)
            return _sentence_pieces(pieces, size) | _template(words)
    if (folder / "tokenizer.json").is_file():
        return _byte_level(folder, size)
    raise UnsupportedModelError(
        f"{folder} has no tokenizer that can be written into a GGUF file.",
        hint="Copy its tokenizer.json or tokenizer.model there.",
    )


def _add(pieces: spm.Pieces, text: str, id_: int, special: bool) -> None:
    while len(pieces.texts) <= id_:
        pieces.texts.append(f"[PAD{len(pieces.texts)}]")
        pieces.scores.append(-1000.0)
        pieces.types.append(UNUSED)
    if pieces.types[id_] in (UNUSED, NORMAL):
        pieces.texts[id_], pieces.types[id_] = text, CONTROL if special else USER_DEFINED


def _sentence_pieces(pieces: spm.Pieces, size: int) -> dict[str, Any]:
    if pieces.unigram:
        raise UnsupportedModelError("A unigram vocabulary cannot be written into a GGUF file for a decoder.")
    if len(pieces.texts) < size:
        _add(pieces, f"[PAD{size - 1}]", size - 1, False)
    keys: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": pieces.texts[:size],
        "tokenizer.ggml.scores": np.array(pieces.scores[:size], np.float32),
        "tokenizer.ggml.token_type": np.array(pieces.types[:size], np.int32),
        "tokenizer.ggml.add_space_prefix": pieces.prefix,
        "tokenizer.ggml.add_bos_token": True,
    }
    ends = {"bos": pieces.bos_id, "eos": pieces.eos_id}
    return keys | {
        f"tokenizer.ggml.{k}_token_id": v for k, v in ends.items() if v is not None and 0 <= v < size
    }


def _byte_level(folder: Path, size: int) -> dict[str, Any]:
    file, words = read_json(folder / "tokenizer.json", max_bytes=MAX_BYTES), Words(folder)
    model = file.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise UnsupportedModelError(
            f"The tokenizer.json of {folder.name} is not byte-level BPE.",
            hint="Copy the model's tokenizer.model into the folder, or take its GGUF file.",
        )
    vocab, added = dict(model.get("vocab") or {}), file.get("added_tokens") or []
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = np.full(size, UNUSED, np.int32)
    for text, id_ in vocab.items():
        if 0 <= id_ < size:
            tokens[id_], types[id_] = text, NORMAL
    for token in added:
        if 0 <= token["id"] < size:
            tokens[token["id"]] = token["content"]
            types[token["id"]] = CONTROL if token.get("special") else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or []]
    names = {token: id_ for id_, token in enumerate(tokens)}
    keys: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _pre_tokenizer(folder, file.get("pre_tokenizer")),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_bos_token": words.config.get("add_bos_token") is True or _adds_bos(file),
    }
    ends = words.ends(names, size)
    if ends["bos_id"] is not None:
        keys["tokenizer.ggml.bos_token_id"] = ends["bos_id"]
    if ends["eos_id"] is not None:
        keys["tokenizer.ggml.eos_token_id"] = ends["eos_id"]
    return keys | _template(words)


def _template(words: Words) -> dict[str, Any]:
    template = words.chat_template()
    return {"tokenizer.chat_template": template} if template else {}


def _adds_bos(file: dict[str, Any]) -> bool:
    """Whether its post-processor begins every text with a token."""
    steps = file.get("post_processor") or {}
    for step in steps.get("processors") or [steps]:
        if step.get("type") == "TemplateProcessing" and "SpecialToken" in (step.get("single") or [{}])[0]:
            return True
    return False


def _pre_tokenizer(folder: Path, described: dict[str, Any] | None) -> str:
    """llama.cpp's name for the way in which a tokenizer.json splits text."""
    steps = (described or {}).get("pretokenizers") or [described or {}]
    found: list[str] = []
    for step in steps:
        if step.get("type") == "Split":
            found.append(str((step.get("pattern") or {}).get("Regex")))
        elif step.get("type") == "Digits" and step.get("individual_digits"):
            found.append(r"\p{N}")
        elif step.get("type") == "ByteLevel" and step.get("use_regex", True):
            found.append(PRE_TOKENIZERS["gpt-2"][0])
    for name, patterns in PRE_TOKENIZERS.items():
        if _plain(found) == _plain(patterns):
            return name
    raise UnsupportedModelError(
        f"The tokenizer of {folder.name} splits words in a way that GGUF has no name for.",
        hint="Take the model's GGUF file.",
    )


def _plain(patterns: list[str] | tuple[str, ...]) -> list[str]:
    """Expressions without differences that mean nothing."""
    return [p.replace(r"\p{N}{1,1}", r"\p{N}") for p in patterns]
