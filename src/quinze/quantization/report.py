"""What each level costs and saves: size, the error of every tensor, what it does to a text of the user's.

Each level is really written, to a temporary folder, and really run. Perplexity is e to the mean surprise at
the text's own next token; the divergence (Kullback-Leibler, nats a token) compares all probabilities with
the original's; flipped is the share of tokens at which another than the original's is the likeliest.

T tokens, V vocabulary.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from quinze.engine.engine import Engine
from quinze.errors import InvalidRequestError
from quinze.formats.checkpoint import Tensor, TensorType, open_checkpoint
from quinze.formats.quants import Floats, decode
from quinze.models.weights import load_model
from quinze.quantization.calibration import Calibration
from quinze.quantization.encoder import pieces
from quinze.quantization.levels import Level
from quinze.quantization.quantize import Progress, quantize
from quinze.quantization.source import Source, open_source

LEVELS = ("q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q4_0")
"""Compared when none is named."""
WINDOW = 256
"""Tokens that are read together; each but the first is foretold from those before it in the window."""
MIN_TOKENS, MAX_TOKENS = 16, 4096
"""Of the text that are looked at, so that a large model is done within the hour."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. The first is the original, whose errors are 0."""

    level: str
    bytes: int
    bits: float
    """Of file for each weight."""
    calibrated: bool = False
    """The errors of columns were weighed by what the model reads (calibration.py)."""
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
    ids: Sequence[int] = (),
    *,
    pure: bool = False,
    calibration: Calibration | None = None,
    types: Mapping[str, TensorType] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """One row for the original and one for each level, and with a calibration a second one for each.

    ids     of the text that is read with each; without them, sizes and errors alone
    types   name -> type, those of the level "auto" (allocation.py)
    """
    source = open_source(path)
    parameters = sum(math.prod(tensor.shape) for tensor in source.tensors)
    rows = [Row("original", source.bytes, 8 * source.bytes / parameters)]
    judge = Judge(path, ids, threads) if ids else None
    if judge is not None:
        rows[0] = judge.of(rows[0], None)
    try:
        with tempfile.TemporaryDirectory(prefix="quinze-") as folder:
            for chosen in levels:
                for weighed in (None, calibration) if calibration and weighs(chosen) else (None,):
                    out = Path(folder) / f"{chosen.name}.gguf"
                    done = quantize(
                        source, chosen, out, pure=pure, calibration=weighed, threads=threads,
                        types=types if chosen.name == "auto" else None,
                        progress=_named(progress, chosen.name),
                    )  # fmt: skip
                    row = Row(chosen.name, done.bytes, done.bits, calibrated=weighed is not None)
                    row = _errors(row, source, out)
                    rows.append(row if judge is None else judge.of(row, out))
                    out.unlink()
    finally:
        if judge is not None:
            judge.close()
    return rows


def weighs(level: Level) -> bool:
    """Whether a calibration changes anything: types with a plain rule have no choice to make."""
    return level.type not in (TensorType.F32, TensorType.F16, TensorType.BF16, TensorType.Q8_0)


class Judge:
    """The original on a text, and what others say of the same text."""

    def __init__(self, path: Path, ids: Sequence[int], threads: int | None) -> None:
        self._ids, self._threads = list(ids), threads
        if len(self._ids) < MIN_TOKENS:
            raise InvalidRequestError(
                f"The text to compare on has {len(ids)} tokens; a comparison needs some hundreds.",
                param="text",
            )
        self._original = Engine(load_model(path), threads=threads, kv_type="f32")

    def of(self, row: Row, path: Path | None) -> Row:
        """The row with what the model at `path` does to the text; None: the original itself."""
        if path is None:
            return self._read(row, self._original)
        engine = Engine(load_model(path), threads=self._threads, kv_type="f32")
        try:
            return self._read(row, engine)
        finally:
            engine.close()

    def close(self) -> None:
        self._original.close()

    def _read(self, row: Row, engine: Engine) -> Row:
        surprise = divergence = 0.0
        flipped = count = 0
        for window in windows(self._ids):
            mine = engine.logits(window)[:-1]
            truth = mine if engine is self._original else self._original.logits(window)[:-1]
            for t, following in enumerate(window[1:]):
                p, q = log_softmax(truth[t]), log_softmax(mine[t])
                surprise -= float(q[following])
                divergence += float(np.exp(p) @ (p - q))
                flipped += int(truth[t].argmax() != mine[t].argmax())
                count += 1
        return replace(
            row, tokens=count, perplexity=math.exp(surprise / count),
            divergence=max(0.0, divergence / count), flipped=flipped / count,
        )  # fmt: skip


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
    return replace(
        row, error=math.sqrt(whole_off / whole) if whole else 0.0, worst_tensor=worst,
        worst_error=found[worst][1], tensors=found,
    )  # fmt: skip


def _squares(before: Tensor, after: Tensor) -> tuple[float, float]:
    """(sum of squared errors, sum of squared weights)"""
    off = size = 0.0
    for a, b in zip(pieces(before), pieces(after), strict=True):
        was, now = decode(a), decode(b)
        off += float(np.square(now - was, dtype=np.float64).sum())
        size += float(np.square(was, dtype=np.float64).sum())
    return off, size


def windows(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """The text in pieces that are read together."""
    for start in range(0, len(ids) - 1, WINDOW):
        window = ids[start : start + WINDOW]
        if len(window) > 1:
            yield window


def log_softmax(logits: Floats) -> np.ndarray:
    """(V,) -> logarithms of the odds, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max()
    return np.asarray(wide - math.log(float(np.exp(wide).sum())))
