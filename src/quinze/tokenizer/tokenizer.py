"""Text to ids and back, on the `tokenizers` library, whatever file the vocabulary came in.

Text that people write is encoded with control tokens switched off: "<|im_end|>" typed by a user is ten
letters of text, and never the token. Streaming gives whole characters only. Knows nothing of models.

    load_tokenizer(path)            a folder, a GGUF, a llama2.c model or the tokenizer's own file
    encode, decode, stream          text <-> ids
    encode_segments                 a rendered chat template -> ids
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quinze.errors import FileFormatError, TooLargeError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

    from quinze.formats.checkpoint import Checkpoint

MAX_TEXT = 2**24
"""Characters of one text; no context is as long."""
CONTROL = re.compile(r"<[^<>\s]+>|\[/?[A-Z][A-Z_]*\d*\]")
"""Added tokens of this shape steer a model, whether or not their file calls them special: <think>, [INST]."""


@dataclass(frozen=True)
class Vocabulary:
    """What each kind of file is turned into; the builders stand in this folder."""

    first: Backend
    """Encodes text that begins a prompt, control tokens unknown to it."""
    middle: Backend
    """Encodes text that follows a control token; some vocabularies put no space there."""
    pieces: Sequence[bytes]
    """The bytes of every id."""
    names: Sequence[str]
    """The token of every id, as its file writes it."""
    control: Mapping[str, int]
    """Tokens that only a template may write."""
    special: frozenset[int]
    """Ids that a reader never sees."""
    bos_id: int | None = None
    eos_id: int | None = None
    stop_ids: frozenset[int] = frozenset()
    add_bos: bool = False
    around: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    """What the files put before and behind a text that stands alone; None: bos where `add_bos`."""
    chat_template: str | None = None
    strip_space: bool = False
    """Text begins with a space that encoding put there, and decoding takes away."""
    strip_around: Mapping[int, tuple[bool, bool]] = field(default_factory=dict)
    """Control tokens that swallow white space on their left or right."""
    decode: Callable[[list[int]], str] | None = None
    """For vocabularies whose ids are not simply bytes."""


class Tokenizer:
    """The tokenizer of one model. Safe to share between threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.vocab_size = len(vocabulary.pieces)
        self.bos_id, self.eos_id = vocabulary.bos_id, vocabulary.eos_id
        self.stop_ids = vocabulary.stop_ids
        self.add_bos = vocabulary.add_bos and vocabulary.bos_id is not None
        self.chat_template = vocabulary.chat_template
        # Longest first: "<|im_end|>" must win over a token that it begins with.
        by_length = sorted(vocabulary.control, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, by_length)) or r"(?!)")
        self._control_ids = frozenset(vocabulary.control.values())
        self._ids = {name: id_ for id_, name in reversed(list(enumerate(vocabulary.names)))}

    def encode(self, text: str, *, special: bool = False, bos: bool | None = None) -> list[int]:
        """The ids of a text.

        special  False: control tokens in it stay plain text. True, for text of our own: they become tokens.
        bos      None: as the model's files want it.
        """
        ids = self.encode_segments([(text, special)])
        wanted = self.add_bos if bos is None else bos and self.bos_id is not None
        return [self.bos_id, *ids] if wanted and self.bos_id is not None else ids

    def encode_alone(self, text: str) -> list[int]:
        """A text by itself, as the files' post-processor has it: what embedding models were trained with."""
        if self._vocabulary.around is None:
            return self.encode(text)
        before, behind = self._vocabulary.around
        return [*before, *self.encode(text, bos=False), *behind]

    def encode_segments(self, segments: Sequence[tuple[str, bool]]) -> list[int]:
        """The ids of (text, trusted) pieces read as one text: only trusted ones may hold control tokens.

        Words run over the borders of segments, as they do for the peer that encodes the whole text at once.
        """
        return self.encode_pieces([segments])[0]

    def encode_pieces(self, pieces: Sequence[Sequence[tuple[str, bool]]]) -> list[list[int]]:
        """The ids of pieces of segments that follow each other; no word runs over the border of two pieces.

        So a reply is encoded as it would have been sampled, after a prompt that was encoded by itself.
        """
        if sum(len(text) for segments in pieces for text, _ in segments) > MAX_TEXT:
            raise TooLargeError(f"The text is longer than {MAX_TEXT:,} characters.", hint="Send less of it.")
        done: list[list[int]] = []
        begins, swallow = True, False
        for segments in pieces:
            ids, swallow = self._segments(segments, begins, swallow)
            begins = begins and not ids
            done.append(ids)
        return done

    def _segments(
        self, segments: Sequence[tuple[str, bool]], begins: bool, swallow: bool
    ) -> tuple[list[int], bool]:
        ids: list[int] = []
        run = ""
        for text, trusted in segments:
            at = 0
            for match in self._control.finditer(text) if trusted else ():
                id_ = self._vocabulary.control[match.group()]
                left, right = self._vocabulary.strip_around.get(id_, (False, False))
                run += _trimmed(text[at : match.start()], swallow and not run)
                ids += self._plain(run.rstrip() if left else run, begins=begins and not ids)
                ids.append(id_)
                run, at, swallow = "", match.end(), right
            run += _trimmed(text[at:], swallow and not run)
        return ids + self._plain(run, begins=begins and not ids), swallow and not run

    def _plain(self, text: str, *, begins: bool) -> list[int]:
        if not text:
            return []
        backend = self._vocabulary.first if begins else self._vocabulary.middle
        try:
            ids: list[int] = backend.encode(_whole(text), add_special_tokens=False).ids
        except BaseException as error:
            raise_if_hostile(error)
            raise
        if self._control_ids.isdisjoint(ids):
            return ids
        # A vocabulary that spells a control token out of letters: it is taken apart again, letter by letter.
        return [part for id_ in ids for part in (self._letters(id_) if id_ in self._control_ids else (id_,))]

    def _letters(self, id_: int) -> list[int]:
        model = self._vocabulary.first.model
        found = [token.id for letter in self.token(id_) for token in model.tokenize(letter)]
        return [part for part in found if part not in self._control_ids]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ids. Bytes that make no character become U+FFFD."""
        kept = [id_ for id_ in ids if not (skip_special and id_ in self._vocabulary.special)]
        if self._vocabulary.decode:
            return self._vocabulary.decode(kept)
        data = b"".join(self.piece(id_) for id_ in kept)
        return _without_space(data.decode("utf-8", errors="replace"), self._vocabulary.strip_space)

    def stream(self, *, continues: bool = False) -> Decoder:
        """A decoder for ids that come one by one. `continues`: the text goes on, its first space stays."""
        if self._vocabulary.decode:
            return _RedoingDecoder(self)
        return Decoder(self.piece, self._vocabulary.special, self._vocabulary.strip_space and not continues)

    def piece(self, id: int) -> bytes:  # noqa: A002
        """The bytes of an id; b"" beyond the vocabulary: models are often padded to a round number."""
        return self._vocabulary.pieces[id] if 0 <= id < self.vocab_size else b""

    def token(self, id: int) -> str:  # noqa: A002
        """The token as its file writes it; "" if there is none."""
        return self._vocabulary.names[id] if 0 <= id < self.vocab_size else ""

    def id(self, token: str) -> int | None:
        """The id of a token as its file writes it."""
        return self._ids.get(token) if token else None

    @property
    def spells_bytes(self) -> bool:
        """Whether a text is the bytes of its ids; it is for all but a few odd vocabularies."""
        return self._vocabulary.decode is None

    @property
    def control_tokens(self) -> frozenset[str]:
        """What only a template may write."""
        return frozenset(self._vocabulary.control)

    @property
    def special_tokens(self) -> frozenset[str]:
        """Of these, the ones that a reader never sees."""
        special = self._vocabulary.special
        return frozenset(token for token, id_ in self._vocabulary.control.items() if id_ in special)


class Decoder:
    """Ids in, whole characters out: the bytes of half a character wait for the rest."""

    def __init__(self, piece: Callable[[int], bytes], special: frozenset[int], strip_space: bool) -> None:
        self._piece, self._special, self._strip = piece, special, strip_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:  # noqa: A002
        """The characters that this id completes, often none."""
        return "" if id in self._special else self._out(self._utf8.decode(self._piece(id)))

    def flush(self) -> str:
        """What is left when no id will come: U+FFFD for half a character."""
        return self._out(self._utf8.decode(b"", final=True))

    def _out(self, text: str) -> str:
        if text and self._strip:
            self._strip = False
            return _without_space(text, True)
        return text


class _RedoingDecoder(Decoder):
    """For vocabularies whose ids are not simply bytes: decodes all anew and gives what is new."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._seen: list[int] = []
        self._given = ""

    def push(self, id: int) -> str:  # noqa: A002
        self._seen.append(id)
        text = self._tokenizer.decode(self._seen)
        return "" if text.endswith("\ufffd") else self._new(text)

    def flush(self) -> str:
        return self._new(self._tokenizer.decode(self._seen))

    def _new(self, text: str) -> str:
        new = text[len(self._given) :]
        self._given = text
        return new


def load_tokenizer(path: Path, checkpoint: Checkpoint | None = None) -> Tokenizer:
    """The tokenizer of a model: inside its GGUF, in its folder, or beside its llama2.c file."""
    from quinze.tokenizer.sources import read_vocabulary

    return Tokenizer(read_vocabulary(path, checkpoint))


def raise_if_hostile(error: BaseException) -> None:
    """On broken vocabularies `tokenizers` raises bare Exceptions, and panics that are no Exception at all."""
    if type(error) is Exception or type(error).__name__ == "PanicException":
        raise FileFormatError(
            f"The tokenizer's files are broken: {str(error)[:200]}.",
            hint="Take the tokenizer's files from the model's maker.",
        ) from error


def _whole(text: str) -> str:
    """Lone surrogates, which no UTF-8 can hold, become U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _trimmed(text: str, swallow: bool) -> str:
    return text.lstrip() if swallow else text


def _without_space(text: str, strip: bool) -> str:
    return text[1:] if strip and text.startswith(" ") else text
