"""LoRA: a frozen model with a small trainable product beside each of its linear layers (Hu et al. 2021).

    y = W x + scale * B (A x)     A (r, in) random, B (out, r) zero: at the start nothing is changed

    apply_lora(model, LoraConfig(rank=16))      every linear layer but the output head
    adapter_state(model)                        what is trained, and all that a checkpoint of it needs
    merge_lora(model)                           W becomes W + scale * B A; the model is an ordinary one again

rsLoRA scales by alpha / sqrt(r), so that a larger rank is not a smaller step (Kalajdzievski 2023). DoRA also
trains the length of each row (Liu et al. 2024). Works on any nn.Module with nn.Linear; knows no data.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quinze.errors import CheckpointError, InvalidRequestError
from quinze.models.adapters import LowRank
from quinze.training.quantized_linear import QuantizedLinear

HEADS = ("lm_head", "score")
"""Linear layers that "all" leaves out: the output head is large, and often the embedding itself."""


class LoraConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[lora]` table of a run."""

    rank: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 32
    alpha: Annotated[float, msgspec.Meta(gt=0)] = 16.0
    """What the adapter adds is multiplied by alpha / sqrt(rank), or by alpha / rank without rslora."""
    rslora: bool = True
    dora: bool = False
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of the inputs of A that are left out while training."""
    targets: Literal["all"] | list[str] = "all"
    """"all": every linear layer but the head; or the last parts of names: ["q_proj", "v_proj"]."""
    quantize: Literal["none", "q8_0", "q4_0", "q4_k"] = "none"
    """QLoRA: the frozen weights are kept in blocks of this type, and dequantized as they are used."""

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class LoraLinear(nn.Module):
    """A linear layer, frozen, and what is learned beside it."""

    def __init__(self, base: nn.Linear | QuantizedLinear, config: LoraConfig) -> None:
        super().__init__()
        self.base = base
        self.scale = config.scale
        self.enabled = True
        like = base.weight if isinstance(base, nn.Linear) else base.bias
        device = None if like is None else like.device
        self.lora_A = nn.Parameter(torch.empty(config.rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, config.rank, device=device))
        # As nn.Linear begins, and PEFT: uniform within 1 / sqrt(in).
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.magnitude: nn.Parameter | None = None
        if config.dora:
            with torch.no_grad():
                self.magnitude = nn.Parameter(self.weight().norm(dim=1))
        base.requires_grad_(False)
        self.train(base.training)

    @property
    def in_features(self) -> int:
        return self.base.in_features

    @property
    def out_features(self) -> int:
        return self.base.out_features

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        y: Tensor = self.base(x)
        if not self.enabled:
            return y
        low = F.linear(F.linear(self.dropout(x).to(self.lora_A.dtype), self.lora_A), self.lora_B) * self.scale
        if self.magnitude is None:
            return y + low.to(y.dtype)
        # Lengths are taken for constants in the gradient, as the paper proposes to save memory.
        with torch.no_grad():
            length = (self.weight() + self.scale * self.lora_B @ self.lora_A).norm(dim=1)
        share = self.magnitude / length  # (out,)
        bias = self.base.bias
        plain = y if bias is None else y - bias
        y = (share * (plain + low)).to(y.dtype)
        return y if bias is None else y + bias

    def weight(self) -> Tensor:
        """The frozen weight (out, in) in float32."""
        return self.base.weight.detach().float() if isinstance(self.base, nn.Linear) else self.base.dense()

    def merged_weight(self) -> Tensor:
        """(out, in) float32: what an ordinary linear layer needs to do the same."""
        with torch.no_grad():
            full = self.weight() + self.scale * self.lora_B.float() @ self.lora_A.float()
            if self.magnitude is not None:
                full = full * (self.magnitude.float() / full.norm(dim=1))[:, None]
            return full


def apply_lora(model: nn.Module, config: LoraConfig) -> None:
    """Freezes the model and puts a LoraLinear in the place of each targeted nn.Linear.

    InvalidRequestError where a target names no layer, or the model has an adapter already.
    """
    if any(isinstance(module, LoraLinear) for module in model.modules()):
        raise InvalidRequestError(
            "This model has an adapter already.", hint="Merge it, or take it off first."
        )
    targets = _targets(model, config)
    model.requires_grad_(False)
    for name, layer in targets.items():
        base = layer
        if config.quantize != "none" and isinstance(layer, nn.Linear):
            base = QuantizedLinear.of(layer, config.quantize, name)
        _put(model, name, LoraLinear(base, config))


def _targets(model: nn.Module, config: LoraConfig) -> dict[str, nn.Linear | QuantizedLinear]:
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | QuantizedLinear)}
    last = {name: name.rpartition(".")[2] for name in linear}
    wanted = set(last.values()) - set(HEADS) if config.targets == "all" else set(config.targets)
    missing = sorted(wanted - set(last.values()))
    if missing or not wanted:
        raise InvalidRequestError(
            f"The model has no linear layer named {missing[0] if missing else 'anything'}.",
            hint=f"There are: {', '.join(sorted(set(last.values())))}.",
            param="lora.targets",
        )
    return {name: layer for name, layer in linear.items() if last[name] in wanted}


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """Every layer that has an adapter, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


