"""A type for each matrix, so that a model of a given size is harmed least: the level "auto".

What a matrix can bear is measured: it alone is rounded coarsely, the model reads a text, and the divergence
from the original is divided by the weighed error of the rounding. That is the matrix's sensitivity; times the
error of another type it foretells that type's damage (to second order damages add up, and grow with the
squared error). Then bits are given where they spare the most damage a byte, until the size is reached.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quinze.engine.engine import Engine
from quinze.errors import InvalidRequestError
from quinze.formats.checkpoint import Bytes, Checkpoint, Tensor, TensorType, open_checkpoint
from quinze.formats.gguf import write_gguf
from quinze.formats.quants import Floats, decode
from quinze.models.weights import model_of
from quinze.quantization.calibration import Calibration
from quinze.quantization.encoder import recode, weighed_pieces
from quinze.quantization.levels import LEVELS, type_of
from quinze.quantization.quantize import Progress, planned, quantize
from quinze.quantization.report import log_softmax, windows
from quinze.quantization.source import Source

BASE = "q4_k_m"
"""Of the tensors that are not allotted (vectors, routers), and what the file is called."""
WIDE = (TensorType.Q3_K, TensorType.Q4_K, TensorType.Q5_K, TensorType.Q6_K, TensorType.Q8_0)
NARROW = (TensorType.Q4_0, TensorType.Q4_1, TensorType.Q5_0, TensorType.Q5_1, TensorType.Q8_0)
"""Where rows are not whole blocks of 256."""
AUTO = replace(LEVELS[BASE], name="auto")
PROBE_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Choice:
    """What one matrix could be."""

    name: str
    types: tuple[TensorType, ...]
    bytes: tuple[int, ...]
    damage: tuple[float, ...]
    """Foretold divergence, nats a token"""


def allocate(
    source: Source,
    ids: Sequence[int],
    size: int,
    *,
    calibration: Calibration | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, TensorType]:
    """Types under which the file has at most `size` bytes. InvalidRequestError when the smallest has more.

    ids  of a text that the result will not be judged by; its first tokens are read once a matrix
    """
    choices = _measured(source, ids, calibration, threads, progress)
    matrices = {choice.name for choice in choices}
    rest = sum(
        plan.type.size(plan.shape) for plan in planned(source, LEVELS[BASE]) if plan.name not in matrices
    )
    # The head of the file: names, vocabulary, padding.
    return share_out(choices, size - rest - _head(source))


def share_out(choices: Sequence[Choice], size: int) -> dict[str, TensorType]:
    """The least damage in `size` bytes, step by step: always the step that spares the most a byte.

    Only steps on the lower hull of (bytes, damage) are taken: one that spares less than the step behind it
    is taken together with that.
    """
    hulls = {choice.name: _hull(choice) for choice in choices}
    left = size - sum(choice.bytes[hulls[choice.name][0]] for choice in choices)
    if left < 0:
        raise InvalidRequestError(
            f"The smallest mixture has {-left:,} bytes more than --under allows.",
            hint="Allow more, or take a smaller model.",
            param="under",
        )
    steps = []
    for choice in choices:
        hull = hulls[choice.name]
        for a, b in itertools.pairwise(hull):
            cost = choice.bytes[b] - choice.bytes[a]
            steps.append(((choice.damage[a] - choice.damage[b]) / cost, cost, choice, a, b))
    at = {choice.name: hulls[choice.name][0] for choice in choices}
    for _, cost, choice, a, b in sorted(steps, key=lambda step: (-step[0], step[2].name, step[3])):
        # A matrix whose better step did not fit is not carried further.
        if at[choice.name] == a and cost <= left:
            at[choice.name], left = b, left - cost
    return {choice.name: choice.types[at[choice.name]] for choice in choices}


def _hull(choice: Choice) -> list[int]:
    """Which of its types are worth their bytes, the smallest first."""
    order = sorted(range(len(choice.types)), key=lambda i: (choice.bytes[i], choice.damage[i]))
    hull: list[int] = []
    for i in order:
        if hull and choice.damage[i] >= choice.damage[hull[-1]]:
            continue
        while len(hull) > 1 and _gain(choice, hull[-2], hull[-1]) <= _gain(choice, hull[-1], i):
            hull.pop()
        hull.append(i)
    return hull


def _gain(choice: Choice, a: int, b: int) -> float:
    return (choice.damage[a] - choice.damage[b]) / max(1, choice.bytes[b] - choice.bytes[a])


def _measured(
    source: Source,
    ids: Sequence[int],
    calibration: Calibration | None,
    threads: int | None,
    progress: Progress | None,
) -> list[Choice]:
    matrices = [t for t in source.tensors if _candidates(t, source)]
    with tempfile.TemporaryDirectory(prefix="quinze-") as folder, ThreadPoolExecutor(threads) as pool:
        # The original under GGUF's names, each matrix as it is.
        whole = Path(folder) / "original.gguf"
        quantize(
            source, LEVELS["f32"], whole, types={t.name: t.type for t in source.tensors}, threads=threads
        )
        original = open_checkpoint(whole)
        probe = _Probe(original, list(ids[:PROBE_TOKENS]), threads)
        found = []
        for done, tensor in enumerate(matrices):
            if progress is not None:
                progress(f"measuring {tensor.name}", done, len(matrices))
            exact = original.tensors[tensor.name]
            weighs = None if calibration is None else calibration.importance(tensor.name, tensor.shape)
            kinds = _candidates(tensor, source)
            coded = {kind: _recoded(exact, kind, pool, weighs) for kind in kinds}
            errors = [_error(exact, coded[kind], weighs) for kind in kinds]
            # By the coarsest: its effect stands out most clearly.
            harm = probe.divergence(tensor.name, coded[kinds[0]]) / errors[0] if errors[0] else 0.0
            sizes = tuple(kind.size(tensor.shape) for kind in kinds)
            found.append(Choice(tensor.name, kinds, sizes, tuple(harm * error for error in errors)))
        return found


def _candidates(tensor: Tensor, source: Source) -> tuple[TensorType, ...]:
    """() for what is not to be allotted."""
    tied = "output.weight" not in {t.name for t in source.tensors}
    usual = type_of(tensor.name, tensor.shape, LEVELS["q4_0"], layers=source.layers, tied=tied, pure=True)
    if usual is not TensorType.Q4_0:
        return ()
    return NARROW if tensor.shape[-1] % 256 else WIDE


def _recoded(tensor: Tensor, kind: TensorType, pool: ThreadPoolExecutor, weighs: Floats | None) -> Tensor:
    parts: list[Bytes] = list(recode(tensor, kind, pool, weighs))
    return Tensor(tensor.name, kind, tensor.shape, np.concatenate(parts))


def _error(before: Tensor, after: Tensor, weighs: Floats | None) -> float:
    """The sum of squared errors, weighed by column."""
    total = 0.0
    pairs = zip(weighed_pieces(before, weighs), weighed_pieces(after, weighs), strict=True)
    for (was, weight), (now, _) in pairs:
        by_column = np.square(decode(now) - decode(was), dtype=np.float64).sum(axis=0)
        total += float(by_column.sum() if weight is None else by_column @ weight)
    return total


class _Probe:
    """The original on a text, and what one matrix, rounded, does to it."""

    def __init__(self, original: Checkpoint, ids: Sequence[int], threads: int | None) -> None:
        self._original, self._threads = original, threads
        self._windows = list(windows(ids))
        self._truth = self._log_odds({})

    def divergence(self, name: str, rounded: Tensor) -> float:
        """Kullback-Leibler from the original, nats a token."""
        total, count = 0.0, 0
        for truth, mine in zip(self._truth, self._log_odds({name: rounded}), strict=True):
            for p, q in zip(truth, mine, strict=True):
                total, count = total + float(np.exp(p) @ (p - q)), count + 1
        return max(0.0, total / max(1, count))

    def _log_odds(self, changed: Mapping[str, Tensor]) -> list[Floats]:
        checkpoint = replace(self._original, tensors={**self._original.tensors, **changed})
        engine = Engine(model_of(checkpoint), threads=self._threads, kv_type="f32")
        try:
            return [np.stack([log_softmax(row) for row in engine.logits(ids)]) for ids in self._windows]
        finally:
            engine.close()


def _head(source: Source) -> int:
    """Bytes of a file beside its tensors, and the most that padding can take."""
    with tempfile.TemporaryDirectory(prefix="quinze-") as folder:
        path = Path(folder) / "head.gguf"
        write_gguf(path, source.metadata, [])
        # Of each tensor: the length of its name and the name, dimensions, type and place, padding.
        listed = sum(24 + len(t.name.encode()) + 8 * len(t.shape) + 31 for t in source.tensors)
        # What quantize adds to the pairs.
        return path.stat().st_size + listed + 256
