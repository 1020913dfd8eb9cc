"""Keys and values kept between forward passes of transformer.py, and the rows that continue them.

Given the ids of several sequences behind one another, (1, N): embeddings, norms and products take them all
at once, and each sequence attends to its own cache. Torch is imported here: who may have none imports this
lazily.

    rows = Rows([(cache, 5), (another, 1)], device)
    hidden = transformer.hidden(ids, cache=rows)   # ids (1, 6)
    rows.keep()

N rows, H heads, K key/value heads, D head size, S positions of a cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quinze.models.config import ModelConfig

PAGE = 256
"""Positions by which a cache grows, or by an eighth of itself, if that is more."""


class KVCache:
    """The keys and values of one sequence: for each layer (2, K, S, D), of which `length` are in use."""

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        self._config, self._device, self._dtype = config, device, dtype
        self._room = 0
        self.length = 0
        self.layers: list[Tensor] = [self._empty(0) for _ in range(config.num_hidden_layers)]

    @property
    def bytes(self) -> int:
        return self._bytes(self._room)

    def missing(self, n: int) -> int:
        """Bytes that room for n more ids would take."""
        return self._bytes(self._grown(n)) - self.bytes

    def can_share(self, length: int) -> bool:
        """Whether another sequence may begin with the first `length` ids of this one."""
        return 0 <= length <= self.length

    def reserve(self, n: int) -> None:
        """Room for n more ids. torch.OutOfMemoryError leaves what is there as it was."""
        room = self._grown(n)
        if room > self._room:
            grown = [self._empty(room) for _ in self.layers]
            for new, old in zip(grown, self.layers, strict=True):
                new[:, :, : self.length] = old[:, :, : self.length]
            self.layers, self._room = grown, room

    def clear(self) -> None:
        """Give the memory back."""
        self.length = self._room = 0
        self.layers = [self._empty(0) for _ in self.layers]

    def copy(self, length: int) -> KVCache:
        """Another that begins with the first `length` ids of this one."""
        made = KVCache(self._config, self._device, self._dtype)
        made.reserve(length)
        for new, old in zip(made.layers, self.layers, strict=True):
            new[:, :, :length] = old[:, :, :length]
        made.length = length
        return made

    def _grown(self, n: int) -> int:
        if self.length + n <= self._room:
            return self._room
        least = max(self.length + n, self._room + self._room // 8)
        return -(-least // PAGE) * PAGE

    def _empty(self, room: int) -> Tensor:
        shape = (2, self._config.num_key_value_heads, room, self._config.head_dim)
        return torch.empty(shape, device=self._device, dtype=self._dtype)

    def _bytes(self, room: int) -> int:
        c = self._config
        return 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * room * self._dtype.itemsize


class Rows:
    """So many ids of each sequence, behind what its cache has."""

    def __init__(self, parts: list[tuple[KVCache, int]], device: torch.device) -> None:
        for cache, count in parts:
            cache.reserve(count)
        self._parts = parts
        places = [torch.arange(cache.length, cache.length + n, device=device) for cache, n in parts]
        self.positions = torch.cat(places)
        """(N,) each id's place in its own sequence."""
        self._masks: dict[tuple[int, int], tuple[int, Tensor]] = {}

    def keep(self) -> None:
        """What all layers have written counts from now on."""
        for cache, count in self._parts:
            cache.length += count

    def attend(
        self, layer: int, window: int, q: Tensor, k: Tensor, v: Tensor, scale: float, cap: float
    ) -> Tensor:
        """q (1, H, N, D), k and v (1, K, N, D), turned already. Returns (1, H, N, D)."""
        outs, at = [], 0
        for i, (cache, n) in enumerate(self._parts):
            held, end = cache.layers[layer], cache.length + n
            held[0, :, cache.length : end] = k[0, :, at : at + n]
            held[1, :, cache.length : end] = v[0, :, at : at + n]
            start, seen = self._seen(i, window)
            outs.append(_attend(q[0, :, at : at + n], held[:, :, start:end], seen, scale, cap))
            at += n
        return torch.cat(outs, dim=1)[None]

    def _seen(self, part: int, window: int) -> tuple[int, Tensor]:
        """The first position that any of a part's rows sees; and (n, S - start) True where one sees one."""
        if (part, window) not in self._masks:
            cache, n = self._parts[part]
            start = max(0, cache.length - window + 1) if window else 0
            place = torch.arange(start, cache.length + n, device=self.positions.device)
            behind = place[-n:, None] - place[None, :]
            seen = (behind >= 0) & (behind < window) if window else behind >= 0
            self._masks[part, window] = start, seen
        return self._masks[part, window]


def _attend(q: Tensor, kv: Tensor, seen: Tensor, scale: float, cap: float) -> Tensor:
    """q (H, n, D), kv (2, K, S, D), seen (n, S) -> (H, n, D). Heads that share keys count as further rows."""
    (H, n, D), K = q.shape, kv.shape[1]
    q, k, v = q.reshape(1, K, H // K * n, D), kv[:1], kv[1:]  # (1, K, ...)
    seen = seen.repeat(H // K, 1)
    if cap:
        scores = cap * torch.tanh((q @ k.transpose(-1, -2)) * (scale / cap))
        y = scores.masked_fill(~seen, -torch.inf).softmax(-1, dtype=torch.float32).to(v.dtype) @ v
    else:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    return y.reshape(H, n, D)
