"""From a RunConfig to everything that a run consists of: data, model, method, optimizer.

Everything random in it comes from the run's seed, so that every process builds the same, and so does a
resumed run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch

from quinze.errors import InvalidRequestError
from quinze.models.config import ModelConfig
from quinze.models.transformer import Transformer
from quinze.models.weights import Model, load_model
from quinze.tokenizer.tokenizer import Tokenizer, load_tokenizer
from quinze.training.data.dataset import TokenData
from quinze.training.data.order import Batches
from quinze.training.data.workplace import tokenizer_sha256
from quinze.training.distributed import World, shard
from quinze.training.dpo import DpoConfig, frozen_copy
from quinze.training.lora import LoraConfig, apply_lora
from quinze.training.losses import Method, NextToken, Preferences
from quinze.training.optim import Optimizer, groups_of
from quinze.training.qlora import quantized_base
from quinze.training.run_config import ModelTable, RunConfig

KINDS = {"pretrain": ("text",), "sft": ("chat", "text"), "dpo": ("preference",)}
"""Which prepared data a method learns from."""
FREE = {"evaluation", "checkpoints", "runtime"}
"""Tables that may change when a run goes on."""


Table = TypeVar("Table", bound=msgspec.Struct)


@dataclass(slots=True)
class Parts:
    """A run, built."""

    config: RunConfig
    world: World
    data: TokenData
    batches: Batches
    transformer: Transformer
    method: Method
    optimizer: Optimizer
    lora: LoraConfig | None
    base: Model | None
    tokenizer: Tokenizer | None
    tokenizer_folder: Path | None

    @property
    def tokens_per_step(self) -> int:
        batch = self.config.batch
        return batch.rows * batch.micro_batches * self.world.size * self.data.manifest.sequence_length

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """What moves, by name."""
        return {name: p for name, p in self.transformer.named_parameters() if p.requires_grad}


def build(config: RunConfig, world: World) -> Parts:
    """config is resolved. InvalidRequestError where model, data and method do not belong together."""
    data = TokenData.open(Path(config.data.folder))
    _check_data(config, data, world)
    base = load_model(Path(config.model.base)) if config.model.base else None
    tokenizer, folder = _tokenizer(config, data)
    torch.manual_seed(config.seed)
    lora = _table(config.lora, LoraConfig, "lora")
    transformer = _transformer(config, data, base, lora)
    if lora is not None:
        apply_lora(transformer, lora)
    transformer.to(world.device)
    method = _method(config, transformer, lora)
    if config.runtime.sharding == "fsdp" and world.size > 1:
        shard(transformer)
    named = {name: p for name, p in transformer.named_parameters() if p.requires_grad}
    batch = config.batch
    batches = Batches(
        data, config.data.train, batch.rows, config.seed, world.rank, world.size, batch.micro_batches
    )
    optimizer = Optimizer(groups_of(named, config.optimizer))
    return Parts(config, world, data, batches, transformer, method, optimizer, lora, base, tokenizer, folder)


def new_config(table: ModelTable, vocab_size: int, sequence_length: int, name: str) -> ModelConfig:
    """The shape of Qwen 3 in these sizes: RMSNorm, RoPE, norms of queries and keys, SwiGLU, no bias."""
    return ModelConfig(
        name=name,
        vocab_size=vocab_size,
        hidden_size=table.hidden_size,
        intermediate_size=table.intermediate_size,
        num_hidden_layers=table.num_hidden_layers,
        num_attention_heads=table.num_attention_heads,
        num_key_value_heads=table.num_key_value_heads,
        head_dim=table.head_dim or table.hidden_size // table.num_attention_heads,
        max_position_embeddings=table.max_position_embeddings or sequence_length,
        rms_norm_eps=table.rms_norm_eps,
        rope_theta=table.rope_theta,
        rope_interleaved=False,
        tie_word_embeddings=table.tie_word_embeddings,
        architecture="qwen3",
        qk_norm="head",
    )


def identity(parts: Parts) -> dict[str, Any]:
    """What must be the same when a run goes on: settings, data, tokenizer, base."""
    settings = {key: value for key, value in msgspec.to_builtins(parts.config).items() if key not in FREE}
    # Where things lie may change, what they are may not.
    settings["data"] = {
        key: value for key, value in settings["data"].items() if key not in ("folder", "tokenizer")
    }
    settings["model"] = {key: value for key, value in settings["model"].items() if key != "base"}
    found: dict[str, Any] = {
        **settings,
        "data files": parts.data.manifest.files,
        "tokenizer": parts.data.manifest.tokenizer_sha256,
        "tokens per step": parts.tokens_per_step,
    }
    if parts.base is not None:
        found["base"] = digest(parts.base.checkpoint.path)
    # Processes may be more or fewer, as long as together they read the same rows.
    found["batch"] = None
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return plain


def digest(path: Path) -> str:
    """sha256 of a model's weight files, one after the other; about a second a gigabyte."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as open_:
            found.update(hashlib.file_digest(open_, "sha256").digest())
    return found.hexdigest()


