"""Adapters: what a LoRA folder holds, as PEFT and mlx-lm write it, and whether it belongs to a model.

    y = W x + scale * B (A x)            A (r, in), B (out, r); the base keeps its W

`read_adapter` gives the matrices as the folder has them, `fitted` those that a certain model can use: parted
where that model's are, its rows in that model's order. Knows neither torch nor the engine.
"""

from __future__ import annotations

import collections
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from quinze.errors import FileFormatError, UnsupportedModelError
from quinze.formats.checkpoint import Tensor, TensorType
from quinze.formats.json_file import read_json
from quinze.formats.quants import Floats, decode, encode
from quinze.formats.safetensors import read_safetensors, write_safetensors
from quinze.models.base_mark import BaseMark, check_base
from quinze.models.config import ModelConfig
from quinze.models.names import GPT2_NAMES, fused_rows, of_words
from quinze.models.shapes import shapes
from quinze.models.weights import Model
from quinze.paths import atomic_write

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MLX_WEIGHTS = "adapters.safetensors"
BASE = "quinze_base.json"
"""Beside PEFT's two files: of which base the adapter is, so that another one is refused."""
MAX_RANK = 4096


@dataclass(frozen=True, slots=True)
class LowRank:
    """What one linear layer adds."""

    a: Floats
    """(r, in)"""
    b: Floats
    """(out, r)"""
    scale: float
    magnitude: Floats | None = None
    """(out,) DoRA: the length of each row of the weights once they are merged; None: plain LoRA."""

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    def merged(self, weight: Floats) -> Floats:
        """The weight (out, in) with this put in."""
        full = weight + np.float32(self.scale) * (self.b @ self.a)
        if self.magnitude is None:
            return np.asarray(full, np.float32)
        length = np.linalg.norm(full, axis=1)
        return np.asarray(full * (self.magnitude / length)[:, None], np.float32)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA folder, read and checked."""

    path: Path
    layers: Mapping[str, LowRank]
    """By the name of the linear layer: "model.layers.0.self_attn.q_proj"."""
    base: str = ""
    """What the folder calls its base; only a name."""
    mark: BaseMark | None = None
    """Of the base it was trained on; None where its maker left none."""

    @property
    def parameters(self) -> int:
        return sum(low.a.size + low.b.size for low in self.layers.values())

    @property
    def bytes(self) -> int:
        return 4 * self.parameters


def is_adapter(path: Path) -> bool:
    """Whether the folder holds an adapter, and no whole model."""
    return path.is_dir() and (path / CONFIG).is_file() and not (path / "config.json").is_file()


def read_adapter(path: Path) -> Adapter:
    """A folder as PEFT or mlx-lm writes it. FileFormatError for a broken one, UnsupportedModelError for kinds
    that are more than LoRA."""
    if not (path / CONFIG).is_file():
        raise FileFormatError(
            f"{path} is no adapter: it has no {CONFIG}.",
            hint="An adapter is a folder with that file and its weights beside it.",
        )
    config = read_json(path / CONFIG)
    mlx = (path / MLX_WEIGHTS).is_file() and not (path / WEIGHTS).is_file()
    if not mlx and not (path / WEIGHTS).is_file():
        pickled = " only as a pickle, which runs its author's code" * (path / "adapter_model.bin").is_file()
        raise FileFormatError(
            f"{path} holds no {WEIGHTS}{pickled}.", hint="Ask for the safetensors of the adapter."
        )
    layers = _from_mlx(path, config) if mlx else _from_peft(path, config)
    if not layers:
        raise FileFormatError(f"{path} holds no LoRA matrices.", hint="It was saved before it was trained?")
    base = config.get("model" if mlx else "base_model_name_or_path")
    mark = BaseMark.read(path / BASE) if (path / BASE).is_file() else None
    return Adapter(path, layers, base if isinstance(base, str) else "", mark)


def write_adapter(
    folder: Path,
    layers: Mapping[str, LowRank],
    *,
    rslora: bool = False,
    dropout: float = 0.0,
    base: str = "",
    mark: BaseMark | None = None,
) -> None:
    """PEFT's layout; names and rows are Hugging Face's.

    rslora  says scale = alpha / sqrt(rank) in the config, instead of alpha / rank
    base    what the config calls the base: a hub's name, or a path
    mark    of the base, by which another one is refused later

    The config is written last, so that a folder which has one is whole.
    """
    if not layers:
        raise ValueError("an adapter without layers")
    tensors = []
    for name, low in layers.items():
        key = f"base_model.model.{name}"
        tensors.append(encode(f"{key}.lora_A.weight", low.a, TensorType.F32))
        tensors.append(encode(f"{key}.lora_B.weight", low.b, TensorType.F32))
        if low.magnitude is not None:
            tensors.append(encode(f"{key}.lora_magnitude_vector", low.magnitude, TensorType.F32))
    write_safetensors(folder / WEIGHTS, tensors)
    if mark is not None:
        mark.write(folder / BASE)
    ranks = {name: low.rank for name, low in layers.items()}
    alphas = {name: _alpha(low, rslora) for name, low in layers.items()}
    rank, alpha = _most(ranks.values()), _most(alphas.values())
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: each for name, each in ranks.items() if each != rank},
        "alpha_pattern": {name: each for name, each in alphas.items() if each != alpha},
        "use_rslora": rslora,
        "use_dora": any(low.magnitude is not None for low in layers.values()),
        "lora_dropout": dropout,
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
        "layers_to_transform": _some_layers(layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
    }
    with atomic_write(folder / CONFIG) as file:
        file.write(json.dumps(config, indent=2, ensure_ascii=False).encode())


def _alpha(low: LowRank, rslora: bool) -> float:
    """The alpha that gives this scale, without the last digits that a square root leaves."""
    return float(f"{low.scale * (math.sqrt(low.rank) if rslora else low.rank):.12g}")


def _most(values: Iterable[Any]) -> Any:
    return collections.Counter(values).most_common(1)[0][0]


def _some_layers(layers: Mapping[str, LowRank]) -> list[int] | None:
    """Where not every layer of the model has an adapter, which ones have: else PEFT makes fresh ones."""
    found = sorted({int(n[1]) for name in layers if (n := re.search(r"\.layers\.(\d+)\.", name))})
    return None if found == list(range(len(found))) else found


def fitted(adapter: Adapter, model: Model, *, as_folder: bool = False) -> dict[str, LowRank]:
    """What the adapter adds to each linear layer of this very model, rows in the order of the model's file.

    as_folder  rows in that of Hugging Face's folders, which transformer.py has whatever the file

    UnsupportedModelError if it was made for another: by the mark of its base, by names, or by shapes.
    """
    if adapter.mark is not None:
        check_base(adapter.mark, model, adapter.path.name)
    config = model.config
    wanted = shapes(config)
    found: dict[str, LowRank] = {}
    for given, low in adapter.layers.items():
        for name, part in _parted(_renamed(given, config), low, config).items():
            shape = wanted.get(f"{name}.weight")
            if shape is None or len(shape) != 2 or "embed" in name:
                raise _stranger(adapter, config, f"it changes {given[:120]}, which this model has not")
            if (part.b.shape[0], part.a.shape[1]) != shape:
                raise _stranger(
                    adapter, config,
                    f"its {given[:120]} is for {part.b.shape[0]:,} x {part.a.shape[1]:,} weights, "
                    f"this model's has {shape[0]:,} x {shape[1]:,}",
                )  # fmt: skip
            found[name] = part
    return found if as_folder else turned(found, config)


def turned(layers: Mapping[str, LowRank], config: ModelConfig) -> dict[str, LowRank]:
    """Rows of queries and keys in the order of the model's file, from that of Hugging Face.

    Llama's GGUF and llama2.c have the two numbers that RoPE turns together beside each other; folders have
    them half a head apart.
    """
    if not config.rope_interleaved:
        return dict(layers)

    def rows(x: Floats) -> Floats:
        heads = x.reshape(-1, config.head_dim, *x.shape[1:])
        half = config.rotated // 2
        pairs = np.stack([heads[:, :half], heads[:, half : 2 * half]], axis=2)  # (heads, half, 2, ...)
        beside = pairs.reshape(len(heads), 2 * half, *x.shape[1:])
        return np.ascontiguousarray(np.concatenate([beside, heads[:, 2 * half :]], axis=1).reshape(x.shape))

    return {
        name: replace(low, b=rows(low.b), magnitude=None if low.magnitude is None else rows(low.magnitude))
        if name.endswith((".q_proj", ".k_proj"))
        else low
        for name, low in layers.items()
    }


def _from_peft(path: Path, config: Mapping[str, Any]) -> dict[str, LowRank]:
    _refuse_more_than_lora(path, config)
    matrices: dict[str, dict[str, Floats]] = {}
    for name, tensor in read_safetensors(path / WEIGHTS).items():
        key = re.fullmatch(
            r"(?:base_model\.model\.)?(.+)\.lora_(A|B|magnitude_vector)(?:\.default)?(?:\.weight)?", name
        )
        if key is None:
            raise UnsupportedModelError(
                f"{path.name} holds {name[:120]}, which is no LoRA matrix of a linear layer.",
                hint="Merge it into its base with the tool that made it.",
            )
        matrices.setdefault(key[1], {})[key[2]] = _numbers(tensor, path)
    rank, alpha = _number(path, config, "r"), _number(path, config, "lora_alpha")
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, dict):
        raise FileFormatError(f"alpha_pattern of {path.name} is {alphas!r:.40}; it must be a table.")
    layers: dict[str, LowRank] = {}
    for name, parts in matrices.items():
        low = _low_rank(path, name, parts.get("A"), parts.get("B"), parts.get("magnitude_vector"))
        if low.rank != rank and not config.get("rank_pattern"):
            raise FileFormatError(
                f"{name[:120]} of {path.name} has the rank {low.rank}; {CONFIG} says {rank:g}."
            )
        mine = next((v for key, v in alphas.items() if name == key or name.endswith("." + key)), alpha)
        if not isinstance(mine, int | float) or not -1e6 < mine < 1e6:
            raise FileFormatError(f"alpha_pattern of {path.name} holds {mine!r:.40}.")
        by = math.sqrt(low.rank) if config.get("use_rslora") else low.rank
        layers[name] = replace(low, scale=float(mine) / by)
    if bool(config.get("use_dora")) != any(low.magnitude is not None for low in layers.values()):
        raise FileFormatError(f"{path.name} says use_dora in {CONFIG}, or holds magnitudes, but not both.")
    return layers


def _refuse_more_than_lora(path: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise UnsupportedModelError(f"{path.name} is an adapter of the kind {kind!r:.40}; Quinze runs LoRA.")
    for field, plain in (("bias", "none"), ("modules_to_save", None), ("layer_replication", None)):
        if config.get(field) not in (plain, None, [], ""):
            raise UnsupportedModelError(
                f"{path.name} is more than LoRA: its {CONFIG} has {field} = {config[field]!r:.80}.",
                hint="Merge it into its base with the tool that made it.",
            )


def _from_mlx(path: Path, config: Mapping[str, Any]) -> dict[str, LowRank]:
    """mlx-lm stores A (in, r) and B (r, out), and the factor itself."""
    kind = config.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise UnsupportedModelError(f"{path.name} is a {kind!r:.40} of mlx-lm; Quinze runs LoRA and DoRA.")
    settings = config.get("lora_parameters")
    scale = _number(path, settings if isinstance(settings, dict) else {}, "scale")
    matrices: dict[str, dict[str, Floats]] = {}
    for name, tensor in read_safetensors(path / MLX_WEIGHTS).items():
        stem, _, part = name.rpartition(".")
        if part not in ("lora_a", "lora_b", "m"):
            raise UnsupportedModelError(f"{path.name} holds {name[:120]}, which is no LoRA matrix.")
        matrices.setdefault(stem, {})[part] = _numbers(tensor, path)
    layers = {}
    for name, parts in matrices.items():
        a, b = parts.get("lora_a"), parts.get("lora_b")
        low = _low_rank(path, name, None if a is None else a.T, None if b is None else b.T, parts.get("m"))
        layers[name] = replace(low, scale=scale)
    return layers


def _low_rank(path: Path, name: str, a: Floats | None, b: Floats | None, magnitude: Floats | None) -> LowRank:
    if a is None or b is None:
        raise FileFormatError(f"{name[:120]} of {path.name} has only one of its two matrices.")
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or not 1 <= a.shape[0] <= MAX_RANK:
        raise FileFormatError(f"{name[:120]} of {path.name} has the shapes {a.shape} and {b.shape}.")
    if magnitude is not None and magnitude.size != b.shape[0]:
        raise FileFormatError(f"{name[:120]} of {path.name} has {magnitude.size:,} magnitudes.")
    flat = None if magnitude is None else magnitude.reshape(-1)
    return LowRank(np.ascontiguousarray(a), np.ascontiguousarray(b), 1.0, flat)


def _numbers(tensor: Tensor, path: Path) -> Floats:
    values = decode(tensor)
    if not np.isfinite(values).all():
        raise FileFormatError(f"{tensor.name[:120]} of {path.name} holds numbers that are NaN or infinite.")
    return values


def _number(path: Path, config: Mapping[str, Any], field: str) -> float:
    value = config.get(field)
    if not isinstance(value, int | float) or not -1e6 < value < 1e6:
        raise FileFormatError(f"{field} in {CONFIG} of {path.name} is {value!r:.40}; it must be a number.")
    return float(value)


def _renamed(name: str, config: ModelConfig) -> str:
    """Our name for a linear layer, from the one that its family has in transformers."""
    if config.architecture == "gpt2":
        found = re.fullmatch(r"(?:transformer\.)?h\.(\d{1,4})\.(.+)", name)
        if found and found[2] in GPT2_NAMES:
            return f"model.layers.{int(found[1])}.{GPT2_NAMES[found[2]]}"
    return of_words(name)


def _parted(name: str, low: LowRank, config: ModelConfig) -> dict[str, LowRank]:
    """A fused layer's as those of its parts: A is shared, B's rows are divided."""
    before, _, last = name.rpartition(".")
    before, _, block = before.rpartition(".")
    parts = fused_rows(config).get(f"{block}.{last}")
    if parts is None or low.b.shape[0] != sum(parts.values()):
        return {name: low}
    found, at = {}, 0
    for part, rows in parts.items():
        here = slice(at, at + rows)
        found[f"{before}.{part}"] = replace(
            low, b=low.b[here], magnitude=None if low.magnitude is None else low.magnitude[here]
        )
        at += rows
    return found


def _stranger(adapter: Adapter, config: ModelConfig, why: str) -> UnsupportedModelError:
    base = f" It says that its base is {adapter.base[:120]!r}." if adapter.base else ""
    return UnsupportedModelError(
        f"The adapter {adapter.path.name} was not made for {config.name}: {why}.{base}",
        hint="Name the base that it was trained on.",
    )


def digest(path: Path) -> str:
    """sha256 of an adapter's config and weights, in hex: two adapters of one digest add the same."""
    found = hashlib.sha256()
    for name in (CONFIG, WEIGHTS, MLX_WEIGHTS):
        if (path / name).is_file():
            with (path / name).open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
