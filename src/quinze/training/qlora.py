"""QLoRA: a transformer whose linear layers lie in quantized blocks, to train an adapter beside them.

    transformer = quantized_base(load_model(Path("model-q4_k_m.gguf")))
    apply_lora(transformer, LoraConfig(rank=16))

From a GGUF the blocks stay in the mapped file (queries and keys of Llama's files are copied once, their rows
in another order); from 16- or 32-bit weights `LoraConfig.quantize` rounds them in memory. Norms, biases and
the embedding are float32 (Dettmers et al. 2023 keep them in 16 bits).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from quinze.formats.checkpoint import Tensor
from quinze.models.config import ModelConfig
from quinze.models.transformer import Transformer, folder_config, folder_weights
from quinze.models.weights import Model
from quinze.training.quantized_linear import QuantizedLinear


def quantized_base(model: Model, context_length: int | None = None) -> Transformer:
    """A frozen transformer over the file's own blocks: only adapters can be trained on it."""
    with torch.device("meta"):
        made = Transformer(folder_config(model.config), context_length)
    linear = {name for name, layer in made.named_modules() if isinstance(layer, nn.Linear)} - {"lm_head"}
    blocks = {f"{name}.weight" for name in linear}
    rest = replace(model, tensors={name: t for name, t in model.tensors.items() if name not in blocks})
    weights = {name: torch.from_numpy(array) for name, array in folder_weights(rest).items()}
    for name in linear:
        parent, _, last = name.rpartition(".")
        tensor = _in_folder_order(model.tensors[f"{name}.weight"], model.config)
        layer = QuantizedLinear(tensor, weights.get(f"{name}.bias"))
        setattr(made.get_submodule(parent), last, layer)
    made.load(weights)
    made.requires_grad_(False)
    return made


def _in_folder_order(tensor: Tensor, config: ModelConfig) -> Tensor:
    """Blocks never cross rows, so rows can be moved as bytes."""
    if not config.rope_interleaved or not tensor.name.endswith(("q_proj.weight", "k_proj.weight")):
        return tensor
    half, rows = config.rotated // 2, tensor.shape[0]
    heads = tensor.data.reshape(rows // config.head_dim, config.head_dim, -1)
    pairs = heads[:, : 2 * half].reshape(len(heads), half, 2, -1).swapaxes(1, 2)
    apart = np.concatenate([pairs.reshape(len(heads), 2 * half, -1), heads[:, 2 * half :]], axis=1)
    return replace(tensor, data=np.ascontiguousarray(apart).reshape(-1))