def _check_data(config: RunConfig, data: TokenData, world: World) -> None:
    manifest = data.manifest
    if manifest.kind not in KINDS[config.method]:
        raise InvalidRequestError(
            f"{config.data.folder} holds {manifest.kind} data; {config.method} learns from "
            f"{' or '.join(KINDS[config.method])}.",
            hint=f"Prepare it as {KINDS[config.method][0]} data.",
            param="data.folder",
        )
    rows, wanted = data.rows(config.data.train), config.batch.rows * config.batch.micro_batches * world.size
    if rows < wanted:
        raise InvalidRequestError(
            f"A step reads {wanted:,} rows and there are {rows:,}.",
            hint="Take smaller batches, shorter rows, or more text.",
            param="batch.rows",
        )


def _tokenizer(config: RunConfig, data: TokenData) -> tuple[Tokenizer | None, Path | None]:
    path = config.data.tokenizer or config.model.base
    if path is None:
        return None, None
    folder = Path(path)
    tokenizer = load_tokenizer(folder)
    if tokenizer_sha256(tokenizer) != data.manifest.tokenizer_sha256:
        raise InvalidRequestError(
            f"{config.data.folder} was prepared with another tokenizer than that of {folder}.",
            hint="Prepare the data again with the tokenizer of the model.",
            param="data.tokenizer",
        )
    return tokenizer, folder if folder.is_dir() else folder.parent


def _transformer(
    config: RunConfig, data: TokenData, base: Model | None, lora: LoraConfig | None
) -> Transformer:
    length, vocabulary = data.manifest.sequence_length, data.manifest.vocab_size
    if base is None:
        made = Transformer(new_config(config.model, vocabulary, length, "model"))
        made.initialize(config.seed, config.model.initializer_range)
        return made
    if base.config.max_position_embeddings < length or base.config.vocab_size < vocabulary:
        raise InvalidRequestError(
            f"{base.config.name} reads {base.config.max_position_embeddings:,} tokens of "
            f"{base.config.vocab_size:,} kinds; the rows have {length:,} of {vocabulary:,}.",
            hint="Prepare the data for this model.",
            param="data.folder",
        )
    in_blocks = any(tensor.type.block > 1 for tensor in base.tensors.values())
    if lora is not None and lora.quantize != "none" and in_blocks:
        return quantized_base(base, length)
    return Transformer.of(base, length)


def _method(config: RunConfig, transformer: Transformer, lora: LoraConfig | None) -> Method:
    """A new method is one more line here, and its name in RunConfig."""
    if config.method == "dpo":
        reference = frozen_copy(transformer) if lora is None else None
        return Preferences(_table(config.dpo or {}, DpoConfig, "dpo") or DpoConfig(), reference)
    return NextToken()


def _table(values: dict[str, Any] | None, kind: type[Table], name: str) -> Table | None:
    if values is None:
        return None
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"[{name}] is not right: {error}.", param=name) from None
