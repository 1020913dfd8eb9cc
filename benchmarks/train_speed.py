"""How many tokens a second does a run read, and how much memory does it take, beside Hugging Face's Trainer?

    python benchmarks/train_speed.py [--rounds 3] [--steps 25] [--threads 2] [--vocabulary 4096] [--rows 16]

The same model (Qwen 3's shape, 6 layers of 256, float32), rows and batch, AdamW for both; Muon besides. Each
round starts a process for each, one after the other, so that a busy machine is busy for all; medians of steps
after the first five. Memory is the peak of the process, what it holds before training included and alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

LENGTH, WARM = 256, 5
KINDS = {
    "quinze": "Quinze, AdamW", "quinze-muon": "Quinze, Muon", "trainer": "transformers.Trainer, AdamW",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--child", choices=list(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(child(asked)))
        return
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        make_data(Path(name), asked.vocabulary, asked.rows * (asked.steps + 2))
        for turn in range(asked.rounds):
            for kind in KINDS:
                found[kind].append(measured(kind, Path(name)))
                print(f"round {turn + 1}, {KINDS[kind]}: {found[kind][-1]}", file=sys.stderr)
    print(table(found))


def measured(kind: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", kind, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: dict[str, list[dict[str, float]]]) -> str:
    import torch
    import transformers

    import quinze

    def median(kind: str, word: str) -> float:
        return statistics.median(one[word] for one in found[kind])

    lines = [
        f"quinze {quinze.__version__}, torch {torch.__version__}, transformers {transformers.__version__}",
        "",
        "| | tokens a second | by processor time | peak memory | above what was loaded |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for kind, name in KINDS.items():
        peak, more = median(kind, "peak"), median(kind, "peak") - median(kind, "before")
        lines.append(
            f"| {name} | {median(kind, 'tokens'):,.0f} | {median(kind, 'cpu'):,.0f} | {peak / 1e6:,.0f} MB "
            f"| {more / 1e6:,.0f} MB |"
        )
    return "\n".join(lines)


def make_data(folder: Path, vocabulary: int, rows: int) -> None:
    """A folder as `quinze data` makes one, of random tokens."""
    from quinze.training.data.manifest import Manifest, PrepareSettings, SplitCounts

    ids = np.random.default_rng(0).integers(0, vocabulary, rows * LENGTH + 1).astype(np.uint16)
    ids.tofile(folder / "train.tokens.bin")
    np.save(folder / "token_bytes.npy", np.ones(vocabulary, np.int32))
    counts = SplitCounts(
        rows=rows, tokens=len(ids), supervised_tokens=len(ids) - 1, bytes=len(ids), documents=1
    )
    manifest = Manifest(
        kind="text", vocab_size=vocabulary, tokenizer_sha256="", sequence_length=LENGTH, dtype="uint16",
        eos_id=None, pad_id=0, splits={"train": counts}, files={}, fingerprint="",
        settings=PrepareSettings(sequence_length=LENGTH),
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def child(asked: argparse.Namespace) -> dict[str, float]:
    import torch

    torch.set_num_threads(asked.threads)
    times: list[tuple[float, float]] = []
    before = (trainer if asked.child == "trainer" else quinze_)(asked, times)
    walls = [b[0] - a[0] for a, b in zip(times[WARM:], times[WARM + 1 :], strict=False)]
    cpus = [b[1] - a[1] for a, b in zip(times[WARM:], times[WARM + 1 :], strict=False)]
    tokens = asked.rows * LENGTH
    return {
        "tokens": tokens / statistics.median(walls), "cpu": tokens / statistics.median(cpus),
        "peak": memory("VmHWM"), "before": before,
    }  # fmt: skip


def memory(word: str) -> float:
    """Bytes: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(word))


def quinze_(asked: argparse.Namespace, times: list[tuple[float, float]]) -> float:
    from quinze.training.events import StepReport
    from quinze.training.run_config import run_config
    from quinze.training.trainer import Trainer

    config = run_config(
        {
            "data": {"folder": str(asked.folder)}, "batch": {"rows": asked.rows},
            "schedule": {"steps": asked.steps}, "checkpoints": {"minutes": None},
            "optimizer": {"kind": "muon" if asked.child.endswith("muon") else "adamw", "clip": 1.0},
            "runtime": {"compile": "off", "threads": asked.threads, "device": "cpu"},
        }
    )  # fmt: skip
    before = memory("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        for event in Trainer(config, Path(folder)).run():
            if isinstance(event, StepReport):
                times += [(time.perf_counter(), time.process_time())]
    return before


def trainer(asked: argparse.Namespace, times: list[tuple[float, float]]) -> float:
    import torch
    import transformers
    from transformers import Qwen3Config, Qwen3ForCausalLM, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append((time.perf_counter(), time.process_time()))

    ids = np.fromfile(asked.folder / "train.tokens.bin", np.uint16)
    rows = [
        torch.from_numpy(ids[i : i + LENGTH].astype(np.int64)) for i in range(0, len(ids) - LENGTH, LENGTH)
    ]
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=asked.vocabulary, hidden_size=256, intermediate_size=768, num_hidden_layers=6,
            num_attention_heads=4, num_key_value_heads=4, head_dim=64, max_position_embeddings=LENGTH,
            tie_word_embeddings=True,
        )
    )  # fmt: skip
    before = memory("VmRSS") - 4 * model.num_parameters()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=asked.steps, per_device_train_batch_size=asked.rows, use_cpu=True, report_to=[],
            save_strategy="no", logging_strategy="no", learning_rate=3e-3, disable_tqdm=True,
        )  # fmt: skip
        data = [{"input_ids": row, "labels": row} for row in rows]
        transformers.Trainer(model, arguments, train_dataset=data, callbacks=[Clock()]).train()
    return before


if __name__ == "__main__":
    main()
