"""Does a run of Quinze learn more in the same minutes than nanoGPT's recipe for a CPU?

    python benchmarks/train_char.py --nanogpt PATH --text tinyshakespeare.txt [--threads 2] [--svg chart.svg]

PATH is a checkout of github.com/karpathy/nanoGPT. The same characters, the first 90 % to learn from, the rest
to measure. First nanoGPT runs the line of its README for a CPU, unchanged; then Quinze is given the minutes
of the clock that it took, its own start included, and has to end by then. Both are measured from outside,
from the start of their processes. The losses at the end are those of the whole validation text, in windows
of each model's own length and of nanoGPT's 64, by one function. `--steps 200` makes both short, to try it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import charts
import quinze
from quinze.models.transformer import Transformer
from quinze.models.weights import load_model
from quinze.tokenizer.training import train_characters
from quinze.training.data.manifest import PrepareSettings
from quinze.training.data.prepare import prepare
from quinze.training.data.sources import Source
from quinze.training.run_config import run_config, to_toml

NANOGPT = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 "
    "--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --dropout=0.0"
)
"""README.md, "I only have a macbook"; max_iters and lr_decay_iters 2000 are added below."""
TARGET, THEIRS = 1.60, 1.886
LENGTH = 128
OURS = {
    "model": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 4},
    "batch": {"rows": 16},
    "optimizer": {"kind": "muon", "muon_lr": 0.02, "lr": 0.003, "weight_decay": 0.05},
    "schedule": {"warmup": 0.02, "decay": 0.6},
    "evaluation": {"times": 20, "rows": 48},
    "checkpoints": {"minutes": None},
    "runtime": {"device": "cpu", "compile": "off"},
}  # fmt: skip


@dataclass
class Course:
    """What was seen of a process from outside."""

    name: str
    points: list[tuple[float, float, float]] = field(default_factory=list)
    """(seconds of the clock, processor seconds, validation loss as it says itself)"""
    wall: float = 0.0
    cpu: float = 0.0

    def reached(self, loss: float, cpu: bool = False) -> float | None:
        """Seconds until it was there, between two evaluations by a straight line."""
        before: tuple[float, float] | None = None
        for wall, used, value in self.points:
            at = used if cpu else wall
            if value <= loss:
                if before is None:
                    return at
                share = (before[1] - loss) / (before[1] - value)
                return before[0] + share * (at - before[0])
            before = (at, value)
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nanogpt", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True, help="tinyshakespeare.txt")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, default=2000, help="of nanoGPT")
    parser.add_argument("--svg", type=Path, help="write the chart there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = asked.text.read_text("utf-8")
        at = int(0.9 * len(text))
        environ = {**os.environ, "OMP_NUM_THREADS": str(asked.threads)}
        theirs, peer = run_nanogpt(asked.nanogpt, text, at, folder, asked.steps, environ)
        ours, final = run_quinze(text, at, folder, theirs.wall, asked.threads, environ)
        torch.set_num_threads(asked.threads)
        numbers = {c: i for i, c in enumerate(sorted(set(text)))}
        validation = np.array([numbers[c] for c in text[at:]])
        print(table(asked, theirs, ours, peer, final, validation))
        if asked.svg:
            asked.svg.write_text(chart(theirs, ours))


def run_nanogpt(
    source: Path, text: str, at: int, folder: Path, steps: int, environ: dict[str, str]
) -> tuple[Course, Path]:
    """Its own files, and its data as its prepare.py writes them."""
    home = folder / "nanogpt"
    shutil.copytree(source, home, ignore=shutil.ignore_patterns(".git"))
    data = home / "data" / "shakespeare_char"
    letters = sorted(set(text))
    numbers = {c: i for i, c in enumerate(letters)}
    for split, part in (("train", text[:at]), ("val", text[at:])):
        np.array([numbers[c] for c in part], np.uint16).tofile(data / f"{split}.bin")
    meta = {"vocab_size": len(letters), "stoi": numbers, "itos": dict(enumerate(letters))}
    (data / "meta.pkl").write_bytes(pickle.dumps(meta))
    course = Course("nanoGPT")
    command = [sys.executable, "-u", "train.py", *NANOGPT.split()]
    command += [f"--max_iters={steps}", f"--lr_decay_iters={steps}", f"--eval_interval={min(250, steps)}"]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=home, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        seen = re.match(r"step \d+: train loss [\d.]+, val loss ([\d.]+)", line)
        if seen:
            course.points.append((time.perf_counter() - began, cpu_seconds(process.pid), float(seen[1])))
            print(f"nanoGPT  {course.points[-1][0]:6.0f} s  {line.strip()}", file=sys.stderr)
    finish(course, process, began)
    return course, home


def run_quinze(
    text: str, at: int, folder: Path, seconds: float, threads: int, environ: dict[str, str]
) -> tuple[Course, Path]:
    train_characters([text], folder / "letters")
    settings = PrepareSettings(
        sequence_length=LENGTH, val_fraction=1 - at / len(text), split="tail", clean=False,
        near_duplicates="off", leak_threshold=1.0, workers=1,
    )  # fmt: skip
    prepare([Source.of_documents("text", lambda: [text])], folder / "letters", folder / "data", settings)
    course = Course("Quinze")
    # Python and PyTorch start within the minutes, as they did for the peer.
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import quinze.training.trainer"], env=environ, check=True)
    start = time.perf_counter() - start
    config = {**OURS, "data": {"folder": str(folder / "data"), "tokenizer": str(folder / "letters")}}
    config["schedule"] = {**OURS["schedule"], "minutes": (seconds - 1.3 * start) / 60}
    config["runtime"] = {**OURS["runtime"], "threads": threads}
    (folder / "run.toml").write_text(to_toml(run_config(config)))
    command = [sys.executable, "-m", "quinze.training.worker", str(folder / "run.toml"), str(folder / "run")]
    command += ["--no-doctor"]  # the peer has none
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environ)
    for line in follow(folder / "run" / "metrics.jsonl", process):
        event = json.loads(line)
        if event["type"] == "evaluation":
            course.points.append((time.perf_counter() - began, cpu_seconds(process.pid), event["loss"]))
            print(
                f"Quinze   {course.points[-1][0]:6.0f} s  step {event['step']}: {event['loss']:.4f}",
                file=sys.stderr,
            )
    finish(course, process, began)
    return course, folder / "run" / "final"


def follow(path: Path, process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Lines as they are written, until the process is over."""
    at = 0
    while True:
        over = is_over(process.pid)
        if path.exists():
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            yield from data[at:whole].decode().splitlines()
            at = whole
        if over:
            return
        time.sleep(0.05)


