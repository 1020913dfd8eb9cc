"""The tensors of mixtures of experts: one name for each matrix of each expert, whatever the file has.

GGUF stacks the experts of a layer, (E, rows, cols); Mixtral's folders have names of their own. Given names or
tensors; returns Llama's way of naming, as Qwen 3 has it: mlp.gate is the router. Copies nothing.
"""

from __future__ import annotations

import re
from dataclasses import replace

from quinze.errors import FileFormatError
from quinze.formats.checkpoint import Tensor
from quinze.models.config import ModelConfig

GGUF_EXPERT_NAMES = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
MIXTRAL_NAMES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def of_gguf(stem: str) -> str | None:
    """
    >>> of_gguf("ffn_gate_exps"), of_gguf("ffn_up.3")
    ('mlp.experts.gate_proj', 'mlp.experts.3.up_proj')
    """
    # Mixtral's first files have the experts one by one.
    one = re.fullmatch(r"ffn_(gate|up|down)\.(\d{1,4})", stem)
    return f"mlp.experts.{int(one[2])}.{one[1]}_proj" if one else GGUF_EXPERT_NAMES.get(stem)


def of_mixtral(name: str) -> str:
    """Of a folder; names of other families stay."""
    found = re.fullmatch(r"(.+)\.block_sparse_moe\.(gate|experts\.\d{1,4}\.(w[123]))\.weight", name)
    if found is None:
        return name
    rest = found[2].removesuffix(found[3]) + MIXTRAL_NAMES[found[3]] if found[3] else found[2]
    return f"{found[1]}.mlp.{rest}.weight"


def experts_apart(tensor: Tensor, config: ModelConfig) -> dict[str, Tensor] | None:
    """A stack as its matrices, and the shared expert's gate as a matrix of one row; None for the rest."""
    before, stacked, after = tensor.name.partition(".mlp.experts.")
    if tensor.name.endswith(".mlp.shared_expert_gate.weight") and len(tensor.shape) == 1:
        return {tensor.name: replace(tensor, shape=(1, *tensor.shape))}
    if not stacked or len(tensor.shape) != 3:
        return None
    count = config.num_experts
    if tensor.shape[0] != count:
        raise FileFormatError(
            f"{tensor.name[:120]} of {config.name} has {tensor.shape[0]:,} experts; "
            f"its configuration calls for {count:,}."
        )
    size = len(tensor.data) // count
    found: dict[str, Tensor] = {}
    for i in range(count):
        name = f"{before}.mlp.experts.{i}.{after}"
        data = tensor.data[i * size : (i + 1) * size]
        found[name] = replace(tensor, name=name, shape=tensor.shape[1:], data=data)
    return found
