"""SentencePiece vocabularies, from .model files, GGUF ("llama") or llama2.c: pieces with scores.

Two kinds: BPE joins the pair whose piece has the best score; unigram takes the likeliest split. Spaces are
U+2581, bytes without a piece of their own <0x00> to <0xFF>. Format: sentencepiece_model.proto, read by field.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, models, normalizers
from tokenizers import Tokenizer as Backend

from quinze.errors import FileFormatError, UnsupportedModelError
from quinze.formats.checkpoint import map_file
from quinze.tokenizer.tokenizer import CONTROL, Vocabulary

SPACE = "\u2581"
MAX_BYTES = 64 * 2**20
MAX_PIECES = 2**20
MAX_PIECE = 256
"""Letters of a piece that may be joined from others; their splits are all looked at."""
MAX_LETTERS = 2**23


class PieceType(enum.IntEnum):
    """As SentencePiece and GGUF number them."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass
class Pieces:
    """A vocabulary as its file states it."""

    texts: list[str]
    scores: list[float]
    types: list[int]
    unigram: bool = False
    prefix: bool = True
    """A space is put before the text."""
    squeeze: bool = False
    """Spaces at the ends are dropped, and several become one."""
    charsmap: bytes = b""
    """SentencePiece's compiled normalization."""
    bos_id: int | None = 1
    eos_id: int | None = 2
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields of Vocabulary."""


def build(pieces: Pieces) -> Vocabulary:
    """The pieces as a Vocabulary on the tokenizers library."""
    texts, types = pieces.texts, pieces.types
    if not 0 < len(texts) <= MAX_PIECES or not len(texts) == len(pieces.scores) == len(types):
        raise FileFormatError(
            f"The vocabulary has {len(texts):,} tokens, {len(pieces.scores):,} scores, {len(types):,} types; "
            f"they must be as many, and at most {MAX_PIECES:,}."
        )
    if not all(-1e30 < score < 1e30 for score in pieces.scores):
        raise FileFormatError("The vocabulary has scores that are not numbers.")
    # Whole vocabularies pass here at every start: the kinds are compared as plain numbers.
    kinds = list(map(int, types))
    controls, unknowns, own_kind = (
        int(PieceType.CONTROL),
        int(PieceType.UNKNOWN),
        int(PieceType.USER_DEFINED),
    )
    control = {
        text: id_
        for id_, (text, kind) in enumerate(zip(texts, kinds, strict=True))
        if kind in (controls, own_kind) and text and (kind == controls or CONTROL.fullmatch(text))
    }
    unknown = next((id_ for id_, type_ in enumerate(types) if type_ == PieceType.UNKNOWN), None)
    backend = Backend(_unigram(pieces, unknown) if pieces.unigram else _bpe(pieces, unknown))
    backend.normalizer = _normalizer(pieces)
    own = [t for t, kind in zip(texts, kinds, strict=True) if kind == own_kind and t not in control]
    backend.add_tokens([AddedToken(text, normalized=True, special=False) for text in own if text])
    special = frozenset(id_ for id_, kind in enumerate(kinds) if kind in (controls, unknowns))
    return Vocabulary(
        first=backend,
        middle=backend,
        pieces=[piece_bytes(text, kind) for text, kind in zip(texts, kinds, strict=True)],
        names=texts,
        control=control,
        special=special,
        bos_id=_within(pieces.bos_id, texts),
        eos_id=_within(pieces.eos_id, texts),
        strip_space=pieces.prefix,
        **pieces.more,
    )


def read_model(path: Path) -> Pieces:
    """A SentencePiece .model file."""
    data = map_file(path)
    if len(data) > MAX_BYTES:
        raise FileFormatError(
            f"{path.name} has {len(data):,} bytes; a SentencePiece model has at most {MAX_BYTES:,}."
        )
    try:
        return _read_proto(data.tobytes())
    except (IndexError, ValueError, struct.error, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path.name} is not a whole SentencePiece model: {error}.") from error


def _read_proto(data: bytes) -> Pieces:
    found = Pieces([], [], [], squeeze=True)
    kind = 1
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            piece = dict(_fields(value))
            found.texts.append(_expect(piece.get(1, b""), bytes).decode("utf-8"))
            found.scores.append(struct.unpack("<f", _expect(piece.get(2, bytes(4)), bytes))[0])
            found.types.append(_expect(piece.get(3, 1), int))
        elif number == 2 and isinstance(value, bytes):
            trainer = dict(_fields(value))
            kind = _expect(trainer.get(3, 1), int)
            found.bos_id, found.eos_id = (_signed(_expect(trainer.get(n, n - 40), int)) for n in (41, 42))
            if trainer.get(24):
                raise UnsupportedModelError("The vocabulary puts spaces after words, which Quinze cannot do.")
        elif number == 3 and isinstance(value, bytes):
            normalizer = dict(_fields(value))
            found.charsmap = _expect(normalizer.get(2, b""), bytes)
            found.prefix = bool(normalizer.get(3, 1))
            found.squeeze = bool(normalizer.get(4, 1))
        if len(found.texts) > MAX_PIECES:
            raise FileFormatError(f"The vocabulary has more than {MAX_PIECES:,} pieces.")
    if kind not in (1, 2):
        raise UnsupportedModelError(
            "The vocabulary splits by whole words or letters; Quinze knows BPE and unigram."
        )
    found.unigram = kind == 1
    return found


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of one protobuf message. Nothing is copied before its length was compared."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number runs over ten bytes")

    while at < len(data):
        number, wire = divmod(varint(), 8)
        if wire == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(wire, -1) if wire != 2 else varint()
        if not 0 <= size <= len(data) - at:
            raise ValueError(f"field {number} does not fit at byte {at:,}")
        at += size
        yield number, data[at - size : at]


def _expect(value: int | bytes, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError("a field has the wrong type")
    return value


def _signed(value: int) -> int | None:
    """An int32 as protobuf writes it; negative says that there is no such token."""
    return value if value < 2**31 else None


def _is_control(text: str, type_: int) -> bool:
    return type_ == PieceType.CONTROL or (type_ == PieceType.USER_DEFINED and bool(CONTROL.fullmatch(text)))


def _within(id_: int | None, texts: Sequence[str]) -> int | None:
    return id_ if id_ is not None and 0 <= id_ < len(texts) else None


def _bpe(pieces: Pieces, unknown: int | None) -> models.BPE:
    """Merges are implied: every way to join two pieces into a third, the best score first."""
    vocab = _ids(pieces.texts)
    joinable = {int(PieceType.NORMAL), int(PieceType.USER_DEFINED)}
    joined = [
        (text, score)
        for text, score, type_ in zip(pieces.texts, pieces.scores, map(int, pieces.types), strict=True)
        if type_ in joinable
    ]
    if sum(len(text) for text, _ in joined) > MAX_LETTERS or any(len(text) > MAX_PIECE for text, _ in joined):
        raise FileFormatError(
            f"The vocabulary has pieces of more than {MAX_PIECE} letters, or too many of them."
        )
    parts = {text for text, _ in joined}
    merges: list[tuple[float, tuple[str, str]]] = []
    for text, score in joined:
        splits = [
            (text[:i], text[i:]) for i in range(1, len(text)) if text[:i] in parts and text[i:] in parts
        ]
        if len(splits) > 1:
            splits.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += [(score, pair) for pair in splits]
    merges.sort(key=lambda merge: -merge[0])
    return models.BPE(
        vocab=vocab,
        merges=[pair for _, pair in merges],
        unk_token=None if unknown is None else _utf8(pieces.texts[unknown], unknown),
        fuse_unk=True,
        byte_fallback=PieceType.BYTE in pieces.types,
    )


def _unigram(pieces: Pieces, unknown: int | None) -> models.Unigram:
    if unknown is None:
        raise FileFormatError("A unigram vocabulary needs an unknown token.")
    # Control pieces must keep their ids and match no text: U+10FFFE is no character.
    vocab = [
        (_utf8(text, id_) if type_ not in (2, 3, 5) else f"\U0010fffe{id_}", score)
        for id_, (text, score, type_) in enumerate(
            zip(pieces.texts, pieces.scores, pieces.types, strict=True)
        )
    ]
    return models.Unigram(vocab, unknown, PieceType.BYTE in pieces.types)


def _normalizer(pieces: Pieces) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if pieces.charsmap:
        check_charsmap(pieces.charsmap)
        steps.append(normalizers.Precompiled(pieces.charsmap))
    if pieces.squeeze:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if pieces.prefix:
        steps.append(normalizers.Prepend(SPACE))
    steps.append(normalizers.Replace(" ", SPACE))
    return normalizers.Sequence(steps)


def check_charsmap(charsmap: bytes) -> None:
    """A trie, then the texts that it maps to. One character may grow, but not into a book."""
    size = int.from_bytes(charsmap[:4], "little")
    if len(charsmap) < 8 or size % 4 or not 4 <= size <= len(charsmap) - 4:
        raise FileFormatError("The vocabulary's normalization (precompiled_charsmap) is broken.")
    if max(map(len, charsmap[4 + size :].split(b"\0"))) > 64:
        raise FileFormatError(
            "The vocabulary's normalization (precompiled_charsmap) makes texts grow without limit."
        )


def piece_bytes(text: str, type_: int) -> bytes:
    if len(text) == 6 and type_ == PieceType.BYTE and text.startswith("<0x"):
        try:
            return bytes([int(text[3:5], 16)])
        except ValueError as error:
            raise FileFormatError(f"The vocabulary has the byte {text!r}.") from error
    return text.replace(SPACE, " ").encode("utf-8", errors="surrogateescape")


def _ids(texts: Sequence[str]) -> dict[str, int]:
    """Of a text that stands twice, the first."""
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        texts = [_utf8(text, id_) for id_, text in enumerate(texts)]
    return dict(zip(reversed(texts), range(len(texts) - 1, -1, -1), strict=True))


def _utf8(text: str, id_: int) -> str:
    """Tokens that are not UTF-8 are kept for decoding; no text can spell them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return f"\U0010fffe{id_}"
    return text
