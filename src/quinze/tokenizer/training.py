"""Tokenizers made from text: byte-level BPE, or one token for each character.

    train_tokenizer(texts, folder, TokenizerSettings())   -> TokenizerReport

The folder holds tokenizer.json and tokenizer_config.json, which transformers, our own `load_tokenizer` and
the GGUF export read alike; the same texts in the same order give the same bytes.

Words are split as Qwen2 splits them (llama.cpp's "qwen2"): the one way among those that GGUF has a name for
which takes every digit by itself and keeps accents, line ends and other scripts apart as newer models do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from quinze.errors import InvalidRequestError
from quinze.tokenizer.byte_bpe import BYTES
from quinze.tokenizer.patterns import PRE_TOKENIZERS

SPLITS = "qwen2"
CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
EOS, BEGIN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
MAX_CHARACTERS = 65_000


class TokenizerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: Literal["bpe", "characters"] = "bpe"
    vocab_size: int = 8192
    """Of "bpe": all tokens, special ones among them."""
    min_frequency: int = 2
    """A pair met less often is not merged."""


def train_characters(texts: Iterable[str], folder: Path) -> int:
    """A tokenizer with one token for each character of the texts, in the order of their code points: of
    ASCII text, the ids of nanoGPT's character-level data. Returns its vocabulary's size.

    It is byte-level BPE whose merges build single characters and nothing more, so everything that reads
    such a vocabulary reads it, llama.cpp too. Characters beyond ASCII need helpers for their bytes, which
    follow them. What is none of its characters is left out. It has no special tokens and no template.
    """
    characters = sorted(set().union(*map(set, texts)))
    if not characters or len(characters) > MAX_CHARACTERS:
        raise InvalidRequestError(
            f"The texts have {len(characters):,} different characters; a vocabulary of characters has 1 to "
            f"{MAX_CHARACTERS:,}.",
            hint="Use a byte-level BPE vocabulary for them.",
            param="kind",
        )
    letters = {byte: letter for letter, byte in BYTES.items()}
    spelled = ["".join(letters[byte] for byte in c.encode()) for c in characters]
    # Left parts begin with a leading byte, right parts are continuation bytes: merges stay in a character.
    merges = sorted({(s[:i], s[i]) for s in spelled for i in range(1, len(s))}, key=lambda m: (len(m[0]), m))
    helpers = sorted({part for merge in merges for part in merge} - set(spelled))
    vocab = {token: id_ for id_, token in enumerate([*spelled, *helpers])}
    _write(folder, _byte_level(models.BPE(vocab=vocab, merges=merges)), {})
    return len(vocab)


def _byte_level(model: models.BPE) -> Backend:
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENIZERS[SPLITS][0]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _write(folder: Path, backend: Backend, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), "utf-8")
    config = {**CONFIG, **config}
    text = json.dumps(config, ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", "utf-8")
