"""The finished model as a folder that transformers, vLLM, PEFT and Quinze load; whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from quinze.models.adapters import write_adapter
from quinze.models.base_mark import mark_of
from quinze.models.save import base_config_of, copy_tokenizer, save_model
from quinze.paths import sync_folder
from quinze.training.building import Parts
from quinze.training.lora import to_low_rank


def write_final(parts: Parts, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """A Hugging Face folder of all weights; of a LoRA run PEFT's folder, which knows its base."""
    work = folder.with_suffix(".tmp")
    shutil.rmtree(work, ignore_errors=True)
    if parts.lora is not None and parts.base is not None:
        work.mkdir(parents=True)
        write_adapter(
            work,
            to_low_rank(parts.transformer),
            rslora=parts.lora.rslora,
            dropout=parts.lora.dropout,
            base=parts.config.model.base or "",
            mark=mark_of(parts.base),
        )
        if parts.tokenizer_folder is not None and (parts.tokenizer_folder / "tokenizer.json").is_file():
            copy_tokenizer(parts.tokenizer_folder, work)
    else:
        _write_model(parts, weights, work)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(work, folder)  # noqa: PTH105
    sync_folder(folder.parent)


def _write_model(parts: Parts, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    tokenizer, source = parts.tokenizer, parts.tokenizer_folder
    has_files = source is not None and (source / "tokenizer.json").is_file()
    base = parts.base.checkpoint.path if parts.base else None
    save_model(
        folder,
        parts.transformer.config,
        {name: weight.float().cpu().numpy() for name, weight in weights.items()},
        tokenizer=source if has_files else None,
        base_config=base_config_of(base) if base else None,
        bos_id=tokenizer.bos_id if tokenizer else None,
        eos_ids=tuple(sorted(tokenizer.stop_ids)) if tokenizer else (),
    )
