"""Export: a run, an adapter or a model as what others read.

    export(Path("runs/bread"), Path("bread.gguf"), to="gguf", level="q8_0")

    hf        a Hugging Face folder; of an adapter: merged into its base
    adapter   PEFT's layout, also of what mlx-lm wrote
    merged    the same as hf, and refuses what has no adapter
    gguf      one file in a level of `quinze quantize`; an adapter is merged before anything is rounded

Merging happens in float32, whatever the base is stored in. What a level cannot give to a model's dimensions
is told beforehand (`forecast`). Knows nothing of the terminal.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from quinze.errors import ConflictError, FileFormatError, InvalidRequestError, UnsupportedModelError
from quinze.formats.checkpoint import TensorType
from quinze.formats.quants import Floats, decode, encode
from quinze.models.adapters import Adapter, LowRank, fitted, is_adapter, read_adapter, write_adapter
from quinze.models.names import gguf_name
from quinze.models.save import TOKENIZER_FILES, Dtype, base_config_of, save_model
from quinze.models.weights import Model, load_model
from quinze.quantization.levels import NARROW, Level, level, type_of
from quinze.quantization.quantize import Progress, planned, quantize
from quinze.quantization.source import Source, open_source
from quinze.quantization.vocabulary import vocabulary_keys
from quinze.tokenizer.tokenizer import load_tokenizer

Kind = Literal["hf", "adapter", "merged", "gguf"]
FINAL = "final"
"""Where a training run keeps what came out of it."""
DTYPES: dict[TensorType, Dtype] = {
    TensorType.F32: "float32", TensorType.F16: "float16", TensorType.BF16: "bfloat16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    to: Kind
    bytes: int
    notes: list[str]
    """What a user should know: fallbacks of a level, roundings, where the words came from."""
    rounded: str | None = None
    """To what the weights were rounded, by its name in LEVEL_BOUNDS; None: they are as they were trained."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A thing to export, found and opened."""

    path: Path
    """Of the model; of its base, where there is an adapter."""
    adapter: Adapter | None = None

    @property
    def words(self) -> Path:
        """Whose tokenizer and template count: those beside the adapter, if it brought any."""
        folder = self.adapter.path if self.adapter else None
        has = folder is not None and any((folder / name).is_file() for name in TOKENIZER_FILES)
        return folder if folder is not None and has else self.path


def resolve(source: Path, base: Path | None = None) -> Shipped:
    """A run's folder, an adapter, or a model. ModelNotFoundError, or FileFormatError for an adapter without
    its base."""
    if (source / FINAL).is_dir():
        source = source / FINAL
    if not is_adapter(source):
        if base is not None:
            raise InvalidRequestError(f"{source} is no adapter, so it has no base.", param="base")
        return Shipped(source)
    adapter = read_adapter(source)
    named = [base] if base is not None else [Path(adapter.base), source / adapter.base]
    found = next((path for path in named if str(path) not in ("", ".") and _exists(path)), None)
    if found is None or found == source:
        raise FileFormatError(
            f"The base of the adapter {source.name} is not here: {adapter.base or 'it names none'}.",
            hint="Name the base model's file or folder.",
            param="base",
        )
    return Shipped(found, adapter)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a stranger's words, too long for a name
        return False


