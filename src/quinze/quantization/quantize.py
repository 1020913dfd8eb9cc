"""A model of any readable format into a GGUF file of a chosen level.

Tensor by tensor, so that memory stays small however large the model is; the file appears under its name only
when it is whole. Metadata, tokenizer and chat template come along. Knows nothing of the terminal.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from quinze.errors import InvalidRequestError
from quinze.formats.checkpoint import Bytes, Tensor, TensorType
from quinze.formats.gguf import Planned, stream_gguf
from quinze.quantization.calibration import Calibration
from quinze.quantization.encoder import recode
from quinze.quantization.levels import Level, type_of
from quinze.quantization.source import Source

Progress = Callable[[str, int, int], None]
"""Called with a tensor's name, and how many of how many bytes are read."""
ORDER = [TensorType.F64, TensorType.F32, TensorType.F16, TensorType.BF16, TensorType.Q8_0]
"""Types that a model can be quantized from without adding one rounding to another's."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """What was written."""

    path: Path
    level: str
    tensors: int
    parameters: int
    source_bytes: int
    bytes: int
    types: dict[str, int]
    """How many tensors each type has."""
    rounded_twice: int
    """Tensors that were quantized before: their errors add up."""

    @property
    def bits(self) -> float:
        """Of file for each parameter."""
        return 8 * self.bytes / max(1, self.parameters)


def quantize(
    source: Source,
    level: Level,
    out: Path,
    *,
    pure: bool = False,
    calibration: Calibration | None = None,
    types: Mapping[str, TensorType] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Write the model in a level. `pure`: all matrices in its one type. `progress` may raise to stop.

    calibration  what the errors of each column weigh; None: all the same
    types        name -> type, over those of the level
    """
    if out.exists() and any(out.samefile(file) for file in source.files):
        raise InvalidRequestError(f"{out} is the model itself.", hint="Give another name with --output.")
    plan = planned(source, level, pure=pure, types=types)
    total, done, written = sum(len(t.data) for t in source.tensors), 0, 0
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:

        def data() -> Iterator[Iterator[Bytes]]:
            nonlocal done
            for tensor, wanted in zip(source.tensors, plan, strict=True):
                if progress is not None:
                    progress(tensor.name, done, total)
                weighs = None if calibration is None else calibration.importance(tensor.name, tensor.shape)
                yield recode(source.tensor(tensor), wanted.type, pool, weighs)
                done += len(tensor.data)

        metadata = {**source.metadata, "general.file_type": level.number, "general.quantization_version": 2}
        if calibration is not None:
            # Not what the texts were called: the file may be given to others.
            metadata["quantize.imatrix.entries_count"] = len(calibration.squares)
            metadata["quantize.imatrix.chunks_count"] = calibration.chunks
        stream_gguf(out, metadata, plan, data())
    written = out.stat().st_size
    count = Counter(tensor.type.name for tensor in plan)
    twice = sum(
        a.type not in ORDER and a.type is not b.type for a, b in zip(source.tensors, plan, strict=True)
    )
    parameters = sum(tensor.count for tensor in plan)
    return Quantized(out, level.name, len(plan), parameters, source.bytes, written, dict(count), twice)


def planned(
    source: Source, level: Level, *, pure: bool = False, types: Mapping[str, TensorType] | None = None
) -> list[Planned]:
    """Name, type and shape of every tensor that the file will have. `types`: over those of the level."""
    names = {tensor.name for tensor in source.tensors}
    layers, tied = source.layers, "output.weight" not in names
    chosen = types or {}
    return [
        Planned(
            t.name,
            _kept(t)
            or chosen.get(t.name)
            or type_of(t.name, t.shape, level, layers=layers, tied=tied, pure=pure),
            t.shape,
        )
        for t in source.tensors
    ]


def _kept(tensor: Tensor) -> TensorType | None:
    """A vector that is stored in 16 bits says no more in 32, but llama.cpp wants its norms in F32."""
    return TensorType.F32 if len(tensor.shape) == 1 else None
