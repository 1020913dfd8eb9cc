"""Levels of quantization: which tensor of a model gets which type.

A level is a name that people know from GGUF files, such as q4_k_m: a type for most matrices, and better ones
where errors hurt most (the output head, the values of attention, the way down of the feed-forward part). The
choices are those of llama.cpp's files, so that ours have their sizes. Knows GGUF's names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from quinze.errors import InvalidRequestError
from quinze.formats.checkpoint import TensorType

F32, F16, Q8_0 = TensorType.F32, TensorType.F16, TensorType.Q8_0
Q2_K, Q3_K = TensorType.Q2_K, TensorType.Q3_K
Q4_K, Q5_K, Q6_K = TensorType.Q4_K, TensorType.Q5_K, TensorType.Q6_K


@dataclass(frozen=True, slots=True)
class Level:
    """One row of the table below."""

    name: str
    type: TensorType
    """Of most matrices."""
    number: int
    """What GGUF calls it, in general.file_type."""
    head: TensorType | None = None
    """Of the output head, or of the embedding where it is the head too; None: as the rest."""
    more: TensorType | None = None
    """Of attn_v and ffn_down in the layers that need more bits, and of a fused attn_qkv."""
    start: TensorType | None = None
    """Of attn_v in the first four layers, and ffn_down in the first eighth of them."""
    parts: Mapping[str, TensorType] = field(default_factory=dict)
    """Of these parts in all layers, where `more` says nothing."""


LEVELS: Mapping[str, Level] = {
    level.name: level
    for level in (
        Level("f32", F32, 0),
        Level("f16", F16, 1),
        Level("bf16", TensorType.BF16, 32),
        Level("q8_0", Q8_0, 7),
        Level("q6_k", Q6_K, 18),
        Level("q5_k_m", Q5_K, 17, head=Q6_K, more=Q6_K),
        Level("q5_k_s", Q5_K, 16, head=Q6_K),
        Level("q5_1", TensorType.Q5_1, 9, head=Q6_K),
        Level("q5_0", TensorType.Q5_0, 8, head=Q6_K),
        Level("q4_k_m", Q4_K, 15, head=Q6_K, more=Q6_K),
        Level("q4_k_s", Q4_K, 14, head=Q6_K, start=Q5_K),
        Level("q4_1", TensorType.Q4_1, 3, head=Q6_K),
        Level("q4_0", TensorType.Q4_0, 2, head=Q6_K),
        Level("q3_k_m", Q3_K, 12, head=Q6_K, more=Q4_K, parts={"attn_v": Q4_K, "attn_output": Q4_K}),
        Level("q3_k_s", Q3_K, 11, head=Q6_K),
        Level("q2_k", Q2_K, 10, head=Q6_K, parts={"attn_v": Q4_K, "attn_output": Q3_K, "ffn_down": Q3_K}),
    )
}
"""From the largest to the smallest."""
ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}
NARROW = {
    Q2_K: TensorType.Q4_0,
    Q3_K: TensorType.Q4_0,
    Q4_K: TensorType.Q5_0,
    Q5_K: TensorType.Q5_1,
    Q6_K: Q8_0,
}
"""What stands in where the columns are not whole blocks of 256."""


def level(name: str) -> Level:
    """The level of a name, in any case; InvalidRequestError lists those that there are."""
    found = LEVELS.get(ALIASES.get(name.lower(), name.lower()))
    if found is None:
        raise InvalidRequestError(
            f"There is no quantization level {name!r:.40}.", hint=f"There are: {', '.join(LEVELS)}."
        )
    return found


def type_of(
    name: str, shape: tuple[int, ...], chosen: Level, *, layers: int, tied: bool, pure: bool = False
) -> TensorType:
    """The type of one tensor. `tied`: the embedding is the output head too. `pure`: all matrices alike."""
    if not _is_matrix(name, shape):
        return F32
    kind = chosen.type if pure else _mixed(name, chosen, layers, tied)
    if kind.block > 32 and shape[-1] % kind.block:
        kind = NARROW[kind]
    return F16 if shape[-1] % kind.block else kind


def needs_more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Vectors stay exact, and so do positions and the choice of experts: they are small and matter much."""
    kept = ("position_embd.weight", "token_types.weight")
    return len(shape) > 1 and name.endswith(".weight") and name not in kept and "ffn_gate_inp" not in name


def _mixed(name: str, chosen: Level, layers: int, tied: bool) -> TensorType:
    if chosen.head is not None and name == ("token_embd.weight" if tied else "output.weight"):
        return chosen.head
    found = re.fullmatch(r"blk\.(\d+)\.(attn_v|attn_qkv|attn_output|ffn_down|ffn_down_exps)\.weight", name)
    if not found:
        return chosen.type
    layer, part = int(found[1]), found[2]
    usual = chosen.parts.get(part.removesuffix("_exps"), chosen.type)
    if part == "attn_output":
        return usual
    if chosen.more is not None:
        if part == "attn_qkv":
            # Queries and keys lie with the values here: one step better for all of them.
            return Q5_K if chosen.type is Q4_K else chosen.more
        return chosen.more if needs_more_bits(layer, layers) else usual
    first = 4 if part == "attn_v" else layers // 8
    if chosen.start is not None and part != "attn_qkv" and layer < first:
        return chosen.start
    return usual
