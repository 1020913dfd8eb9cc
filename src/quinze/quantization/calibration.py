"""Calibration: which columns of a matrix matter, told by running the model on texts of the user's own.

A column that is multiplied with large numbers spoils more when it is rounded. So the model reads the texts,
and the squares of every matrix's inputs are summed up; the encoder weighs each column's error with their mean
(the diagonal of E[x xT], as in llama.cpp's importance matrix). The result can be kept as a GGUF that
llama.cpp's tools read, and theirs is read here.

    imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size
    NAME.in_sum2 (matrices, cols) F32, NAME.counts (matrices, 1) F32     matrices: 1, or the experts

T tokens of a window.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from quinze.engine.engine import Engine
from quinze.errors import FileFormatError, InvalidRequestError
from quinze.formats.checkpoint import Tensor, TensorType
from quinze.formats.gguf import read_gguf, write_gguf
from quinze.formats.quants import Floats, decode
from quinze.models.names import from_gguf_names
from quinze.models.weights import load_model
from quinze.quantization.source import Source
from quinze.tokenizer.tokenizer import load_tokenizer

WINDOW = 256
"""Tokens that are read together."""
MAX_TOKENS = 16_384
"""Of all texts; more bring no consistent gain (llama.cpp's own tables)."""
MIN_TOKENS = 256
SUMS, COUNTS = ".in_sum2", ".counts"
_EXPERTS = re.compile(r"\.experts\.(\d+)\.")
_FUSED = {"self_attn.qkv_proj": "self_attn.q_proj", "mlp.gate_up_proj": "mlp.gate_proj"}
"""Fused matrices, and a part of theirs: all parts read the same inputs."""

Progress = Callable[[int, int], None]
"""Called with how many of how many tokens are read."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Mean squares of the inputs of every matrix that was used."""

    squares: Mapping[str, Floats] = field(repr=False)
    """GGUF's name -> (matrices, cols): one matrix, or one for each expert"""
    counts: Mapping[str, Floats] = field(repr=False)
    """GGUF's name -> (matrices,) tokens that each has read"""
    tokens: int
    datasets: tuple[str, ...] = ()

    @property
    def chunks(self) -> int:
        """Windows that were read."""
        return -(-self.tokens // WINDOW)

    def importance(self, name: str, shape: tuple[int, ...]) -> Floats | None:
        """What the errors of a tensor's columns weigh, (matrices, cols); None where nothing is known.

        A column that was never more than zero still counts a little: another text may use it. An expert that
        read nothing has all columns alike.
        """
        found = self.squares.get(name)
        if found is None or found.shape[-1] != shape[-1]:
            return None
        if found.shape[0] not in (1, shape[0] if len(shape) == 3 else 1):
            return None
        mean = found.mean(axis=1, keepdims=True)
        weights = np.where(mean > 0, found + np.float32(1e-4) * mean, np.float32(1))
        return np.ascontiguousarray(weights, dtype=np.float32)


def calibrate(
    path: Path,
    source: Source,
    ids: Sequence[int],
    *,
    datasets: Sequence[str] = (),
    threads: int | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Run the model at `path` on `ids`, window by window. `source`: the same model under GGUF's names."""
    if len(ids) < MIN_TOKENS:
        raise InvalidRequestError(
            f"The texts to calibrate on have {len(ids):,} tokens; at least {MIN_TOKENS} are needed.",
            hint="Give more of what you will use the model for: some pages at least.",
            param="calibrate",
        )
    engine = Engine(load_model(path), threads=threads, kv_type="f32")
    try:
        engine.observe()
        for done, window in _windows(ids, min(WINDOW, engine.context_length)):
            if progress is not None:
                progress(done, len(ids))
            engine.logits(window)
        seen = engine.observed()
    finally:
        engine.close()
    squares: dict[str, Floats] = {}
    counts: dict[str, Floats] = {}
    for name, parts in sources_of(source, seen).items():
        sums = np.stack([seen[part][0] for part in parts])
        read = np.array([seen[part][1] for part in parts], dtype=np.float32)
        squares[name] = (sums / np.maximum(read, 1)[:, None]).astype(np.float32)
        counts[name] = read
    if not all(np.isfinite(found).all() for found in squares.values()):
        raise FileFormatError(
            f"{source.path.name} computed numbers that are none (NaN or infinite) on these texts.",
            hint="The model is broken: download it again, or ask its makers.",
        )
    return Calibration(squares, counts, len(ids), tuple(datasets))


def text_ids(path: Path, texts: Iterable[str], most: int = MAX_TOKENS) -> list[int]:
    """The tokens of some texts, one text after the other, as the model at `path` reads them."""
    tokenizer = load_tokenizer(path)
    ids: list[int] = []
    for text in texts:
        # Enough characters for what is still missing, in any language.
        ids += tokenizer.encode(text[: 16 * (most - len(ids))])
        if len(ids) >= most:
            break
    return ids[:most]


def save_calibration(calibration: Calibration, path: Path) -> None:
    """As llama.cpp's tools keep theirs."""
    metadata = {
        "general.type": "imatrix",
        "imatrix.datasets": list(calibration.datasets) or ["quinze"],
        "imatrix.chunk_count": calibration.chunks,
        "imatrix.chunk_size": WINDOW,
    }
    tensors: list[Tensor] = []
    for name, squares in calibration.squares.items():
        counts = calibration.counts[name][:, None]
        for suffix, values in ((SUMS, squares * counts), (COUNTS, counts)):
            plain = np.ascontiguousarray(values, dtype="<f4")
            tensors.append(
                Tensor(name + suffix, TensorType.F32, plain.shape, plain.reshape(-1).view(np.uint8))
            )
    write_gguf(path, metadata, tensors)


def load_calibration(path: Path) -> Calibration:
    """One that was kept by `save_calibration`, or llama.cpp's imatrix in its GGUF form."""
    checkpoint = read_gguf(path)
    names = [name.removesuffix(SUMS) for name in checkpoint.tensors if name.endswith(SUMS)]
    if checkpoint.metadata.get("general.type") != "imatrix" or not names:
        raise FileFormatError(
            f"{path.name} is no calibration: it holds no sums of squares.",
            hint="Make one with --calibrate TEXT, or with llama-imatrix (in its GGUF form, not .dat).",
        )
    squares: dict[str, Floats] = {}
    counts: dict[str, Floats] = {}
    for name in names:
        sums, counted = checkpoint.tensors[name + SUMS], checkpoint.tensors.get(name + COUNTS)
        if counted is None or sums.type is not TensorType.F32 or counted.type is not TensorType.F32:
            raise FileFormatError(f"{path.name} has no counts in F32 for {name}.")
        values = decode(sums).reshape(-1, sums.shape[-1])
        read = decode(counted).reshape(-1)
        if len(read) != len(values) or not (np.isfinite(values).all() and np.isfinite(read).all()):
            raise FileFormatError(f"{path.name} has sums for {name} that are no numbers, or do not fit.")
        squares[name] = (np.maximum(values, 0) / np.maximum(read, 1)[:, None]).astype(np.float32)
        counts[name] = read
    datasets = checkpoint.metadata.get("imatrix.datasets")
    count, size = (checkpoint.metadata.get(f"imatrix.chunk_{part}") for part in ("count", "size"))
    tokens = count * size if isinstance(count, int) and isinstance(size, int) else 0
    return Calibration(squares, counts, tokens, tuple(datasets) if isinstance(datasets, list) else ())


def is_calibration(path: Path) -> bool:
    """Whether a file given for texts is one that was kept."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _windows(ids: Sequence[int], size: int) -> Iterator[tuple[int, Sequence[int]]]:
    for start in range(0, len(ids), size):
        yield start, ids[start : start + size]


def sources_of(source: Source, seen: Mapping[str, object]) -> dict[str, list[str]]:
    """GGUF's name of each matrix -> the weights of the engine whose inputs are its own, one an expert."""
    tied = "output.weight" not in {tensor.name for tensor in source.tensors}
    by_experts: dict[str, list[str]] = {}
    for name in sorted(seen, key=_expert):
        by_experts.setdefault(_EXPERTS.sub(".experts.", name), []).append(name)
    found: dict[str, list[str]] = {}
    tensors = {tensor.name: tensor for tensor in source.tensors}
    architecture = str(source.metadata.get("general.architecture"))
    for original, wanted in zip(tensors, from_gguf_names(tensors, architecture), strict=True):
        for whole, part in _FUSED.items():
            wanted = wanted.replace(whole, part)
        if tied and original == "token_embd.weight":
            wanted = "lm_head.weight"
        parts = by_experts.get(wanted)
        if parts:
            found[original] = parts
    return found


def _expert(name: str) -> int:
    number = _EXPERTS.search(name)
    return int(number[1]) if number else 0
