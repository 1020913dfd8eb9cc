"""One file says what a training run shall be. Every default of training stands here.

    method = "pretrain"
    [data]
    folder = "shakespeare"
    [schedule]
    minutes = 90

`load_run_config` reads it, `resolved` fills in what depends on the method and the data, `to_toml` writes it
back. A key that nobody knows is refused by its name. Knows nothing of PyTorch.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from quinze.errors import InvalidRequestError, NotFoundError

Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(ge=0, le=10)]
Method = Literal["pretrain", "sft", "dpo"]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ModelTable(_Table, frozen=True, kw_only=True):
    """A new model in the shape of Qwen 3, which llama.cpp, vLLM and transformers run; or `base`."""

    base: str | None = None
    """A model to go on from: a Hugging Face folder or a GGUF. The sizes below are then its own."""
    hidden_size: Positive = 256
    intermediate_size: Positive = 768
    num_hidden_layers: Positive = 6
    num_attention_heads: Positive = 4
    num_key_value_heads: Positive = 4
    head_dim: Positive | None = None
    """None: hidden_size / num_attention_heads."""
    tie_word_embeddings: bool = True
    max_position_embeddings: Positive | None = None
    """None: as many as a row of the data has tokens."""
    rope_theta: Annotated[float, Meta(ge=1)] = 10_000.0
    rms_norm_eps: Annotated[float, Meta(gt=0)] = 1e-6
    initializer_range: Annotated[float, Meta(gt=0)] = 0.02


class DataTable(_Table, frozen=True, kw_only=True):
    folder: str
    """Prepared data (`quinze data`)."""
    tokenizer: str | None = None
    """A folder with tokenizer.json, copied beside the model; None: the base's."""
    train: str = "train"
    validation: str = "val"


class BatchTable(_Table, frozen=True, kw_only=True):
    rows: Positive = 16
    """Of one process at one time: what memory allows. Of pairs both rows count."""
    micro_batches: Positive = 1
    """So many are added up before the weights move; the result is that of the large batch."""


class OptimizerTable(_Table, frozen=True, kw_only=True):
    """Rates are peaks; the schedule multiplies them."""

    kind: Literal["muon", "adamw"] | None = None
    """"muon": of the layers' matrices, AdamW of all else. None: muon to pretrain all weights, else adamw."""
    lr: Rate | None = None
    """Of AdamW. None: 3e-3 to pretrain, 2e-5 for sft, 5e-7 for dpo; ten times that of an adapter."""
    muon_lr: Rate = 0.02
    muon_momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.95
    betas: tuple[float, float] = (0.9, 0.95)
    eps: Annotated[float, Meta(gt=0)] = 1e-10
    weight_decay: Share = 0.0
    """Of matrices; vectors and embeddings never decay."""
    clip: Annotated[float, Meta(gt=0)] | None = None
    """Gradients longer than this are shortened to it; None: measured only."""


class ScheduleTable(_Table, frozen=True, kw_only=True):
    """One of minutes, tokens and steps. Shares are of the whole run."""

    minutes: Annotated[float, Meta(gt=0)] | None = None
    """A deadline: the run ends on time, its rate decayed, evaluations and checkpoints included."""
    tokens: Positive | None = None
    steps: Positive | None = None
    kind: Literal["wsd", "cosine"] = "wsd"
    """"wsd": warm up, stay, then fall in a straight line."""
    warmup: Share = 0.02
    decay: Share = 0.6
    """Of wsd: the share at the end in which the rate falls."""
    final: Share = 0.0
    """Of the peak, at the end."""


class EvaluationTable(_Table, frozen=True, kw_only=True):
    times: Positive = 20
    """Evaluations in the whole run, evenly spread; one more before the first step."""
    rows: Positive | None = 1024
    """Validation rows that are read, evenly spread; None: all."""
    share: Annotated[float, Meta(gt=0, le=1)] = 0.1
    """With a deadline: of its time, at most, for evaluations; fewer rows are read to keep to it."""
    prompts: tuple[str, ...] = ()
    """Continued at each evaluation."""
    sample_tokens: Positive = 64
    temperature: Annotated[float, Meta(ge=0)] = 0.0


class CheckpointTable(_Table, frozen=True, kw_only=True):
    minutes: Annotated[float, Meta(gt=0)] | None = 10.0
    """Between two of them."""
    steps: Positive | None = None
    keep: Annotated[int, Meta(ge=2)] = 2
    """The last ones; the best and the last healthy one are kept besides."""


class RuntimeTable(_Table, frozen=True, kw_only=True):
    device: str = "auto"
    """"auto": CUDA where there is one, else the CPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of products; weights and moments are float32. "auto": bfloat16 on CUDA."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile. "auto": tried where the run is longer than ten minutes, kept if it is faster."""
    deterministic: bool = False
    """The same bytes every time on one machine with as many threads; nothing is tried by its speed."""
    threads: Positive | None = None
    """None: PyTorch's own choice."""
    sharding: Literal["none", "fsdp"] = "none"
    """With several processes: whether each holds all weights and moments, or its part."""