def finish(course: Course, process: subprocess.Popen[str] | subprocess.Popen[bytes], began: float) -> None:
    """Its processor time can be read until it is waited for."""
    while not is_over(process.pid):
        time.sleep(0.02)
    course.wall, course.cpu = time.perf_counter() - began, cpu_seconds(process.pid)
    if process.wait():
        raise SystemExit(f"{course.name} failed.")


def is_over(pid: int) -> bool:
    """Ended, and not waited for yet."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def cpu_seconds(pid: int) -> float:
    """User and system time of a process that has not been waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@torch.no_grad()
def whole_loss(logits: object, ids: np.ndarray, length: int) -> float:
    """Nats a character over all of `ids`, in windows of `length` that do not overlap."""
    count = (len(ids) - 1) // length
    x = torch.from_numpy(ids[: count * length]).view(count, length)
    y = torch.from_numpy(ids[1 : count * length + 1]).view(count, length)
    total = 0.0
    for a, b in zip(x.split(64), y.split(64), strict=True):
        total += float(F.cross_entropy(logits(a).flatten(0, 1), b.flatten(), reduction="sum"))  # type: ignore[operator]
    return total / y.numel()


def nanogpt_logits(home: Path) -> object:
    spec = importlib.util.spec_from_file_location("nanogpt_model", home / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module
    spec.loader.exec_module(module)
    saved = torch.load(home / "out-shakespeare-char" / "ckpt.pt", weights_only=False)
    model = module.GPT(module.GPTConfig(**saved["model_args"]))
    model.load_state_dict(saved["model"])
    model.eval()
    return lambda ids: model(ids, targets=ids)[0]  # with targets it gives the logits of every place


def table(
    asked: argparse.Namespace, theirs: Course, ours: Course, peer: Path, final: Path, validation: np.ndarray
) -> str:
    model = Transformer.of(load_model(final))
    other = nanogpt_logits(peer)
    at_64 = whole_loss(other, validation, 64), whole_loss(model, validation, 64)
    own = at_64[0], whole_loss(model, validation, LENGTH)
    first, second = theirs.wall, ours.reached(at_64[0])
    cpu = ours.reached(at_64[0], cpu=True)

    def seconds(x: float | None) -> str:
        return "never" if x is None else f"{x:.0f} s"

    rows = [
        ("", "nanoGPT", "Quinze"),
        ("validation loss, all of it, own windows (64; 128)", f"{own[0]:.3f}", f"**{own[1]:.3f}**"),
        ("the same in windows of 64 for both", f"{at_64[0]:.3f}", f"**{at_64[1]:.3f}**"),
        ("time by the clock, start and evaluations included", seconds(theirs.wall), seconds(ours.wall)),
        ("processor time", seconds(theirs.cpu), seconds(ours.cpu)),
        (f"reached {at_64[0]:.3f} after", seconds(first), f"**{seconds(second)}**"),
        ("the same in processor time", seconds(theirs.cpu), seconds(cpu)),
    ]
    lines = [f"quinze {quinze.__version__}, torch {torch.__version__}, {asked.threads} threads", ""]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(3, "|---|---|---|")
    return "\n".join([*lines, "", settings_table(model.config.parameters)])


def settings_table(parameters: int) -> str:
    model, optimizer, schedule = OURS["model"], OURS["optimizer"], OURS["schedule"]
    inner, layers = model["intermediate_size"], model["num_hidden_layers"]
    rows = [
        ("", "nanoGPT", "Quinze"),
        ("model", "GPT-2: LayerNorm, learned positions, GELU, 4 layers of 128",
         f"Qwen 3: RMSNorm, RoPE, QK-norm, SwiGLU of {inner}, {layers} layers of {model['hidden_size']}"),
        ("heads; parameters", "4; 0.80 M", f"{model['num_attention_heads']}; {parameters / 1e6:.2f} M"),
        ("a step", "12 rows of 64", f"{OURS['batch']['rows']} rows of {LENGTH} characters"),
        ("optimizer", "AdamW 1e-3 (0.9, 0.99), decay 0.1, clipped at 1",
         f"Muon {optimizer['muon_lr']}, decay {optimizer['weight_decay']}; AdamW {optimizer['lr']}"),
        ("schedule", "100 steps up, cosine to a tenth at step 2,000",
         f"{schedule['warmup']:.0%} of the time up, the last {schedule['decay']:.0%} down to 0"),
        ("evaluation", "every 250 steps, 20 batches of both splits",
         f"{OURS['evaluation']['times']} times, {OURS['evaluation']['rows']} rows"),
        ("precision, compile, dropout", "float32, off, 0", "float32, off, 0"),
    ]  # fmt: skip
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---|---|---|")
    return "\n".join(lines)


def chart(theirs: Course, ours: Course) -> str:
    panels = {
        "seconds by the clock": {c.name: [(x, y) for x, _, y in c.points] for c in (ours, theirs)},
        "processor seconds": {c.name: [(x, y) for _, x, y in c.points] for c in (ours, theirs)},
    }
    lines = {f"nanoGPT's end: {THEIRS}": THEIRS, f"aim: {TARGET:.2f}": TARGET}
    return charts.svg(panels, "validation loss, nats a character", lines)


if __name__ == "__main__":
    main()
