"""Where a model keeps its vocabulary: within its GGUF, in its folder, or beside its llama2.c file."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quinze.errors import FileFormatError, UnsupportedModelError
from quinze.formats.checkpoint import Checkpoint, map_file, open_checkpoint
from quinze.formats.part_names import gguf_in
from quinze.tokenizer import byte_bpe, spm
from quinze.tokenizer.hugging_face import SPM_FILES, STOP_NAMES, checked_template, read_folder
from quinze.tokenizer.patterns import SAME, WHOLE_WORDS
from quinze.tokenizer.tokenizer import Vocabulary, raise_if_hostile


def read_vocabulary(path: Path, checkpoint: Checkpoint | None = None) -> Vocabulary:
    """The vocabulary of a model at a path; `checkpoint` is it, where it is open already."""
    try:
        if path.is_dir():
            inside = gguf_in(path)
            if inside is None:
                return read_folder(path)
            path = inside
        if path.name in ("tokenizer.json", "vocab.json", "merges.txt", *SPM_FILES):
            return read_folder(path.parent)
        checkpoint = checkpoint or open_checkpoint(path)
        if checkpoint.format == "gguf":
            return from_gguf(checkpoint.metadata)
        if checkpoint.format == "llama2c":
            return spm.build(llama2c_pieces(path.parent, checkpoint.metadata["vocab_size"]))
        return read_folder(path.parent)
    except BaseException as error:
        raise_if_hostile(error)
        raise


def from_gguf(metadata: Mapping[str, Any]) -> Vocabulary:
    """From the keys tokenizer.ggml.* and tokenizer.chat_template."""
    read = _Keys(metadata)
    kind = read.get("model", str)
    if kind not in ("llama", "gpt2"):
        raise UnsupportedModelError(
            "The file has no vocabulary."
            if kind is None
            else f"Its vocabulary is of the kind {kind[:60]!r}.",
            hint='Quinze reads the kinds "llama" (SentencePiece) and "gpt2" (byte-level BPE) from GGUF.',
        )
    tokens = read.get("tokens", list) or []
    types = read.numbers("token_type", len(tokens), 1)
    if not tokens:
        raise FileFormatError("tokenizer.ggml.tokens is empty.")
    names = {text: id_ for id_, text in enumerate(tokens)}
    ends = read.ends(tokens, names, types)
    template = metadata.get("tokenizer.chat_template")
    closes = read.get("add_eos_token", bool) is True
    more: dict[str, Any] = {
        "stop_ids": frozenset(ends.pop("stop_ids")),
        "chat_template": checked_template(template) if isinstance(template, str) and template else None,
    }
    if kind == "llama":
        more["add_bos"] = read.get("add_bos_token", bool) is not False
        bos, eos = ends["bos_id"], ends["eos_id"]
        prefix = read.get("add_space_prefix", bool) is not False
        squeeze = read.get("remove_extra_whitespaces", bool) is True
        scores = read.numbers("scores", len(tokens), 0.0)
        more["around"] = _around(bos if more["add_bos"] else None, eos if closes else None)
        return spm.build(spm.Pieces(tokens, scores, types, False, prefix, squeeze, b"", bos, eos, more))
    splits = read.get("pre", str) or "default"
    begins = SAME.get(splits, splits) in WHOLE_WORDS
    add_bos = read.get("add_bos_token", bool)
    added = {t: id_ for id_, (t, type_) in enumerate(zip(tokens, types, strict=True)) if type_ in (3, 4)}
    special = frozenset(id_ for id_, type_ in enumerate(types) if type_ == 3)
    opens = begins if add_bos is None else add_bos
    more["around"] = _around(ends["bos_id"] if opens else None, ends["eos_id"] if closes else None)
    return byte_bpe.build(
        byte_bpe.ByteVocabulary(
            {text: id_ for id_, text in reversed(list(enumerate(tokens)))},
            [_pair(merge) for merge in read.get("merges", list) or []],
            added,
            special,
            splits,
            {**more, **ends, "add_bos": opens},
        )
    )


def _around(before: int | None, behind: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return () if before is None else (before,), () if behind is None else (behind,)


def _pair(merge: str) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not space or not left or not right:
        raise FileFormatError(f"tokenizer.ggml.merges has {merge[:40]!r}, which is not two tokens.")
    return left, right


class _Keys:
    """Typed look-ups of tokenizer.ggml.*."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata

    def get(self, key: str, kind: type) -> Any:
        """None where the key is absent."""
        value = self.metadata.get(f"tokenizer.ggml.{key}")
        if kind is list and isinstance(value, np.ndarray) and not len(value):
            return []  # an array of nothing may be of any type
        if value is not None and type(value) is not kind:
            raise FileFormatError(
                f"tokenizer.ggml.{key} is a {type(value).__name__}; it must be a {kind.__name__}."
            )
        return value

    def numbers(self, key: str, count: int, default: float) -> list[Any]:
        value = self.metadata.get(f"tokenizer.ggml.{key}")
        if value is None:
            return [default] * count
        if not isinstance(value, np.ndarray) or value.shape != (count,) or value.dtype.kind not in "iuf":
            raise FileFormatError(f"tokenizer.ggml.{key} must hold {count:,} numbers, one a token.")
        return list(value.tolist())

    def ends(self, tokens: list[str], names: Mapping[str, int], types: list[int]) -> dict[str, Any]:
        """bos_id, eos_id and every id that ends a turn."""
        found = {}
        for key in ("bos", "eos", "eot", "eom"):
            id_ = self.get(f"{key}_token_id", int)
            if id_ is not None and not 0 <= id_ < len(tokens):
                raise FileFormatError(f"tokenizer.ggml.{key}_token_id is {id_:,} of {len(tokens):,} tokens.")
            found[key] = id_
        if self.metadata.get("tokenizer.ggml.model") == "llama":
            # SentencePiece's numbers, where the file is silent.
            found |= {
                key: id_ for key, id_ in (("bos", 1), ("eos", 2)) if found[key] is None and id_ < len(tokens)
            }
        stops = {found[key] for key in ("eos", "eot", "eom") if found[key] is not None}
        stops |= {names[name] for name in STOP_NAMES if name in names and types[names[name]] in (3, 4)}
        return {"bos_id": found["bos"], "eos_id": found["eos"], "stop_ids": stops}


