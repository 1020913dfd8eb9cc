"""What each level costs and saves: size, the error of every tensor, what it does to a text of the user's.

Each level is really written, to a temporary folder, and really run. Perplexity is e to the mean surprise at
the text's own next token; the divergence (Kullback-Leibler, nats a token) compares all probabilities with
the original's; flipped is the share of tokens at which another than the original's is the likeliest.

T tokens, V vocabulary.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from quinze.engine.engine import Engine
from quinze.errors import FileFormatError, InvalidRequestError
from quinze.formats.checkpoint import Tensor, open_checkpoint
from quinze.formats.quants import Floats, decode
from quinze.models.weights import load_model
from quinze.quantization.encoder import pieces
from quinze.quantization.levels import Level
from quinze.quantization.quantize import Progress, quantize
from quinze.quantization.source import Source, open_source
from quinze.tokenizer.tokenizer import load_tokenizer

LEVELS = ("q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q4_0")
"""Compared when none is named."""
WINDOW = 256
"""Tokens that are read together; each but the first is foretold from those before it in the window."""
MAX_TOKENS = 4096
"""Of the text that are looked at, so that a large model is done within the hour."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. The first is the original, whose errors are 0."""

    level: str
    bytes: int
    bits: float
    """Of file for each weight."""
    error: float = 0.0
    """Of all weights together: |w' - w| / |w|, root mean square."""
    worst_tensor: str = ""
    worst_error: float = 0.0
    tensors: dict[str, tuple[str, float]] = field(default_factory=dict)
    """name -> (type, relative error)"""
    tokens: int = 0
    perplexity: float | None = None
    divergence: float = 0.0
    flipped: float = 0.0


def compare(
    path: Path,
    levels: Sequence[Level],
    text: Path | None,
    *,
    pure: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """One row for the original and one for each level. Without a text, sizes and errors alone."""
    source = open_source(path)
    ids = _ids(path, text) if text is not None else []
    parameters = sum(math.prod(tensor.shape) for tensor in source.tensors)
    original = Engine(load_model(path), threads=threads, kv_type="f32") if ids else None
    rows = [Row("original", source.bytes, 8 * source.bytes / parameters)]
    if original is not None:
        rows[0] = _with_text(rows[0], original, original, ids)
    with tempfile.TemporaryDirectory(prefix="quinze-") as folder:
        for chosen in levels:
            out = Path(folder) / f"{chosen.name}.gguf"
            done = quantize(
                source, chosen, out, pure=pure, threads=threads, progress=_named(progress, chosen.name)
            )
            row = _errors(Row(chosen.name, done.bytes, done.bits), source, out)
            if original is not None:
                engine = Engine(load_model(out), threads=threads, kv_type="f32")
                row = _with_text(row, original, engine, ids)
                engine.close()
            rows.append(row)
            out.unlink()
    if original is not None:
        original.close()
    return rows


def _named(progress: Progress | None, level: str) -> Progress | None:
    if progress is None:
        return None
    return lambda name, done, total: progress(f"{level}: {name}", done, total)


def _errors(row: Row, source: Source, out: Path) -> Row:
    """The row with the error of every tensor that was rounded."""
    written = open_checkpoint(out).tensors
    found: dict[str, tuple[str, float]] = {}
    whole_off = whole = 0.0
    for tensor in source.tensors:
        ours = written[tensor.name]
        off, size = _squares(source.tensor(tensor), ours)
        whole_off, whole = whole_off + off, whole + size
        found[tensor.name] = (ours.type.name, math.sqrt(off / size) if size else 0.0)
    worst = max(found, key=lambda name: found[name][1])
    return Row(
        row.level,
        row.bytes,
        row.bits,
        math.sqrt(whole_off / whole) if whole else 0.0,
        worst,
        found[worst][1],
        found,
    )


def _squares(before: Tensor, after: Tensor) -> tuple[float, float]:
    """(sum of squared errors, sum of squared weights)"""
    off = size = 0.0
    for a, b in zip(pieces(before), pieces(after), strict=True):
        was, now = decode(a), decode(b)
        off += float(np.square(now - was, dtype=np.float64).sum())
        size += float(np.square(was, dtype=np.float64).sum())
    return off, size


def _with_text(row: Row, original: Engine, engine: Engine, ids: list[int]) -> Row:
    surprise = divergence = 0.0
    flipped = count = 0
    for window in _windows(ids):
        mine = engine.logits(window)[:-1]
        truth = mine if engine is original else original.logits(window)[:-1]
        for t, following in enumerate(window[1:]):
            p, q = _log_softmax(truth[t]), _log_softmax(mine[t])
            surprise -= float(q[following])
            divergence += float(np.exp(p) @ (p - q))
            flipped += int(truth[t].argmax() != mine[t].argmax())
            count += 1
    return Row(
        row.level, row.bytes, row.bits, row.error, row.worst_tensor, row.worst_error, row.tensors,
        count, math.exp(surprise / count), max(0.0, divergence / count), flipped / count,
    )  # fmt: skip


def _windows(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids) - 1, WINDOW):
        window = ids[start : start + WINDOW]
        if len(window) > 1:
            yield window


def _log_softmax(logits: Floats) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max()
    return np.asarray(wide - math.log(float(np.exp(wide).sum())))


def _ids(path: Path, text: Path) -> list[int]:
    """The first tokens of a text file."""
    try:
        with text.open("rb") as file:
            words = file.read(16 * MAX_TOKENS).decode("utf-8", errors="ignore")
    except OSError as error:
        raise FileFormatError(f"{text} could not be read: {error.strerror}.") from error
    ids = load_tokenizer(path).encode(words)[:MAX_TOKENS]
    if len(ids) < 16:
        raise InvalidRequestError(
            f"{text.name} has {len(ids)} tokens; a comparison needs some hundreds.", param="text"
        )
    return ids
