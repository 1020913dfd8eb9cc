"""Tokenizers of Hugging Face folders: tokenizer.json, vocab.json + merges.txt, or a SentencePiece .model.

The words around them (bos, eos, chat template) stand in tokenizer_config.json and its neighbors. All these
files are strangers': sizes, expressions and ids are checked before the tokenizers library sees them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from quinze.errors import FileFormatError
from quinze.formats.json_file import parse_json, read_json
from quinze.tokenizer import byte_bpe, spm
from quinze.tokenizer.patterns import check_pattern
from quinze.tokenizer.tokenizer import CONTROL, Vocabulary, raise_if_hostile

MAX_BYTES = 64 * 2**20
MAX_TEMPLATE = 2**20
MAX_ADDED = 2**16
MAX_GROWTH = 64
"""How many times longer a text may become before it is split."""
SPM_FILES = ("tokenizer.model", "spiece.model")
STOP_NAMES = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
)
"""Tokens that end a turn by their makers' custom, where no file lists them."""


def read_folder(folder: Path) -> Vocabulary:
    """The first kind of tokenizer that the folder has."""
    words = Words(folder)
    if (folder / "tokenizer.json").is_file():
        return _from_json(folder / "tokenizer.json", words)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _from_merges(folder, words)
    for name in SPM_FILES:
        if (folder / name).is_file():
            return _from_spm(folder / name, words)
    raise FileFormatError(
        f"{folder} has no tokenizer.",
        hint="Copy its tokenizer.json, or vocab.json and merges.txt, or tokenizer.model there.",
    )