def export(
    source: Path,
    out: Path,
    *,
    to: Kind,
    base: Path | None = None,
    level_name: str | None = None,
    dtype: Dtype | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write `source` to `out`, a folder or a .gguf file that must not be there yet.

    base        of an adapter, where its config does not say where it lies
    level_name  of a GGUF, such as "q8_0"; None: "f16"
    dtype       of a folder's weights; None: the base's own, float32 where that is quantized

    Raises ConflictError if `out` exists, and what reading and fitting raise.
    """
    if out.exists():
        raise ConflictError(f"{out} is there already.", hint="Give another name.", param="output")
    shipped = resolve(source, base)
    if to == "adapter":
        return _adapter(shipped, out)
    if to == "gguf":
        return _gguf(shipped, out, level(level_name or "f16"), progress)
    if to == "merged" and shipped.adapter is None:
        raise InvalidRequestError(f"{source} has no adapter to merge.", hint='Export it as "hf".', param="to")
    return _folder(shipped, out, dtype, to)


def merged_weights(model: Model, layers: dict[str, LowRank]) -> dict[str, Floats]:
    """Every tensor in float32, the adapter put in. `layers`: fitted to this model's file."""
    return {
        name: low.merged(decode(tensor))
        if (low := layers.get(name.removesuffix(".weight"))) is not None and name.endswith(".weight")
        else decode(tensor)
        for name, tensor in model.tensors.items()
    }


def forecast(source: Source, chosen: Level) -> list[str]:
    """What a level cannot give, in sentences: matrices whose rows are no whole blocks get larger types."""
    names = {tensor.name for tensor in source.tensors}
    tied = "output.weight" not in names
    weights = narrow = loose = 0
    widths: set[int] = set()
    for tensor, plan in zip(source.tensors, planned(source, chosen), strict=True):
        if len(tensor.shape) < 2:
            continue
        cols = tensor.shape[-1]
        weights += plan.count
        # What it would be if its rows were made of whole blocks.
        ideal = type_of(tensor.name, (*tensor.shape[:-1], 256), chosen, layers=source.layers, tied=tied)
        if plan.type is not ideal and ideal in (chosen.type, *NARROW):
            widths.add(cols)
            narrow += plan.count if plan.type is NARROW.get(ideal) else 0
            loose += plan.count if plan.type is TensorType.F16 else 0
    notes = []
    if narrow:
        notes.append(
            f"{narrow / weights:.0%} of the weights have rows that are no multiple of 256 "
            f"({_listed(widths)}): {chosen.name} stores them in larger types (q5_0, q5_1, q8_0)."
        )
    if loose:
        notes.append(
            f"{loose / weights:.0%} of the weights have rows that are no multiple of 32 ({_listed(widths)}): "
            "they stay in float16."
        )
    return notes


def _listed(widths: set[int]) -> str:
    return ", ".join(f"{width:,}" for width in sorted(widths))


def _adapter(shipped: Shipped, out: Path) -> Exported:
    if shipped.adapter is None:
        raise InvalidRequestError(
            f"{shipped.path} is a whole model, not an adapter.", hint='Export it as "hf".', param="to"
        )
    adapter = shipped.adapter
    fitted(adapter, load_model(shipped.path))
    write_adapter(out, adapter.layers, base=adapter.base, mark=adapter.mark)
    for name in TOKENIZER_FILES:
        if (adapter.path / name).is_file():
            shutil.copyfile(adapter.path / name, out / name)
    return Exported(out, "adapter", _size(out), [f"Its base is {adapter.base or shipped.path}."])


def _folder(shipped: Shipped, out: Path, dtype: Dtype | None, to: Kind) -> Exported:
    model = load_model(shipped.path)
    notes: list[str] = []
    chosen = dtype or DTYPES.get(_matrix_type(model), "float32")
    if _matrix_type(model) not in DTYPES:
        notes.append(
            f"The base is quantized ({_matrix_type(model).name}); its rounding stays in the weights."
        )
    if chosen != "float32" and shipped.adapter is not None:
        notes.append(f"Merged in float32 and rounded to {chosen} once, as the base is stored.")
    config, weights = _folder_weights(model, shipped.adapter)
    words = _words_folder(shipped)
    tokenizer = load_tokenizer(words)
    kept = base_config_of(shipped.path)
    ends = () if kept else tuple(sorted(tokenizer.stop_ids))
    save_model(
        out, config, weights, tokenizer=words, dtype=chosen, base_config=kept, bos_id=tokenizer.bos_id,
        eos_ids=ends,
    )  # fmt: skip
    changed = shipped.adapter is not None or DTYPES.get(_matrix_type(model)) != chosen
    sixteen = {"float16": "f16", "bfloat16": "bf16"}.get(chosen)
    return Exported(out, to, _size(out), notes, sixteen if changed else None)


def _folder_weights(model: Model, adapter: Adapter | None) -> tuple[Any, dict[str, Floats]]:
    """Config and weights as a folder has them."""
    if model.checkpoint.format == "safetensors":
        return model.config, merged_weights(model, fitted(adapter, model) if adapter else {})
    # The one who knows how other files' rows lie needs PyTorch.
    from quinze.models.transformer import folder_config, folder_weights

    layers = fitted(adapter, model, as_folder=True) if adapter else {}
    weights = folder_weights(model)
    for name, low in layers.items():
        weights[f"{name}.weight"] = low.merged(weights[f"{name}.weight"])
    return folder_config(model.config), weights


def _words_folder(shipped: Shipped) -> Path:
    words = shipped.words
    folder = words if words.is_dir() else words.parent
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise UnsupportedModelError(
            f"{words.name} has its tokenizer in a form that no folder has.",
            hint="Export it as GGUF, or put the model's tokenizer.json beside it.",
        )
    return folder


def _gguf(shipped: Shipped, out: Path, chosen: Level, progress: Progress | None) -> Exported:
    source = open_source(shipped.path)
    notes = forecast(source, chosen)
    before = sum(tensor.type.block > 1 for tensor in source.tensors)
    if shipped.adapter is not None:
        source = merged_source(source, shipped)
    done = quantize(source, chosen, out, progress=progress)
    if before and (done.rounded_twice or shipped.adapter is not None):
        notes.append(
            f"{before} matrices were quantized before, and their rounding stays in the weights. Export from "
            "the base's 16-bit weights if you have them."
        )
    return Exported(out, "gguf", done.bytes, notes, None if chosen.name == "f32" else chosen.name)


def merged_source(source: Source, shipped: Shipped) -> Source:
    """What is to be quantized, with the adapter in it: rounded once, after the merge."""
    assert shipped.adapter is not None
    model = load_model(shipped.path)
    layers = {
        gguf_name(f"{name}.weight", model.config): low for name, low in fitted(shipped.adapter, model).items()
    }
    missing = sorted(set(layers) - {tensor.name for tensor in source.tensors})
    if missing:
        raise UnsupportedModelError(
            f"{model.config.name} has {missing[0]} fused with others in its file, where an adapter cannot be "
            "merged.",
            hint="Merge into the base's Hugging Face folder, then export that.",
        )
    tensors = [
        tensor
        if (low := layers.get(tensor.name)) is None
        else encode(tensor.name, low.merged(decode(tensor)), TensorType.F32)
        for tensor in source.tensors
    ]
    metadata = dict(source.metadata)
    if shipped.words != shipped.path and model.checkpoint.format == "safetensors":
        metadata = {k: v for k, v in metadata.items() if not k.startswith("tokenizer.")}
        metadata |= vocabulary_keys(shipped.words, model.checkpoint, model.config.vocab_size)
    return replace(source, tensors=tensors, metadata=metadata)


def _matrix_type(model: Model) -> TensorType:
    """Of the first matrix of a layer."""
    return next(t.type for name, t in model.tensors.items() if "proj.weight" in name)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
