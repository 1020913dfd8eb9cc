"""Fit: whether a model runs on this machine, with how long a context and how fast, said before it is loaded.

Given a model's name or path, and the home folder, where the measured profile of the machine is kept; returns
numbers and a sentence. Loads no weights: their sizes stand in the file's header.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from quinze.engine.fit import Memory, Parameters, Speed
from quinze.errors import InvalidRequestError
from quinze.paths import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quinze.engine.profile import Profile
    from quinze.formats.checkpoint import TensorType
    from quinze.models.weights import Model
    from quinze.quantization.levels import Level
    from quinze.service.service import Service

PROFILE_FILE = "machine.json"
TOKEN_BYTES = 800
"""Memory that a tokenizer takes for each token of its vocabulary, about."""
RESERVE = 0.05
"""Share of the free memory that is left to the rest of the system."""
LEVELS = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0")
"""The levels of `quinze quantize` that are proposed, from the largest on."""

Verdict = Literal["fits", "shorter_context", "too_large"]


class Alternative(msgspec.Struct, frozen=True):
    """The same model with fewer bits a weight."""

    level: str
    bytes: int
    """Of its file, about."""
    total: int
    """Memory that it takes with the same context."""
    fits: bool


class Fit(msgspec.Struct, frozen=True):
    """Everything that is known of a model on this machine before it is loaded. Bytes, tokens a second."""

    name: str
    path: str
    verdict: Verdict
    words: str
    parameters: Parameters
    bits_per_weight: float
    context: int
    """Tokens for which `memory` is told."""
    context_limit: int
    """Tokens that the model was made for."""
    largest_context: int
    """Tokens that fit into the free memory; 0 if the model does not fit at all."""
    memory: Memory
    kv_bytes_per_token: int
    free: int
    """Memory that programs can still have."""
    threads: int
    speed: Speed | None
    """None where it was not asked for."""
    processor: str
    alternative: Alternative | None
    """The largest smaller form that fits, where this one does not; the smallest, where none does."""


def fit(
    service: Service,
    name_or_path: str | Path,
    *,
    context: int | None = None,
    with_speed: bool = True,
    measure: bool = False,
) -> Fit:
    """context  tokens; None: those that the model would be granted. measure: not from the kept profile."""
    from quinze.engine import fit as engine
    from quinze.models.weights import load_model

    path = service.models.path_of(name_or_path)
    model = load_model(path)
    limit, usual = model.config.longest_context, model.config.max_position_embeddings
    granted = min(limit, service.settings.context_length or usual)
    if context is not None and not 1 <= context <= limit:
        raise InvalidRequestError(
            f"The context is {context:,}; {model.config.name} reads at most {limit:,} tokens.",
            param="context",
        )
    wanted = context or granted
    threads = service.settings.threads or len(os.sched_getaffinity(0))
    free, tokenizer = free_memory(), TOKEN_BYTES * model.config.vocab_size
    usable = int(free * (1 - RESERVE))
    kv_type = service.settings.kv_cache_type
    needed = engine.memory(model, wanted, threads, kv_type=kv_type, tokenizer=tokenizer)
    largest = engine.largest_context(model, usable, threads, kv_type=kv_type, tokenizer=tokenizer)
    speed, processor = None, ""
    if with_speed:
        profile = _profile(service.home, engine.types(model), threads, anew=measure)
        speed = engine.speed(model, profile, max(1, min(wanted, largest or wanted)))
        processor = profile.processor
    verdict: Verdict = "fits" if needed.total <= usable else "shorter_context" if largest else "too_large"
    alternative = None if verdict == "fits" else _alternative(model, needed, usable)
    weights = sum(tensor.data.nbytes for tensor in model.tensors.values())
    counted = engine.parameters(model.config)
    return Fit(
        name=model.config.name, path=str(path), verdict=verdict,
        words=_words(verdict, needed.total, free, wanted, largest, speed, alternative),
        parameters=counted, bits_per_weight=8 * weights / counted.total, context=wanted,
        context_limit=usual, largest_context=largest, memory=needed,
        kv_bytes_per_token=engine.kv_cache(model.config, engine.PAGE_TOKENS, kv_type) // engine.PAGE_TOKENS,
        free=free, threads=threads, speed=speed, processor=processor, alternative=alternative,
    )  # fmt: skip


def free_memory(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """What programs can still have: of the machine, or of the container that we are in, whichever is less.

    Pages of files count as free: the system drops them when somebody needs the room.
    """
    free = 0
    with contextlib.suppress(OSError, ValueError):
        for line in proc.read_text("ascii", "replace").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):
        limit = int((cgroup / "memory.max").read_text())
        files = 0
        for line in (cgroup / "memory.stat").read_text().splitlines():
            if line.startswith(("inactive_file ", "active_file ")):
                files += int(line.split()[1])
        inside = max(0, limit - int((cgroup / "memory.current").read_text()) + files)
        free = min(free, inside) if free else inside
    return free


def _profile(home: Path, types: Sequence[TensorType], threads: int, *, anew: bool) -> Profile:
    """Measured once and kept in the home folder, for this processor and so many threads."""
    from quinze.engine.profile import Profile, measure

    path, kept = home / PROFILE_FILE, None
    if not anew:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            kept = msgspec.json.decode(path.read_bytes(), type=Profile)
    found = measure(types, threads, kept)
    if found != kept:
        # A home that cannot be written costs a second each time, and no answer.
        with contextlib.suppress(OSError), atomic_write(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(found), indent=2))
    return found


def _alternative(model: Model, needed: Memory, usable: int) -> Alternative | None:
    """Sizes of the levels that are smaller than the model is now."""
    from quinze.quantization.levels import level

    now = sum(tensor.data.nbytes for tensor in model.tensors.values())
    rest = needed.total - needed.weights
    found = None
    for name in LEVELS:
        size = _size(model, level(name))
        if size < 0.97 * now:
            found = Alternative(name, size, size + rest, size + rest <= usable)
            if found.fits:
                return found
    return found


def _size(model: Model, chosen: Level) -> int:
    """Bytes of all tensors at a level, as `quinze quantize` would write them."""
    from quinze.quantization.levels import type_of

    tied = "lm_head.weight" not in model.tensors
    layers = model.config.num_hidden_layers
    return sum(
        type_of(_gguf_name(name), tensor.shape, chosen, layers=layers, tied=tied).size(tensor.shape)
        for name, tensor in model.tensors.items()
    )


def _gguf_name(name: str) -> str:
    """What the levels tell tensors apart by; the others may keep their names."""
    if name.startswith("model.embed_tokens"):
        return "token_embd.weight"
    if name == "lm_head.weight":
        return "output.weight"
    _, _, rest = name.partition("model.layers.")
    layer, _, part = rest.partition(".")
    known = {
        "self_attn.v_proj.weight": "attn_v.weight",
        "mlp.down_proj.weight": "ffn_down.weight",
        "mlp.gate.weight": "ffn_gate_inp.weight",
    }
    if part.startswith("mlp.experts.") and part.endswith("down_proj.weight"):
        return f"blk.{layer}.ffn_down_exps.weight"
    return f"blk.{layer}.{known.get(part, part)}"


def _words(
    verdict: Verdict,
    needed: int,
    free: int,
    context: int,
    largest: int,
    speed: Speed | None,
    alternative: Alternative | None,
) -> str:
    """One or two sentences for a person.

    >>> _words("fits", 900_000_000, 8_000_000_000, 4096, 4096, None, None)
    'It fits: 0.9 of 8.0 GB free with a context of 4,096 tokens.'
    """
    both = f"{needed / 1e9:.1f} of {free / 1e9:.1f} GB free"
    if verdict == "fits":
        told = f"It fits: {both} with a context of {context:,} tokens."
    elif verdict == "shorter_context":
        told = (
            f"It fits with a shorter context: up to {largest:,} tokens. "
            f"With {context:,} it would take {both}."
        )
    else:
        told = f"It does not fit: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free."
    if speed is not None and verdict != "too_large":
        told += f" About {speed.decode:,.0f} tokens a second, measured on this machine."
    if alternative is not None:
        does = "would fit" if alternative.fits else "would be the smallest, and not fit either"
        told += f" In {alternative.level} ({alternative.bytes / 1e9:.1f} GB) it {does}."
    return told