class Words:
    """What stands around a vocabulary: the files that name its special tokens and its template."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = self._optional("tokenizer_config.json")
        self.model = self._optional("config.json")
        self.generation = self._optional("generation_config.json")
        self.more = self._optional("special_tokens_map.json")

    def _optional(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return read_json(path, max_bytes=16 * 2**20) if path.is_file() else {}

    def token(self, name: str) -> str | None:
        """`bos_token` or `eos_token`, written as a text or as an added token."""
        value = self.config.get(name) or self.more.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        return value if isinstance(value, str) else None

    def added(self) -> dict[str, tuple[int, bool]]:
        """token -> (id, special), from added_tokens_decoder."""
        listed = self.config.get("added_tokens_decoder") or {}
        if not isinstance(listed, dict) or len(listed) > MAX_ADDED:
            raise FileFormatError("added_tokens_decoder in tokenizer_config.json is not a table of tokens.")
        found: dict[str, tuple[int, bool]] = {}
        for id_, token in listed.items():
            whole = isinstance(token, dict) and isinstance(token.get("content"), str)
            if not whole or not id_.isdecimal() or len(id_) > 7:
                raise FileFormatError(f"added_tokens_decoder has an impossible entry, {id_[:40]!r}.")
            found[token["content"]] = (int(id_), token.get("special") is True)
        return found

    def chat_template(self) -> str | None:
        """From chat_template.jinja, or tokenizer_config.json, where several may have names."""
        path = self.folder / "chat_template.jinja"
        if path.is_file():
            with path.open("rb") as file:
                return checked_template(file.read(MAX_TEMPLATE + 1).decode("utf-8", errors="replace"))
        template = self.config.get("chat_template") or self._optional("chat_template.json").get(
            "chat_template"
        )
        if isinstance(template, list):
            named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
            template = named.get("default")
        return checked_template(template) if isinstance(template, str) else None

    def ends(self, ids: Mapping[str, int], size: int) -> dict[str, Any]:
        """bos_id, eos_id, stop_ids and chat_template for a Vocabulary of these control tokens."""
        bos, eos = ids.get(self.token("bos_token") or ""), ids.get(self.token("eos_token") or "")
        stated: list[Any] = []
        for source in (self.generation.get("eos_token_id"), self.model.get("eos_token_id")):
            stated += source if isinstance(source, list) else [source]
        stops = {id_ for id_ in stated if type(id_) is int and 0 <= id_ < size}
        stops |= {ids[name] for name in STOP_NAMES if name in ids}
        if eos is None:
            eos = next((id_ for id_ in stated if id_ in stops), None)
        return {
            "bos_id": bos,
            "eos_id": eos,
            "stop_ids": frozenset(stops | ({eos} if eos is not None else set())),
            "chat_template": self.chat_template(),
        }


def checked_template(template: str) -> str:
    """A template of bearable size."""
    if len(template) > MAX_TEMPLATE:
        raise FileFormatError(f"The chat template is longer than {MAX_TEMPLATE:,} characters.")
    return template


def _from_json(path: Path, words: Words) -> Vocabulary:
    data = _bounded(path)
    parsed = parse_json(data, path.name)
    _check_steps(parsed)
    try:
        full = Backend.from_str(data.decode("utf-8"))
        pieces = full.get_vocab(with_added_tokens=True)
    except BaseException as error:
        raise_if_hostile(error)
        raise
    names = byte_bpe.names_by_id(pieces)
    added = [token for token in parsed.get("added_tokens") or [] if isinstance(token, dict)]
    if len(added) > MAX_ADDED:
        raise FileFormatError(f"{path.name} adds {len(added):,} tokens; at most {MAX_ADDED:,} make sense.")
    special = frozenset(pieces[t["content"]] for t in added if t.get("special") and t["content"])
    contents = {t["content"]: pieces[t["content"]] for t in added if t["content"]}
    unknown = _unknown(parsed.get("model"))
    control = {
        t: id_ for t, id_ in contents.items() if t != unknown and (id_ in special or CONTROL.fullmatch(t))
    }
    plain = [AddedToken(t, normalized=False) for t in contents if t not in control and t != unknown]
    decoder = _decoder_kind(parsed.get("decoder"))
    named = {t: pieces[t] for t in (words.token("bos_token"), words.token("eos_token")) if t in pieces}
    ends = words.ends(control | named, len(names))
    return Vocabulary(
        first=_plain_backend(full, full.pre_tokenizer, plain),
        middle=_plain_backend(full, _without_prefix(parsed.get("pre_tokenizer"), full.pre_tokenizer), plain),
        pieces=_pieces(names, set(contents.values()), decoder),
        names=names,
        control=control,
        special=special,
        add_bos=_adds_bos(full, words, ends["bos_id"]),
        around=_around(full),
        strip_space=decoder == "spm" and _strips(parsed["decoder"]),
        strip_around={
            contents[t["content"]]: (t.get("lstrip") is True, t.get("rstrip") is True)
            for t in added
            if t["content"] in control and (t.get("lstrip") or t.get("rstrip"))
        },
        decode=(lambda ids: str(full.decode(ids, skip_special_tokens=False))) if decoder == "other" else None,
        **ends,
    )


def _unknown(model: Any) -> str | None:
    """The token of what the vocabulary cannot spell. It steers nothing, and plain text may become it."""
    if not isinstance(model, dict):
        return None
    id_, vocab = model.get("unk_id"), model.get("vocab")
    if isinstance(id_, int) and isinstance(vocab, list) and 0 <= id_ < len(vocab) and vocab[id_]:
        return str(vocab[id_][0])
    return model.get("unk_token")


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FileFormatError(f"{path.name} is larger than {MAX_BYTES:,} bytes.")
    return data


def _check_steps(parsed: Mapping[str, Any]) -> None:
    """Expressions must end, and no chain of replacements may let a text explode."""
    growth = 1
    for value in _objects([parsed.get(step) for step in ("normalizer", "pre_tokenizer", "decoder")]):
        pattern, charsmap = value.get("Regex"), value.get("precompiled_charsmap")
        if isinstance(pattern, str):
            check_pattern(pattern)
        if isinstance(charsmap, str):
            spm.check_charsmap(_base64(charsmap))
        growth *= max(len(str(value.get(key, ""))) or 1 for key in ("content", "prepend"))
    if growth > MAX_GROWTH:
        raise FileFormatError(f"tokenizer.json replaces letters until a text is {growth:,} times as long.")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within a value, itself first."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item)


def _base64(text: str) -> bytes:
    import base64
    import binascii

    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise FileFormatError("precompiled_charsmap in tokenizer.json is not base64.") from error


def _plain_backend(full: Any, pre_tokenizer: Any, plain: list[AddedToken]) -> Any:
    """The same model and splits without the control tokens. The vocabulary is shared, not copied."""
    backend = Backend(full.model)
    if full.normalizer is not None:
        backend.normalizer = full.normalizer
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    backend.add_tokens([token for token in plain if full.model.token_to_id(token.content) is not None])
    return backend


def _without_prefix(described: Any, default: Any) -> Any:
    """For text in the middle, where Metaspace's "first" puts no space."""
    text = json.dumps(described)
    if '"prepend_scheme": "first"' not in text:
        return default
    empty = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}
    changed = json.loads(text.replace('"prepend_scheme": "first"', '"prepend_scheme": "never"'))
    return Backend.from_str(json.dumps({**empty, "pre_tokenizer": changed})).pre_tokenizer


