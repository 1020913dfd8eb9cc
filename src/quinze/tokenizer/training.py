"""Tokenizers made from text: byte-level BPE, or one token for each character.

    report = train_tokenizer({"wiki": texts, "laws": others}, folder, TokenizerSettings(vocab_size=8192))

The folder holds tokenizer.json and tokenizer_config.json, which transformers, our own `load_tokenizer` and
the GGUF export read alike; the same texts in the same order give the same bytes. What the vocabulary is worth
is measured on texts that it was not made from.

Words are split as Qwen2 splits them (llama.cpp's "qwen2"): of the ways that GGUF has a name for, the one
that takes every digit by itself and lets a word begin with one mark or space, as newer models do. ("smollm"
takes digits by themselves too, but splits the rest as GPT-2 does.)
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from quinze.errors import ConflictError, InvalidRequestError
from quinze.tokenizer.byte_bpe import BYTES
from quinze.tokenizer.chatml import CHATML
from quinze.tokenizer.patterns import PRE_TOKENIZERS

SPLITS = "qwen2"
EOS = "<|endoftext|>"
SPECIAL = (EOS, "<|im_start|>", "<|im_end|>")
"""The end of a document, and the borders of a turn; ids 0, 1 and 2."""
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""What templates write and clients read; they are not special, so a reader sees them."""
SMALLEST = len(SPECIAL) + len(MARKS) + 256
MAX_CHARACTERS = 65_000
HELD_OUT_EVERY = 20
HELD_OUT_CHARACTERS = 2_000_000
CHUNK = 50_000
"""Letters that the trainer is given at once; a text is cut at line ends."""


class TokenizerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: Literal["bpe", "characters"] = "bpe"
    vocab_size: int = 8192
    """Of "bpe": all tokens, special ones among them."""
    min_frequency: int = 2
    """A pair met less often is not merged."""
    sample_characters: int = 5_000_000
    """Read of each source: more text hardly changes a vocabulary, and Chinese, whose clauses are long words,
    takes about 200 MB of memory a million. Of "characters", all is read."""


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """How a vocabulary does on one source's held-out text."""

    bytes: int
    characters: int
    tokens: int
    bytes_per_token: float
    characters_per_token: float


class TokenizerReport(msgspec.Struct, frozen=True, kw_only=True):
    folder: str
    kind: str
    vocab_size: int
    texts: int
    characters: int
    """That it was made from."""
    held_out: dict[str, Worth]
    """source -> its worth there."""
    unused: int
    """Tokens that no held-out text needs, special ones and single bytes not counted."""
    longest: tuple[str, ...]
    """The ten longest tokens: a corpus that repeats itself shows here."""


def train_tokenizer(
    sources: Mapping[str, Iterable[str]],
    folder: Path,
    settings: TokenizerSettings | None = None,
    progress: Callable[[int], None] | None = None,
) -> TokenizerReport:
    """Make a tokenizer from texts by source (a language, a kind of text) and write it into `folder`.

    progress  is told how many characters have been read, and may raise to stop
    One text in 20 is held out, by its hash; of a source with fewer, its last text's end is looked at.
    Raises InvalidRequestError where there is no text or the size cannot be, ConflictError where the folder
    holds a model.
    """
    settings = settings or TokenizerSettings()
    if any((folder / name).exists() for name in ("config.json", "model.safetensors")):
        raise ConflictError(
            f"{folder} holds a model, whose tokenizer would be lost.", hint="Give another folder."
        )
    reader = _Reader(sources, settings, progress)
    backend = _characters(reader) if settings.kind == "characters" else _bpe(reader, settings)
    if not reader.characters:
        raise InvalidRequestError("There is no text to make a tokenizer from.", param="sources")
    _write(folder, backend, chat=settings.kind == "bpe")
    worth, unused = _worth(backend, reader.held_out)
    words = backend.get_vocab(with_added_tokens=False).items()
    tokens = sorted(
        (item for item in words if item[0] not in SPECIAL), key=lambda item: (-len(item[0]), item)
    )
    return TokenizerReport(
        folder=str(folder),
        kind=settings.kind,
        vocab_size=backend.get_vocab_size(),
        texts=reader.texts,
        characters=reader.characters,
        held_out=worth,
        unused=unused,
        longest=tuple(backend.decode([id_]) for _, id_ in tokens[:10]),
    )


