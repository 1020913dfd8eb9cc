"""Adapters beside a transformer in PyTorch: what each adds to the products of the ids that carry its number.

Given a transformer and, before each pass, whose rows are which (`spans`); hooks on its linear layers do the
rest, and the weights stay as they are. Torch comes with the transformer that is given.

N rows of a pass, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quinze import native
from quinze.errors import UnsupportedModelError
from quinze.models.config import ModelConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Placed = tuple["Tensor", "Tensor", "Tensor | None"]
"""(A (R, cols), B (rows, R), share (rows,) of the layer's own product), on the device."""


class TorchAdapters:
    """Those of one transformer, by number. Loaded by any thread, used by one at a time."""

    def __init__(self, transformer: nn.Module, config: ModelConfig) -> None:
        """config: of the model's file, which says in what order the rows of an adapter come."""
        self._transformer, self._config = transformer, config
        self._hooked: set[str] = set()
        self._loaded: list[dict[str, Placed]] = []
        self.spans: list[tuple[int, int, int]] = []
        """(first row, last + 1, number) of the pass under way; -1 has no adapter."""

    def add(self, parts: Mapping[str, native.LowRank], device: torch.device, dtype: torch.dtype) -> int:
        """Its number. UnsupportedModelError where it changes what is no linear layer."""
        import torch

        layers = {
            f"{name}.weight": module
            for name, module in self._transformer.named_modules()
            if isinstance(module, torch.nn.Linear) and name != "lm_head"
        }
        strange = next((name for name in parts if name not in layers), None)
        if strange is not None:
            raise UnsupportedModelError(
                f"This adapter changes {strange}, which it cannot on a GPU.", hint='Set device to "cpu".'
            )
        found: dict[str, Placed] = {}
        for name, (a, b, share) in parts.items():
            arrays = (a, self._in_order(name, b), None if share is None else self._in_order(name, share))
            on_device = [None if x is None else torch.from_numpy(x).to(device, dtype) for x in arrays]
            assert on_device[0] is not None
            assert on_device[1] is not None
            found[name] = (on_device[0], on_device[1], on_device[2])
        for name in found.keys() - self._hooked:
            layers[name].register_forward_hook(self._hook(name))
            self._hooked.add(name)
        self._loaded.append(found)
        return len(self._loaded) - 1

    def clear(self) -> None:
        """Give their memory back: nothing will be computed any more."""
        self._loaded = []

    def _in_order(self, name: str, rows: native.Floats) -> native.Floats:
        """As the transformer has them; a GGUF has RoPE's pairs side by side."""
        from quinze.models.transformer import rows_apart

        turned = self._config.rope_interleaved and (".q_proj." in name or ".k_proj." in name)
        return rows_apart(rows, self._config) if turned else rows

    def _hook(self, name: str) -> Any:
        def added(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
            """given (1, N, cols), out (1, N, rows)"""
            for start, end, number in self.spans:
                placed = self._loaded[number].get(name) if number >= 0 else None
                if placed is None:
                    continue
                a, b, share = placed
                own, more = out[:, start:end], given[0][:, start:end] @ a.T @ b.T
                if share is not None:
                    bias: Any = 0 if layer.bias is None else layer.bias
                    own = (own - bias) * share + bias
                out[:, start:end] = own + more
            return out

        return added