def _decoder_kind(decoder: Any) -> str:
    """How ids become bytes: "bytes" (GPT-2's letters), "spm" (U+2581 and <0x..>), or "other"."""
    if not isinstance(decoder, dict):
        return "other"
    steps = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    kinds = [step.get("type") for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    if "ByteLevel" in kinds:
        return "bytes"
    if "Metaspace" in kinds or {"Replace", "ByteFallback"} <= set(kinds):
        return "spm"
    return "other"


def _strips(decoder: Mapping[str, Any]) -> bool:
    steps = decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder]
    return any(
        step.get("type") == "Strip"
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never")
        for step in steps
    )


def _pieces(names: list[str], added: set[int], decoder: str) -> list[bytes]:
    if decoder == "bytes":
        return [n.encode() if i in added else byte_bpe.token_bytes(n) for i, n in enumerate(names)]
    kinds = (spm.PieceType.BYTE if len(n) == 6 and n.startswith("<0x") and n[5] == ">" else 1 for n in names)
    return [spm.piece_bytes(name, kind) for name, kind in zip(names, kinds, strict=True)]


def _adds_bos(full: Any, words: Words, bos: int | None) -> bool:
    """tokenizer.json says it by its post-processor; the config is asked where there is none."""
    if full.post_processor is None:
        return words.config.get("add_bos_token") is True
    try:
        full.no_truncation()
        return bos is not None and full.encode("a").ids[:1] == [bos]
    except BaseException as error:
        raise_if_hostile(error)
        raise


def _around(full: Any) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The ids that the post-processor puts before and behind a text."""
    if full.post_processor is None:
        return None
    try:
        full.no_truncation()
        full.no_padding()
        whole, bare = full.encode("a").ids, full.encode("a", add_special_tokens=False).ids
    except BaseException as error:
        raise_if_hostile(error)
        raise
    for at in range(len(whole) - len(bare) + 1):
        if whole[at : at + len(bare)] == bare:
            return tuple(whole[:at]), tuple(whole[at + len(bare) :])
    return None


KINDS = {
    "Qwen2Tokenizer": "qwen2",
    "Qwen2TokenizerFast": "qwen2",
    "GPT2Tokenizer": "gpt-2",
    "GPT2TokenizerFast": "gpt-2",
}
SIZES = {128000: "llama-bpe", 151643: "qwen2", 50257: "gpt-2"}
"""vocab.json does not say how words are split; the size of the famous ones tells."""


def _from_merges(folder: Path, words: Words) -> Vocabulary:
    tokens = read_json(folder / "vocab.json", max_bytes=MAX_BYTES)
    added = words.added()
    lines = _bounded(folder / "merges.txt").decode("utf-8", errors="replace").split("\n")
    if lines and lines[0].startswith("#version"):
        del lines[0]
    pairs = [tuple(line.rstrip("\r").split(" ")) for line in lines if line.strip("\r")]
    merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
    if len(merges) < len(pairs):
        raise FileFormatError(f"merges.txt has {len(pairs) - len(merges):,} lines that are not two tokens.")
    ids = {token: id_ for token, (id_, _) in added.items()}
    if not added:
        # GPT-2's own folder has no configuration; its one special token ends a text.
        ids = {name: tokens[name] for name in ("<|endoftext|>",) if name in tokens}
    special = frozenset(id_ for id_, special in added.values() if special) or frozenset(ids.values())
    kind = KINDS.get(str(words.config.get("tokenizer_class")), SIZES.get(len(tokens), "gpt-2"))
    ends = words.ends(ids, max([*ids.values(), len(tokens) - 1]) + 1)
    more = {**ends, "add_bos": words.config.get("add_bos_token") is True}
    return byte_bpe.build(byte_bpe.ByteVocabulary(tokens, merges, ids, special, kind, more))


def _from_spm(path: Path, words: Words) -> Vocabulary:
    pieces = spm.read_model(path)
    names = {text: id_ for id_, text in enumerate(pieces.texts)}
    for token, (id_, special) in sorted(words.added().items(), key=lambda item: item[1]):
        if token not in names and id_ == len(pieces.texts):
            pieces.texts.append(token)
            pieces.scores.append(0.0)
            pieces.types.append(spm.PieceType.CONTROL if special else spm.PieceType.USER_DEFINED)
            names[token] = id_
    ends = words.ends(names, len(names))
    bos, eos = ends.pop("bos_id"), ends.pop("eos_id")
    pieces.bos_id = pieces.bos_id if bos is None else bos
    pieces.eos_id = pieces.eos_id if eos is None else eos
    if pieces.eos_id is not None:
        ends["stop_ids"] |= {pieces.eos_id}
    # SentencePiece's Llama begins every text with bos unless its configuration says otherwise.
    pieces.more = {
        **ends,
        "add_bos": words.config.get("add_bos_token", True) is not False and bool(words.model),
    }
    return spm.build(pieces)
