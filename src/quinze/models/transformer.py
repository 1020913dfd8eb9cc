"""The decoder in PyTorch, to be read and to be trained: every family, told apart by ModelConfig alone.

Given ids (B, T); returns logits (B, T, V). The C++ engine computes the same and is held to it by tests.
Modules and parameters bear the names of shapes.py, which are Hugging Face's (Llama's, where a family has
others), so a state_dict is a checkpoint as it is.

    transformer = Transformer.of(load_model(path))
    logits = transformer(ids)

B batch, T time, C hidden size, H heads, K key/value heads, D head size, R rotated numbers of a head, V
vocabulary. Besides training/ only this file and cached.py import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quinze.errors import UnsupportedModelError
from quinze.formats.quants import decode
from quinze.models.cached import Rows
from quinze.models.config import ModelConfig
from quinze.models.families import FAMILIES
from quinze.models.weights import Model

Seen = Tensor | Callable[[Tensor, Tensor, Tensor, float, float], Tensor] | None
"""What a token attends to: True in a mask (B or 1, 1, T, T); a cache's own attention; None: all before it."""


class Transformer(nn.Module):
    """Token ids in, logits out. Weights are uninitialized until `initialize` or `load`."""

    def __init__(self, config: ModelConfig, context_length: int | None = None) -> None:
        """context_length  granted to it, by which LongRoPE chooses its factors; None: all it was made for."""
        super().__init__()
        if config.num_experts:
            raise UnsupportedModelError(
                f"{config.name} is a mixture of experts, which Quinze runs and does not train.",
                hint="Train a model of one of the other families.",
            )
        self.config = config
        self.model = Stack(config, context_length or config.max_position_embeddings)
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        )

    @classmethod
    def of(cls, model: Model, context_length: int | None = None) -> Transformer:
        """With the weights of a Model, dequantized to float32 and laid out as Hugging Face's folders have
        them (a GGUF's are not)."""
        with torch.device("meta"):  # allocated once, by the weights themselves
            made = cls(folder_config(model.config), context_length)
        made.load({name: torch.from_numpy(array) for name, array in folder_weights(model).items()})
        return made

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take these tensors as they are, one for each parameter; a missing or strange name is an error."""
        self.load_state_dict(dict(weights), strict=True, assign=True)
        self.model.set_frequencies()

    def forward(self, ids: Tensor, segments: Tensor | None = None) -> Tensor:
        """ids (B, T) int64; segments (B, T): tokens see only their own, None: all before them.

        Returns logits (B, T, V).
        """
        return self.logits(self.hidden(ids, segments))

    def hidden(self, ids: Tensor, segments: Tensor | None = None, cache: Rows | None = None) -> Tensor:
        """(B, T, C), after the last norm: what the head reads. With `cache` (B = 1) the ids go on where its
        sequences end (cached.py)."""
        found: Tensor = self.model(ids, segments, cache)
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V)."""
        logits = F.linear(hidden, self.head())
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def head(self) -> Tensor:
        """(V, C) the matrix behind the logits: the embedding, where they are tied."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    @torch.no_grad()
    def initialize(self, seed: int, std: float = 0.02) -> None:
        """Random weights: normal, those that write into the residual stream smaller by sqrt(2 layers) so
        that its variance does not grow with depth (Radford et al. 2019); norms 1, biases 0."""
        generator = torch.Generator(device="cpu").manual_seed(seed)
        depth = math.sqrt(2 * self.config.num_hidden_layers)
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                is_norm = name.endswith("norm.weight")
                weight.fill_(1.0 - self.config.norm_offset if is_norm else 0.0)
                continue
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            drawn = torch.randn(weight.shape, generator=generator)
            weight.copy_(drawn * (std / depth if writes else std))


class Stack(nn.Module):
    """Embeddings, layers, last norm."""

    inv_freq: Tensor
    local_inv_freq: Tensor | None

    def __init__(self, config: ModelConfig, context_length: int) -> None:
        super().__init__()
        self.config, self.context_length = config, context_length
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.learned_positions:
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = Norm(config, config.hidden_size)
        self.set_frequencies()

    def set_frequencies(self) -> None:
        """RoPE's frequencies (R/2,), which follow from the config and are part of no checkpoint."""
        device = torch.device("cpu") if self._on_meta() else self.embed_tokens.weight.device
        plain, local = self.config.frequencies(self.context_length), self.config.local_frequencies()
        self.register_buffer("inv_freq", torch.tensor(plain, device=device), persistent=False)
        its = torch.tensor(local, device=device) if local else None
        self.register_buffer("local_inv_freq", its, persistent=False)

    def _on_meta(self) -> bool:
        return self.embed_tokens.weight.is_meta

    def forward(self, ids: Tensor, segments: Tensor | None = None, cache: Rows | None = None) -> Tensor:
        T = ids.shape[1]
        place = torch.arange(T, device=ids.device) if cache is None else cache.positions
        x = self.embed_tokens(ids)  # (B, T, C)
        if self.config.embedding_scale != 1.0:
            x = x * self.config.embedding_scale
        if self.config.learned_positions:
            x = x + self.embed_positions(places(ids, segments) if cache is None else place)
        turns = self._turns(self.inv_freq, place, self.config.rope_scale)
        local = turns if self.local_inv_freq is None else self._turns(self.local_inv_freq, place, 1.0)
        masks = {window: mask(T, window, segments, ids.device) for window in set(self._windows())}
        for i, (layer, window) in enumerate(zip(self.layers, self._windows(), strict=True)):
            seen = masks[window] if cache is None else partial(cache.attend, i, window)
            x = layer(x, local if window else turns, seen)
        found: Tensor = self.norm(x)
        return found

    def _windows(self) -> tuple[int, ...]:
        return self.config.windows or (0,) * self.config.num_hidden_layers

    def _turns(self, inv_freq: Tensor, place: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Cosines and sines (T, R/2) of these positions (T,), float32 whatever the weights are.

        RoPE knows only distances, so documents packed into one row need no positions of their own.
        """
        angles = torch.outer(place.float(), inv_freq.float())
        return angles.cos() * scale, angles.sin() * scale


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); norms before, behind, or both."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.pre, self.post = config.pre_norms, config.post_norms
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        size = config.hidden_size
        if self.pre:
            self.input_layernorm = Norm(config, size)
        self.post_attention_layernorm = Norm(config, size)  # before the MLP where none follows attention
        if self.post:
            if self.pre:
                self.pre_feedforward_layernorm = Norm(config, size)
            self.post_feedforward_layernorm = Norm(config, size)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], seen: Seen) -> Tensor:
        """x (B, T, C); seen (B or 1, 1, T, T) or None: all before; or what attends to a cache."""
        out = self.self_attn(self.input_layernorm(x) if self.pre else x, turns, seen)
        if not self.post:
            x = x + out
            return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]
        x = x + self.post_attention_layernorm(out)
        out = self.mlp(self.pre_feedforward_layernorm(x) if self.pre else x)
        return x + self.post_feedforward_layernorm(out)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Causal attention of H heads, each group of H / K sharing keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        C, D = config.hidden_size, config.head_dim
        queries, keys = config.num_attention_heads * D, config.num_key_value_heads * D
        self.q_proj = nn.Linear(C, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(C, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(C, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, C, bias=config.output_bias)
        if config.qk_norm != "none":
            each = config.qk_norm == "head"
            self.q_norm = Norm(config, D if each else queries)
            self.k_norm = Norm(config, D if each else keys)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], seen: Seen) -> Tensor:
        c = self.config
        B, T, _ = x.shape
        D, all_normed, each_normed = c.head_dim, c.qk_norm == "all", c.qk_norm == "head"
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if all_normed:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.view(B, T, -1, D) for y in (q, k, v))  # (B, T, H or K, D)
        if each_normed:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.transpose(1, 2) for y in (rotate(q, turns, c), rotate(k, turns, c), v))
        groups, scale = c.num_attention_heads // c.num_key_value_heads, c.attention_scale or D**-0.5
        if callable(seen) and not isinstance(seen, Tensor):
            y = seen(q, k, v, scale, c.attention_softcap)
        else:
            if groups > 1:
                k, v = (y.repeat_interleave(groups, dim=1) for y in (k, v))  # (B, H, T, D)
            y = attend(q, k, v, seen, scale, c.attention_softcap)
        out: Tensor = self.o_proj(y.transpose(1, 2).reshape(B, T, -1))
        return out


class MLP(nn.Module):
    """down(activation(gate(x)) * up(x)), or down(activation(up(x)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gelu, self.gated = config.activation == "gelu", config.gated
        if self.gated:
            self.gate_proj = nn.Linear(C, inner, bias=bias)
        self.up_proj = nn.Linear(C, inner, bias=bias)
        self.down_proj = nn.Linear(inner, C, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up_proj(x)
        bent = self.gate_proj(x) if self.gated else up
        bent = F.gelu(bent, approximate="tanh") if self.gelu else F.silu(bent)
        out: Tensor = self.down_proj(bent * up if self.gated else bent)
        return out


class Norm(nn.Module):
    """RMSNorm (Zhang & Sennrich 2019), or LayerNorm with its bias."""

    def __init__(self, config: ModelConfig, size: int) -> None:
        super().__init__()
        self.eps, self.offset = config.rms_norm_eps, config.norm_offset
        self.weight = nn.Parameter(torch.empty(size))
        self.bias = nn.Parameter(torch.empty(size)) if config.norm == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        # In the precision of the weights: float32 in training, also where autocast brings bfloat16.
        size, wide = self.weight.shape, x.to(self.weight.dtype)
        if self.bias is not None:
            return F.layer_norm(wide, size, self.weight, self.bias, self.eps).to(x.dtype)
        weight = self.weight + self.offset if self.offset else self.weight
        return rms_norm(wide, weight, self.eps).to(x.dtype)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last dimension; the same bits with and without a graph."""
    if x.device.type != "cpu":
        plain: Tensor = F.rms_norm(x, weight.shape, weight, eps)
        return plain
    found: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return found


class _RMSNorm(torch.autograd.Function):
    """The same with its gradient written out: on a CPU a third of the passes over memory that PyTorch takes,
    and of what it keeps only x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square()
        ctx.save_for_backward(x, weight, scale := (square / x.shape[-1] + eps).rsqrt())
        normed: Tensor = (x * scale).mul_(weight)
        return normed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        to_weight = grads[0] * normed
        along = (to_weight @ weight)[..., None] / x.shape[-1]  # the part that only lengthens x
        to_x = (grads[0] * weight).sub_(normed.mul_(along)).mul_(scale)
        return to_x, to_weight.flatten(0, -2).sum(0), None


def rotate(x: Tensor, turns: tuple[Tensor, Tensor], config: ModelConfig) -> Tensor:
    """RoPE: turn pairs of numbers by an angle that grows with the position. x (B, T, H, D), the same back.

    The pairs are (i, i + R/2) of the first R numbers, or neighbors (2i, 2i + 1).
    """
    R = config.rotated
    if not R:
        return x
    turning, rest = x[..., :R], x[..., R:]
    cos, sin = (y[:, None, :].to(x.dtype) for y in turns)  # (T, 1, R/2)
    if config.rope_interleaved:
        a, b = turning[..., ::2], turning[..., 1::2]
        turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        a, b = turning.chunk(2, dim=-1)
        turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return turned if config.head_dim == R else torch.cat((turned, rest), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, scale: float, cap: float) -> Tensor:
    """softmax(q k / scale) v over what each token sees. All (B, H, T, D)."""
    if not cap:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None, scale=scale)
    T = q.shape[-2]
    scores = cap * torch.tanh((q @ k.transpose(-1, -2)) * (scale / cap))  # (B, H, T, T)
    if seen is None:
        seen = torch.ones(T, T, dtype=torch.bool, device=q.device).tril()
    return scores.masked_fill(~seen, -torch.inf).softmax(-1, dtype=torch.float32).to(v.dtype) @ v


def mask(length: int, window: int, segments: Tensor | None, device: torch.device) -> Tensor | None:
    """True where the token of a row sees the one of a column: (B or 1, 1, T, T); None: simply all before."""
    narrow = 0 < window < length
    if segments is None and not narrow:
        return None
    place = torch.arange(length, device=device)
    behind = place[:, None] - place[None, :]  # (T, T)
    seen = (behind >= 0) & (behind < window) if narrow else behind >= 0
    if segments is None:
        return seen[None, None]
    return (seen & (segments[:, :, None] == segments[:, None, :]))[:, None]


def places(ids: Tensor, segments: Tensor | None) -> Tensor:
    """(B or 1, T) each token's place in its own document."""
    place = torch.arange(ids.shape[1], device=ids.device)[None]
    if segments is None:
        return place
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return place - torch.cummax(torch.where(starts, place, 0), dim=1).values


def folder_config(config: ModelConfig) -> ModelConfig:
    """As the model's Hugging Face folder would have it, whatever file it came from."""
    kind = FAMILIES.get(config.architecture)
    offset = float(kind.folder_traits.get("norm_offset", 0.0)) if kind else 0.0
    return replace(config, rope_interleaved=False, norm_offset=offset)


def folder_weights(model: Model) -> dict[str, np.ndarray]:
    """float32, as `folder_config` calls for: RoPE's pairs apart again where a GGUF has them side by side,
    norms without the 1 that a GGUF has added."""
    return dict(each_folder_weight(model))


def each_folder_weight(model: Model) -> Iterator[tuple[str, np.ndarray]]:
    """The same one after the other, for whoever has no memory for all of them in float32."""
    config = model.config
    less = folder_config(config).norm_offset - config.norm_offset
    for name, tensor in model.tensors.items():
        array = decode(tensor)
        if config.rope_interleaved and (".q_proj." in name or ".k_proj." in name):
            array = rows_apart(array, config)
        if less and name.endswith("norm.weight"):
            array = array - np.float32(less)
        yield name, np.array(array, dtype=np.float32)


def rows_apart(array: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Rows of a q_proj or k_proj, each head's from (R/2, 2) to (2, R/2)."""
    D, R = config.head_dim, config.rotated
    heads = array.reshape(-1, D, *array.shape[1:])
    turning = heads[:, :R].reshape(len(heads), R // 2, 2, *array.shape[1:]).swapaxes(1, 2)
    apart = np.concatenate([turning.reshape(len(heads), R, *array.shape[1:]), heads[:, R:]], axis=1)
    return np.ascontiguousarray(apart.reshape(array.shape))