@contextlib.contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """Within the block the model is its base: the reference of DPO costs no second copy."""
    layers = list(lora_layers(model).values())
    before = [layer.enabled for layer in layers]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.enabled = was


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """What is trained, by its names in the model: a checkpoint holds these and no base."""
    return {
        f"{name}.{part}": value.detach()
        for name, layer in lora_layers(model).items()
        for part, value in layer.named_parameters(recurse=False)
    }


def load_adapter_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """The reverse. CheckpointError unless names and shapes are exactly those of the model."""
    mine = adapter_state(model)
    if set(mine) != set(state):
        other = sorted(set(mine) ^ set(state))
        raise CheckpointError(
            f"The adapter has {len(state):,} matrices, the model {len(mine):,}; "
            f"the first that differs is {other[0]}."
        )
    with torch.no_grad():
        for name, value in mine.items():
            if value.shape != state[name].shape:
                raise CheckpointError(
                    f"{name} is {tuple(state[name].shape)} in the adapter and {tuple(value.shape)} here.",
                    hint="Resume with the rank that the run began with.",
                )
            value.copy_(state[name])


def merge_lora(model: nn.Module) -> None:
    """Each LoraLinear becomes an nn.Linear that does the same; a quantized base becomes float32.

    Never into quantized blocks: four bits would round the tune away. Quantize the merged model afterwards,
    and let the ship certificate say what is left of it.
    """
    for name, layer in lora_layers(model).items():
        bias = layer.base.bias
        plain = nn.Linear(layer.in_features, layer.out_features, bias=bias is not None, device="meta")
        dtype = layer.base.weight.dtype if isinstance(layer.base, nn.Linear) else torch.float32
        plain.weight = nn.Parameter(layer.merged_weight().to(dtype))
        if bias is not None:
            plain.bias = nn.Parameter(bias.detach())
        _put(model, name, plain)
    model.requires_grad_(True)


def remove_lora(model: nn.Module) -> None:
    """The base again, as it was."""
    for name, layer in lora_layers(model).items():
        _put(model, name, layer.base)


def to_low_rank(model: nn.Module) -> dict[str, LowRank]:
    """The trained matrices in numpy, for `write_adapter`."""

    def plain(x: Tensor) -> np.ndarray:
        return np.ascontiguousarray(x.detach().float().cpu().numpy())

    return {
        name: LowRank(
            plain(layer.lora_A), plain(layer.lora_B), layer.scale,
            None if layer.magnitude is None else plain(layer.magnitude),
        )
        for name, layer in lora_layers(model).items()
    }  # fmt: skip


def apply_adapter(model: nn.Module, layers: Mapping[str, LowRank], *, dropout: float = 0.0) -> None:
    """An adapter that somebody trained, put on a model of its base.

    layers  from `models.adapters.fitted(adapter, model, as_folder=True)`

    To go on training, to merge, or to compare with what is served.
    """
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | QuantizedLinear)}
    strange = sorted(set(layers) - set(linear))
    if strange:
        raise InvalidRequestError(f"The model has no linear layer {strange[0]}.")
    model.requires_grad_(False)
    for name, low in layers.items():
        config = LoraConfig(
            rank=low.rank, alpha=abs(low.scale) * low.rank or 1.0, rslora=False, dropout=dropout,
            dora=low.magnitude is not None,
        )  # fmt: skip
        layer = LoraLinear(linear[name], config)
        layer.scale = low.scale
        with torch.no_grad():
            layer.lora_A.copy_(torch.from_numpy(low.a))
            layer.lora_B.copy_(torch.from_numpy(low.b))
            if layer.magnitude is not None and low.magnitude is not None:
                layer.magnitude.copy_(torch.from_numpy(low.magnitude))
        _put(model, name, layer)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