def llama2c_pieces(folder: Path, vocab_size: int) -> spm.Pieces:
    """llama2.c's tokenizer beside the model: the one whose number of tokens is the model's."""
    names = [f"tok{vocab_size}.bin", "tokenizer.bin", *sorted(p.name for p in folder.glob("tok*.bin"))]
    met: list[str] = []
    for name in dict.fromkeys(names):
        if (folder / name).is_file():
            pieces = _read_llama2c(folder / name)
            if len(pieces.texts) == vocab_size:
                return pieces
            met.append(f"{name} has {len(pieces.texts):,}")
    raise FileFormatError(
        f"The model has {vocab_size:,} tokens and no such tokenizer beside it ({', '.join(met) or 'none'}).",
        hint=f"Copy its tokenizer there as tokenizer.bin or tok{vocab_size}.bin.",
    )


def _read_llama2c(path: Path) -> spm.Pieces:
    """int32 longest; a token: float32 score, int32 length, bytes. 0 unk, 1 bos, 2 eos, 3 to 258 bytes."""
    data = map_file(path).tobytes() if path.stat().st_size <= spm.MAX_BYTES else b""
    texts: list[str] = []
    scores: list[float] = []
    at = 4
    while at + 8 <= len(data) and len(texts) <= spm.MAX_PIECES:
        score, length = struct.unpack_from("<fi", data, at)
        if not 0 <= length <= len(data) - at - 8:
            raise FileFormatError(f"{path.name} is cut off or not a llama2.c tokenizer (at byte {at:,}).")
        texts.append(data[at + 8 : at + 8 + length].decode("utf-8", errors="surrogateescape"))
        scores.append(score)
        at += 8 + length
    if at != len(data) or len(texts) < 259:
        raise FileFormatError(f"{path.name} is not a llama2.c tokenizer.")
    # The file writes spaces as spaces, and wraps <s> and </s> in line ends.
    texts = [text.replace(" ", spm.SPACE) for text in texts]
    texts[1:3] = [text.strip("\n") for text in texts[1:3]]
    types = [2, 3, 3] + [6] * 256 + [1] * (len(texts) - 259)
    # Stories follow each other in training, parted by bos: it ends one as eos does.
    more = {"add_bos": True, "stop_ids": frozenset({1, 2})}
    return spm.Pieces(texts, scores, types, more=more)
