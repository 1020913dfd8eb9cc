"""The one door to C++: a decoder, its caches and samplers, and each kernel by itself.

Given plain numbers and arrays; returns plain numbers and arrays. The compiled module `quinze._C` is imported
here and nowhere else, on first use, so that everything that needs no language model works without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from quinze.errors import QuinzeError

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]
Mask = npt.NDArray[np.uint32]
"""A bit for each id that may be chosen, 32 a word, the lowest first."""
Weight = tuple[int, int, int, npt.NDArray[np.uint8]]
"""(type, rows, cols, bytes); a vector has one row."""


LowRank = tuple[Floats, Floats, "Floats | None"]
"""(A (rank, cols), B (rows, rank) with the scale in it, share (rows,) of the model's own product or None)."""


class Cache(Protocol):
    """The keys and values of one sequence."""

    @property
    def length(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def missing(self, n: int) -> int:
        """Bytes that room for n more ids would take."""
        ...

    def can_share(self, length: int) -> bool:
        """Whether another sequence may begin with the first `length` ids of this one."""
        ...


Piece = tuple[Cache, Ids, bool, int, "Sampler | None", "Mask | None", int]
"""(cache, ids, together, guesses, sampler, mask, adapter): one sequence's part in a step (csrc/step.h)."""
Chosen = tuple[list[int], list[tuple[float, list[tuple[int, float]]]], str | None]
"""(ids, logprobs of each, why nothing could be chosen): what it gets."""


class Sampler(Protocol):
    """Chooses ids from logits; remembers what was read and said, for the penalties."""

    def read(self, id: int) -> None:  # noqa: A002 (the field's own name)
        """An id of the prompt."""
        ...

    def accept(self, id: int) -> None:  # noqa: A002
        """An id of the reply."""
        ...

    def sample(self, logits: Floats, mask: Mask | None = None) -> int: ...
    def logprobs(self) -> tuple[float, list[tuple[int, float]]]:
        """Of the id sampled last, as the model itself had it: its own, and those of the likeliest ids."""
        ...


class Decoder(Protocol):
    """A model whose weights lie where the file has them."""

    @property
    def threads(self) -> int: ...
    @property
    def kernels(self) -> str: ...
    def cache(self, type: str = "f16") -> Cache: ...  # noqa: A002 (the field's own name)
    def forward(
        self, cache: Cache, ids: Ids, cancelled: Callable[[], bool] | None = None, adapter: int = -1
    ) -> bool:
        """Append ids to the cache; False if `cancelled()` said yes at a layer on the way."""
        ...

    def forward_all(self, cache: Cache, ids: Ids, adapter: int = -1) -> Floats:
        """The same, returning the logits of every id (T, V)."""
        ...

    def forward_hidden(self, cache: Cache, ids: Ids, cancelled: Callable[[], bool] | None = None) -> Floats:
        """The same, returning what the head would read of every id, behind the last norm (T, C).

        No rows if `cancelled()` said yes on the way.
        """
        ...

    def sample(self, cache: Cache, sampler: Sampler, mask: Mask | None = None) -> int:
        """Choose, and accept, the id that follows the last. ArithmeticError on NaN, or if none may be."""
        ...

    def truncate(self, cache: Cache, length: int) -> None: ...
    def add_adapter(self, parts: Mapping[str, LowRank]) -> int:
        """name of a weight -> what is added to its product, for the ids that come with this number."""
        ...

    def remove_adapter(self, adapter: int) -> None:
        """Its number may be given again: no sequence may carry it any more."""
        ...

    def observe(self) -> None:
        """Sum up from now on what each weight is multiplied with."""
        ...

    def observed(self) -> dict[str, tuple[npt.NDArray[np.float64], int]]:
        """name -> (sums of squares of its inputs (cols,), tokens), since `observe`."""
        ...

    @property
    def cache_bytes(self) -> int:
        """Of the pages of all caches; one that several share counts once."""
        ...

    def share(self, cache: Cache, length: int) -> Cache:
        """A cache that begins with the first `length` ids of another, whose pages it shares."""
        ...

    def step(
        self, pieces: Sequence[Piece], cancelled: Callable[[], bool] | None = None
    ) -> list[Chosen] | None:
        """Append the ids of each sequence, in one pass over the weights, and choose. None if cancelled."""
        ...


def decoder(
    config: Mapping[str, object], tensors: Mapping[str, Weight], *, kernels: str, threads: int
) -> Decoder:
    """Raises ValueError for a tensor missing or of the wrong size, and for kernels this CPU has not."""
    return cast(Decoder, _module().decoder(dict(config), dict(tensors), kernels, threads))


def sampler(
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    seed: int,
    kernels: str = "auto",
    typical_p: float = 1.0,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    logit_bias: Sequence[tuple[int, float]] = (),
    logprobs: int = -1,
) -> Sampler:
    """`logprobs`: how many of the likeliest ids are told with each choice; -1: not even the chosen one."""
    return cast(
        Sampler,
        _module().sampler(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            kernels=kernels,
            typical_p=typical_p,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            logit_bias=list(logit_bias),
            logprobs=logprobs,
        ),
    )


def kernels(name: str) -> Any:
    """Every kernel of the set "scalar", "avx2" or "auto", each by itself: for tests and benchmarks."""
    return _module().kernels(name)


def encode(
    type: int,  # noqa: A002 (the field's own name)
    weights: Floats,
    importance: Floats | None = None,
) -> npt.NDArray[np.uint8]:
    """Weights (rows, cols) as the bytes of a quantized type, with the least squared error found.

    `importance` (cols,) says how much each column's error counts. Other threads run meanwhile.
    """
    return cast(npt.NDArray[np.uint8], _module().encode(type, weights, importance))


def packed_type(type: int) -> int | None:  # noqa: A002 (the field's own name)
    """That of a quantized matrix when 16 of its rows are interleaved (csrc/packed.h); None for others."""
    return cast("int | None", _module().packed_type(type))


def packed_size(type: int, rows: int, cols: int) -> int:  # noqa: A002
    """Bytes of a matrix of a packed type: whole panels of 16 rows."""
    return int(_module().packed_size(type, rows, cols))


def pack(
    type: int,  # noqa: A002
    weights: npt.NDArray[np.uint8],
    rows: int,
    cols: int,
    first: int,
    last: int,
) -> npt.NDArray[np.uint8]:
    """The panels [first, last) of a quantized matrix as it lies in a file. Other threads run meanwhile."""
    return cast(
        npt.NDArray[np.uint8], _module().kernels("auto").pack(type, weights, rows, cols, first, last)[1]
    )


def cpu_has_avx2() -> bool:
    return bool(_module().cpu_has_avx2())


def _module() -> Any:
    try:
        return importlib.import_module("quinze._C")
    except ImportError as error:
        raise QuinzeError(
            f"The compiled part of Quinze (quinze._C) cannot be loaded: {error}.",
            hint="Install the package with `pip install .`, which compiles it with g++ 11 or newer.",
        ) from error
