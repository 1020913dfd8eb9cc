"""The engine on a GPU: PyTorch's transformer behind the same scheduler, samplers and generations.

Given a Model and a device; `open_engine` returns an Engine (engine.py) whose decoder is the one here. Only
what a decoder does is done in PyTorch: append ids to caches, and bring the logits of those that choose to the
CPU, where the native samplers choose as they do for the C++ decoder. Torch is imported on first use.

C hidden size, N rows of all pieces, V vocabulary.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from quinze import native
from quinze.engine.devices import TORCH_CPU, device_of, gpu_is_present, torch_is_installed
from quinze.engine.engine import Engine
from quinze.engine.pace import STEP_TOKENS
from quinze.engine.torch_adapters import TorchAdapters
from quinze.errors import InvalidRequestError, TooLargeError, UnsupportedModelError
from quinze.models.weights import Model

if TYPE_CHECKING:
    import torch

    from quinze.models.cached import KVCache

SPARE_BYTES = 2**29
"""On a GPU, for what a step computes with, and for PyTorch itself."""
CONTEXT_AT_LEAST = 8192
"""Tokens of context for which "auto" wants room behind the weights (less if the model reads less)."""


def device_for(model: Model, device: str) -> str:
    """ "cpu", "cuda" or "torch-cpu" for what was asked for. Raises InvalidRequestError where "cuda" is not to
    be had; "auto" takes the CPU then."""
    device_of(device)
    if device in ("cpu", TORCH_CPU):
        return device
    if device == "auto" and not (gpu_is_present() and torch_is_installed()):
        return "cpu"
    why = _why_not(model)
    if why is None:
        return "cuda"
    if device == "auto":
        return "cpu"
    raise InvalidRequestError(why, hint='Set device to "cpu", or to "auto".', param="device")


def open_engine(model: Model, device: str, *, kv_bytes: int | None = None, **options: Any) -> Engine:
    """An Engine with these options (engine.py) on a device that `device_for` gave: "cuda" or "torch-cpu".

    TooLargeError if its memory cannot hold the weights.
    """
    if model.config.num_experts:
        raise UnsupportedModelError(
            f"{model.config.name} is a mixture of experts; on a GPU Quinze runs none.",
            hint='Set device to "cpu".',
        )
    asked, most = options.get("context_length"), model.config.longest_context
    length = model.config.max_position_embeddings if asked is None else min(asked, most)
    decoder = TorchDecoder(model, "cuda" if device == "cuda" else "cpu", length)
    free = decoder.free_bytes() * 9 // 10 if device == "cuda" else None
    limits = [limit for limit in (kv_bytes, free) if limit is not None]
    return TorchEngine(model, decoder=decoder, kv_bytes=min(limits, default=None), **options)


class TorchEngine(Engine):
    """Closing it frees the device at once."""

    def close(self) -> None:
        decoder = self._decoder
        super().close()
        if isinstance(decoder, TorchDecoder):
            decoder.close()


def weight_bytes(model: Model, item: int = 2) -> int:
    """Of all weights on a GPU, dequantized to two bytes each, however few their file has."""
    return sum(int(np.prod(tensor.shape)) for tensor in model.tensors.values()) * item


def _why_not(model: Model) -> str | None:
    """Why a model cannot run on the GPU; None if it can."""
    config = model.config
    if config.num_experts:
        return f"{config.name} is a mixture of experts; on a GPU Quinze runs none."
    if not torch_is_installed():
        return "PyTorch is not installed, so nothing runs on a GPU: pip install 'quinze[train]'."
    try:
        import torch
    except (ImportError, OSError) as error:  # a library of CUDA's that is missing, or does not fit
        return f"PyTorch cannot be imported: {error}."
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU that it can use (torch.cuda.is_available() is False)."
    context = min(CONTEXT_AT_LEAST, config.max_position_embeddings)
    kept = 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * context
    needed, free = weight_bytes(model) + kept + SPARE_BYTES, torch.cuda.mem_get_info()[0]
    if needed > free:
        return (
            f"{config.name} needs {needed / 2**30:,.1f} GiB on the GPU, two bytes a weight and {context:,} "
            f"tokens of context; {free / 2**30:,.1f} GiB are free."
        )
    return None


def _narrow() -> torch.dtype:
    import torch

    # Old GPUs only pretend to have bfloat16, slowly.
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


class TorchDecoder:
    """native.Decoder in PyTorch: bfloat16 on a GPU (float16 where it has none), float32 on a CPU.

    Keys and values are kept in the same type. Whether ids are computed together or one by one is all the same
    here, so what a preempted reply computes again may differ in its last bits.
    """

    threads, kernels = 1, "torch"

    def __init__(
        self, model: Model, device: str, context_length: int, dtype: torch.dtype | None = None
    ) -> None:
        """dtype: of weights, keys and values; None: as above.

        TooLargeError if the device cannot hold the weights.
        """
        import torch

        from quinze.models.transformer import Transformer, each_folder_weight, folder_config

        self._torch, self._device = torch, torch.device(device)
        self._dtype = dtype or (torch.float32 if device == "cpu" else _narrow())
        self._lock = threading.Lock()
        self._caches: weakref.WeakSet[KVCache] = weakref.WeakSet()
        with torch.device("meta"):
            self._transformer = Transformer(folder_config(model.config), context_length).eval()
        try:
            self._transformer.load(
                {name: self._placed(name, array) for name, array in each_folder_weight(model)}
            )
            self._transformer.to(self._device)  # RoPE's frequencies
            self._adapters = TorchAdapters(self._transformer, model.config)
        except torch.OutOfMemoryError as error:
            raise TooLargeError(
                f"{model.config.name} needs {weight_bytes(model) / 2**30:,.1f} GiB on the GPU, two bytes a "
                "weight, and there are not so many free.",
                hint='Set device to "cpu", or close what else uses the GPU.',
            ) from error

    def _placed(self, name: str, array: npt.NDArray[np.float32]) -> torch.Tensor:
        # Norms stay wide: they cost nothing, and everything passes through them.
        dtype = self._torch.float32 if "norm" in name.split(".")[-2] else self._dtype
        return self._torch.from_numpy(array).to(self._device, dtype)

    def free_bytes(self) -> int:
        """Of the GPU, less what a step computes with."""
        free: int = self._torch.cuda.mem_get_info()[0]
        return max(0, free - SPARE_BYTES)

    # --- caches

    def cache(self, type: str = "f16") -> KVCache:  # noqa: A002, ARG002 (the field's own name)
        """`type` is for the C++ decoder: here it is that of the weights."""
        from quinze.models.cached import KVCache

        return self._known(KVCache(self._transformer.config, self._device, self._dtype))

    @property
    def cache_bytes(self) -> int:
        return sum(cache.bytes for cache in list(self._caches))

    def share(self, cache: native.Cache, length: int) -> KVCache:
        """A copy: caches are tensors here, and have no pages to share."""
        with self._lock, self._memory():
            return self._known(cast("KVCache", cache).copy(length))

    def truncate(self, cache: native.Cache, length: int) -> None:
        with self._lock:
            cast("KVCache", cache).length = length

    def _known(self, cache: KVCache) -> KVCache:
        self._caches.add(cache)
        return cache

    # --- steps

    def step(
        self, pieces: Sequence[native.Piece], cancelled: Callable[[], bool] | None = None
    ) -> list[native.Chosen] | None:
        """The ids of all pieces in one pass over the weights. Asked once, before it."""
        if cancelled is not None and cancelled():
            return None
        with self._lock, self._memory():
            ids = np.concatenate([piece[1] for piece in pieces])
            parts = [(cast("KVCache", piece[0]), len(piece[1])) for piece in pieces]
            hidden = self._append(parts, ids, [piece[6] for piece in pieces])
            ends = np.cumsum([len(piece[1]) for piece in pieces])
            wanted = [
                range(int(end) - 1 - piece[3], int(end))
                for end, piece in zip(ends, pieces, strict=True)
                if piece[4] is not None
            ]
            logits = self._logits(hidden, [row for rows in wanted for row in rows])
            return self._chosen(pieces, logits)

    def forward(
        self,
        cache: native.Cache,
        ids: native.Ids,
        cancelled: Callable[[], bool] | None = None,
        adapter: int = -1,
    ) -> bool:
        return sum(map(len, self._pieces(cache, ids, cancelled, adapter))) == len(ids)

    def forward_all(self, cache: native.Cache, ids: native.Ids, adapter: int = -1) -> native.Floats:
        pieces = self._pieces(cache, ids, adapter=adapter)
        return np.concatenate([self._logits(hidden, list(range(len(hidden)))) for hidden in pieces])

    def forward_hidden(
        self, cache: native.Cache, ids: native.Ids, cancelled: Callable[[], bool] | None = None
    ) -> native.Floats:
        found = [hidden.float().cpu().numpy() for hidden in self._pieces(cache, ids, cancelled)]
        whole = sum(map(len, found)) == len(ids)
        return np.concatenate(found) if whole else np.empty((0, self._transformer.config.hidden_size), "f4")

    def sample(
        self,
        cache: native.Cache,  # noqa: ARG002
        sampler: native.Sampler,  # noqa: ARG002
        mask: native.Mask | None = None,  # noqa: ARG002
    ) -> int:
        raise InvalidRequestError("On this device ids are chosen in steps only.")

    def _pieces(
        self,
        cache: native.Cache,
        ids: native.Ids,
        cancelled: Callable[[], bool] | None = None,
        adapter: int = -1,
    ) -> Iterator[torch.Tensor]:
        """(n, C) of STEP_TOKENS ids after the other. Nobody makes room here: TooLargeError."""
        for start in range(0, len(ids), STEP_TOKENS):
            if cancelled is not None and cancelled():
                return
            piece = ids[start : start + STEP_TOKENS]
            try:
                with self._lock, self._memory():
                    hidden = self._append([(cast("KVCache", cache), len(piece))], piece, [adapter])
            except MemoryError as error:
                raise TooLargeError(
                    f"There is no memory left on the GPU for {len(ids):,} tokens of context.",
                    hint='Shorten the text, or set device to "cpu".',
                ) from error
            yield hidden

    def _append(
        self, parts: list[tuple[KVCache, int]], ids: npt.NDArray[np.int32], adapters: list[int]
    ) -> torch.Tensor:
        """(N, C), the caches longer by their parts, each of which passes through an adapter or none (-1)."""
        from quinze.models.cached import Rows

        with self._torch.inference_mode():
            rows = Rows(parts, self._device)
            ends = np.cumsum([count for _, count in parts]).tolist()
            self._adapters.spans = list(zip([0, *ends[:-1]], ends, adapters, strict=True))
            given = self._torch.from_numpy(ids.astype(np.int64)).to(self._device)[None]
            hidden = self._transformer.hidden(given, cache=rows)[0]
            rows.keep()
            return hidden

    def _logits(self, hidden: torch.Tensor, rows: list[int]) -> native.Floats:
        """(len(rows), V), on the CPU."""
        if not rows:
            return np.empty((0, self._transformer.config.vocab_size), np.float32)
        with self._torch.inference_mode():
            logits = self._transformer.logits(hidden[rows])
            return cast(native.Floats, logits.float().cpu().numpy())

    def _chosen(self, pieces: Sequence[native.Piece], logits: native.Floats) -> list[native.Chosen]:
        found: list[native.Chosen] = []
        at = 0
        for cache, ids, _, guesses, sampler, mask, _ in pieces:
            if sampler is None:
                found.append(([], [], None))
                continue
            chosen = _choose(logits[at : at + guesses + 1], ids[len(ids) - guesses :], sampler, mask)
            # Wrong guesses are forgotten.
            cast("KVCache", cache).length -= guesses + 1 - max(1, len(chosen[0]))
            found.append(chosen)
            at += guesses + 1
        return found

    @contextlib.contextmanager
    def _memory(self) -> Iterator[None]:
        """The scheduler knows what to do about MemoryError (scheduler.py)."""
        try:
            yield
        except self._torch.OutOfMemoryError as error:
            self._torch.cuda.empty_cache()
            raise MemoryError(str(error)) from error

    # --- adapters

    def add_adapter(self, parts: Mapping[str, native.LowRank]) -> int:
        with self._lock, self._memory():
            return self._adapters.add(parts, self._device, self._dtype)

    def remove_adapter(self, adapter: int) -> None:
        """They stay as long as the model."""

    # --- the end, and what this decoder has not

    def close(self) -> None:
        """The device's memory is free again, whoever still holds this object."""
        with self._lock:
            self._adapters.clear()
            self._transformer.to("meta")
            for cache in list(self._caches):
                cache.clear()
            if self._device.type == "cuda":
                self._torch.cuda.empty_cache()

    def observe(self) -> None:
        raise UnsupportedModelError("What weights are multiplied with is observed on the CPU only.")

    def observed(self) -> dict[str, tuple[npt.NDArray[np.float64], int]]:
        return {}


def _choose(
    logits: native.Floats, guesses: native.Ids, sampler: native.Sampler, mask: native.Mask | None
) -> native.Chosen:
    """The ids that follow, as long as they were guessed, and the first that was not.

    logits (guesses + 1, V)
    """
    ids: list[int] = []
    logprobs: list[tuple[float, list[tuple[int, float]]]] = []
    for i, row in enumerate(logits):
        try:
            chosen = sampler.sample(row, mask)
        except ArithmeticError as error:
            return ids, logprobs, str(error)
        sampler.accept(chosen)
        ids.append(chosen)
        logprobs.append(sampler.logprobs())
        if i == len(guesses) or chosen != guesses[i]:
            break
    return ids, logprobs, None