class RunConfig(_Table, frozen=True, kw_only=True):
    """A whole run. `lora` and `dpo` are the tables of training/lora.py and training/dpo.py."""

    method: Method = "pretrain"
    seed: int = 15
    data: DataTable
    model: ModelTable = ModelTable()
    batch: BatchTable = BatchTable()
    optimizer: OptimizerTable = OptimizerTable()
    schedule: ScheduleTable = ScheduleTable()
    evaluation: EvaluationTable = EvaluationTable()
    checkpoints: CheckpointTable = CheckpointTable()
    runtime: RuntimeTable = RuntimeTable()
    lora: dict[str, Any] | None = None
    """An adapter is trained, and the base is left as it is."""
    dpo: dict[str, Any] | None = None

    def resolved(self) -> RunConfig:
        """With everything said that the method decides. InvalidRequestError for what cannot be together."""
        _check(self)
        optimizer = self.optimizer
        full = self.lora is None
        kind = optimizer.kind or ("muon" if self.method == "pretrain" and full else "adamw")
        lr = optimizer.lr
        if lr is None:
            lr = _RATES[self.method] * (1.0 if full or self.method == "pretrain" else 10.0)
        schedule = self.schedule
        if (schedule.minutes, schedule.tokens, schedule.steps) == (None, None, None):
            schedule = msgspec.structs.replace(schedule, minutes=60.0)
        chosen = msgspec.structs.replace(optimizer, kind=kind, lr=lr)
        return msgspec.structs.replace(self, optimizer=chosen, schedule=schedule)


_RATES = {"pretrain": 3e-3, "sft": 2e-5, "dpo": 5e-7}


def _check(config: RunConfig) -> None:
    schedule, model = config.schedule, config.model
    lengths = [name for name in ("minutes", "tokens", "steps") if getattr(schedule, name) is not None]
    if len(lengths) > 1:
        raise InvalidRequestError(
            f"The schedule has {' and '.join(lengths)}; a run has one length.", param="schedule"
        )
    if schedule.kind == "wsd" and schedule.warmup + schedule.decay > 1:
        raise InvalidRequestError(
            f"Warming up takes {schedule.warmup:.0%} of the run and the decay {schedule.decay:.0%}: "
            "more than the whole.",
            param="schedule.decay",
        )
    if config.method == "dpo" and model.base is None:
        raise InvalidRequestError(
            "Preferences are taught to a model that can speak already.", hint="Name it: [model] base."
        )
    if config.lora is not None and model.base is None:
        raise InvalidRequestError("An adapter needs a base.", hint="Name it: [model] base.")
    if model.base is None:
        head = model.head_dim or model.hidden_size // model.num_attention_heads
        if model.head_dim is None and model.hidden_size % model.num_attention_heads:
            raise InvalidRequestError(
                f"{model.num_attention_heads} heads cannot share {model.hidden_size} numbers evenly.",
                param="model.num_attention_heads",
            )
        if head % 2:
            raise InvalidRequestError(f"RoPE needs an even head_dim; this is {head}.", param="model.head_dim")


def load_run_config(path: Path) -> RunConfig:
    """From a TOML file. Paths in it are relative to it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"There is no {path}.", hint="Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise InvalidRequestError(f"{path} cannot be read as TOML: {error}.") from None
    return run_config(anchored(table, path.parent), str(path))


def run_config(table: Mapping[str, Any], name: str = "The run") -> RunConfig:
    """From plain data; `name` stands in errors."""
    _refuse_unknown(table, RunConfig, "", name)
    try:
        return msgspec.convert(table, RunConfig)
    except msgspec.ValidationError as error:
        said = str(error).replace("Object missing required field", "it lacks the field")
        raise InvalidRequestError(f"{name} is not right: {said}.") from None


def anchored(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths that are not absolute begin where the file lies."""
    found = dict(table)
    for section, keys in (("data", ("folder", "tokenizer")), ("model", ("base",))):
        part = found.get(section)
        if isinstance(part, dict):
            found[section] = {
                key: str((folder / value).resolve()) if key in keys and isinstance(value, str) else value
                for key, value in part.items()
            }
    return found


def _refuse_unknown(table: Mapping[str, Any], kind: type[msgspec.Struct], prefix: str, name: str) -> None:
    known = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            raise InvalidRequestError(
                f"{name} has {prefix}{key}, which is no setting.",
                hint=f"Did you mean {prefix}{near[0]}?" if near else f"There are: {', '.join(known)}.",
                param=prefix + key,
            )
        inner = known[key]
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, _Table):
            _refuse_unknown(value, inner, f"{prefix}{key}.", name)


def to_toml(config: RunConfig) -> str:
    """Everything that is not None, defaults too: what was run stays known when defaults change."""
    plain = msgspec.to_builtins(config)
    lines = [f"{key} = {_value(value)}" for key, value in plain.items() if not _is_table(value)]
    for key, table in plain.items():
        if isinstance(table, dict):
            lines += ["", f"[{key}]"]
            lines += [f"{name} = {_value(value)}" for name, value in table.items() if value is not None]
    return "\n".join(lines) + "\n"


def _is_table(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _value(value: Any) -> str:
    """JSON's texts, numbers, booleans and lists are TOML's too, but for floats, which are alike."""
    return json.dumps(value, ensure_ascii=False)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """ "optimizer.lr: 0.003 -> 0.01", one for each setting that is not the same."""
    found: list[str] = []
    for key in sorted(set(old) | set(new)):
        was, is_ = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(is_, dict):
            found += differences(was, is_, f"{prefix}{key}.")
        elif was != is_:
            found.append(f"{prefix}{key}: {was!r} -> {is_!r}")
    return found