def train_characters(texts: Iterable[str], folder: Path) -> int:
    """The short way to a character-level tokenizer; returns its vocabulary's size."""
    return train_tokenizer({"text": texts}, folder, TokenizerSettings(kind="characters")).vocab_size


class _Reader:
    """The texts, some of them put aside as they pass."""

    def __init__(
        self,
        sources: Mapping[str, Iterable[str]],
        settings: TokenizerSettings,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._sources, self._progress = sources, progress
        self._limit = settings.sample_characters if settings.kind == "bpe" else None
        self.held_out: dict[str, list[str]] = {}
        self.texts = self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for name, texts in self._sources.items():
            aside: list[str] = []
            put_aside = read = 0
            text = ""
            for text in texts:
                if self._limit is not None and _is_held_out(text):
                    if put_aside < HELD_OUT_CHARACTERS:
                        aside.append(text)
                        put_aside += len(text)
                    continue
                self.texts += 1
                read += len(text)
                self.characters += len(text)
                if self._progress is not None:
                    self._progress(self.characters)
                yield from _chunks(text)
                if self._limit is not None and read >= self._limit:
                    break
            self.held_out[name] = aside or [text[-max(1000, len(text) // HELD_OUT_EVERY) :]]


def _is_held_out(text: str) -> bool:
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % HELD_OUT_EVERY == 0


def _chunks(text: str) -> Iterator[str]:
    at = 0
    while len(text) - at > CHUNK:
        end = text.rfind("\n", at, at + CHUNK) + 1 or at + CHUNK
        yield text[at:end]
        at = end
    yield text[at:]


def _bpe(texts: Iterable[str], settings: TokenizerSettings) -> Backend:
    if settings.vocab_size < SMALLEST:
        raise InvalidRequestError(
            f"A byte-level vocabulary of {settings.vocab_size:,} tokens cannot be: the bytes, the borders of "
            f"turns and the marks alone are {SMALLEST}.",
            hint=f"Give at least {SMALLEST}, or use one token for each character.",
            param="vocab_size",
        )
    backend = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size - len(MARKS),
        min_frequency=settings.min_frequency,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in SPECIAL],
        initial_alphabet=sorted(BYTES),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in MARKS])
    return backend


def _characters(texts: Iterable[str]) -> Backend:
    """One token for each character, in the order of code points: of ASCII text, nanoGPT's ids.

    It is byte-level BPE whose merges build single characters and nothing more, so everything that reads
    such a vocabulary reads it, llama.cpp too. Characters beyond ASCII need helpers for their bytes, which
    follow them. What is none of its characters is left out. It has no special tokens and no template.
    """
    # In the composed form that every reader of such a vocabulary brings a text to.
    characters = sorted(set().union(*(set(unicodedata.normalize("NFC", text)) for text in texts)))
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
    return _byte_level(models.BPE(vocab=vocab, merges=merges))


def _byte_level(model: models.BPE) -> Backend:
    backend = Backend(model)
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENIZERS[SPLITS][0]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _worth(backend: Backend, held_out: Mapping[str, list[str]]) -> tuple[dict[str, Worth], int]:
    used: set[int] = set()
    found = {}
    for name, texts in held_out.items():
        ids = [encoding.ids for encoding in backend.encode_batch(texts, add_special_tokens=False)]
        used.update(*ids)
        tokens = max(1, sum(map(len, ids)))
        characters, size = sum(map(len, texts)), sum(len(text.encode()) for text in texts)
        found[name] = Worth(
            bytes=size,
            characters=characters,
            tokens=tokens,
            bytes_per_token=size / tokens,
            characters_per_token=characters / tokens,
        )
    vocab = backend.get_vocab(with_added_tokens=False)
    ours = {id_ for token, id_ in vocab.items() if len(token) > 1 and token not in SPECIAL}
    return found, len(ours - used)


def _write(folder: Path, backend: Backend, *, chat: bool) -> None:
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config |= {"clean_up_tokenization_spaces": False, "add_bos_token": False}
    if chat:
        # A model that fills up rows needs no padding token of its own; peers want one named.
        config |= {"eos_token": EOS, "pad_token": EOS, "chat_template": CHATML}
        added = backend.get_added_tokens_decoder()
        config["added_tokens_decoder"] = {
            str(id_): {"content": token.content, "special": token.special, "normalized": False,
                       "lstrip": False, "rstrip": False, "single_word": False}
            for id_, token in sorted(added.items())
        }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), "utf-8")
    text = json.dumps(config, ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", "utf-8")
