"""Weights into any type, a tensor at a time, in pieces that need little memory and use every core.

Given a Tensor in any readable type; yields the bytes of another. F32, F16, BF16 and Q8_0 have plain rules;
for the rest the scale of least squares is searched for in C++ (csrc/encode.cpp).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from quinze import native
from quinze.errors import FileFormatError
from quinze.formats.checkpoint import Bytes, Tensor, TensorType
from quinze.formats.quants import Floats, decode, encode

PIECE = 2**20
"""Weights in one piece of work: 4 MB as float32."""


def encode_rows(weights: Floats, kind: TensorType, importance: Floats | None = None) -> Bytes:
    """Weights (rows, cols) as the bytes of a type. `importance` (cols,): what each column's error weighs."""
    if kind in (TensorType.F32, TensorType.F16, TensorType.BF16, TensorType.Q8_0):
        return encode("", weights, kind).data
    return native.encode(kind, np.ascontiguousarray(weights, dtype=np.float32), importance)


def recode(
    tensor: Tensor, kind: TensorType, pool: ThreadPoolExecutor, importance: Floats | None = None
) -> Iterator[Bytes]:
    """The tensor in another type, piece by piece, in order. FileFormatError where weights are no numbers.

    importance  (matrices, cols) what each column's error weighs: for all of it, or for each expert
    """
    if tensor.type is kind:
        yield tensor.data
        return

    def work(piece: Tensor, weighs: Floats | None) -> Bytes:
        weights = decode(piece)
        if not np.isfinite(weights).all():
            raise FileFormatError(
                f"{tensor.name} holds weights that are not numbers (NaN or infinite).",
                hint="The model is broken: download it again, or ask its makers.",
            )
        with np.errstate(over="ignore"):
            return encode_rows(weights, kind, weighs)

    waiting: deque[Future[Bytes]] = deque()
    for piece, weighs in weighed_pieces(tensor, importance):
        waiting.append(pool.submit(work, piece, weighs))
        # So many are under way or done and not yet written: memory stays small.
        if len(waiting) >= 4:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def weighed_pieces(tensor: Tensor, importance: Floats | None) -> Iterator[tuple[Tensor, Floats | None]]:
    """The pieces, and what their columns weigh (cols,)."""
    if importance is None or len(importance) == 1:
        for piece in pieces(tensor):
            yield piece, None if importance is None else importance[0]
        return
    size = len(tensor.data) // len(importance)
    for i, weighs in enumerate(importance):
        matrix = Tensor(tensor.name, tensor.type, tensor.shape[1:], tensor.data[i * size : (i + 1) * size])
        for piece in pieces(matrix):
            yield piece, weighs


def pieces(tensor: Tensor) -> Iterator[Tensor]:
    """Whole rows of a tensor, some at a time, each piece (rows, cols)."""
    cols = tensor.shape[-1]
    rows = int(np.prod(tensor.shape[:-1], dtype=np.int64)) if len(tensor.shape) > 1 else 1
    step = max(1, PIECE // cols)
    row_bytes = tensor.type.size((cols,))
    for start in range(0, rows, step):
        end = min(rows, start + step)
        yield Tensor(
            tensor.name, tensor.type, (end - start, cols), tensor.data[start * row_bytes : end * row_bytes]
        )
