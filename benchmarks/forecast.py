"""How near do the forecasts of `plan` come? Speed and memory of real short runs, beside what was foretold.

    python benchmarks/forecast.py TEXT [--steps 40] [--shapes 128x4,256x6]

TEXT is any text file (docs/benchmarks.md names ours). Each shape: the machine is measured and the shape
tried, then a real run of the Trainer in a fresh process, twice in turns; medians. Memory is the peak.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from quinze.engine.profile import processor
from quinze.tokenizer.training import train_characters
from quinze.training.data.manifest import PrepareSettings
from quinze.training.data.prepare import prepare
from quinze.training.data.sources import Source
from quinze.training.forecast import memory, model_config, speed
from quinze.training.machine import measure, try_shape
from quinze.training.run_config import run_config

LENGTH = 256
ROWS = 16


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("text", type=Path)
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--shapes", default="64x3,128x4,256x4")
    options.add_argument("--child", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        run(json.loads(chosen.child))
        return
    with tempfile.TemporaryDirectory() as place:
        data, vocabulary = prepared(Path(place), chosen.text)
        print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__},", end=" ")
        print(f"Python {platform.python_version()}, rows of {LENGTH} x {ROWS}, {chosen.steps} steps\n")
        print("| shape | tokens/s foretold | measured | off by | MB foretold | measured | off by |")
        print("|---|---|---|---|---|---|---|")
        for shape in chosen.shapes.split(","):
            hidden, layers = (int(number) for number in shape.split("x"))
            print(row(hidden, layers, vocabulary, data, chosen.steps))


def prepared(place: Path, text: Path) -> tuple[Path, int]:
    size = train_characters([text.read_text("utf-8")], place / "tokenizer")
    settings = PrepareSettings(sequence_length=LENGTH, val_fraction=0.1, workers=1, near_duplicates="off")
    prepare([Source.of(text)], place / "tokenizer", place / "data", settings)
    return place / "data", size


def row(hidden: int, layers: int, vocabulary: int, data: Path, steps: int) -> str:
    config = model_config(hidden, layers, vocabulary, LENGTH)
    told: list[tuple[float, float]] = []
    found: list[tuple[float, float]] = []
    for _ in range(2):
        machine = measure()
        cost = try_shape(config, ROWS, LENGTH)
        needed = memory(machine, config, ROWS, LENGTH, cost)
        told.append((speed(machine, config, LENGTH, ROWS * LENGTH, cost), needed.total / 1e6))
        given = {"data": str(data), "hidden": hidden, "layers": layers, "steps": steps}
        child = [sys.executable, __file__, "-", "--child", json.dumps(given)]
        done = subprocess.run(child, capture_output=True, text=True, check=True)
        found.append(tuple(json.loads(done.stdout)))
    cells = []
    for column in (0, 1):
        a, b = (statistics.median(one[column] for one in of) for of in (told, found))
        cells += [f"{a:,.0f}", f"{b:,.0f}", f"{a / b - 1:+.0%}"]
    return f"| {hidden} x {layers} | " + " | ".join(cells) + " |"


def run(given: dict[str, object]) -> None:
    """In the child: a plain run; prints its median tokens a second and its peak of memory in MB."""
    from quinze.training.events import StepReport
    from quinze.training.trainer import Trainer

    shape = model_config(int(str(given["hidden"])), int(str(given["layers"])), 256, LENGTH)
    names = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim",
    )  # fmt: skip
    config = run_config(
        {
            "data": {"folder": given["data"]},
            "model": {name: getattr(shape, name) for name in names},
            "batch": {"rows": ROWS},
            "schedule": {"steps": given["steps"]},
            "evaluation": {"times": 1, "rows": ROWS},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        seconds, tokens = [0.0], [0]
        for event in Trainer(config, Path(folder) / "run").run():
            if isinstance(event, StepReport):
                seconds.append(event.seconds)
                tokens.append(event.tokens)
    steps = [b - a for a, b in itertools.pairwise(seconds[3:])]
    each = (tokens[-1] - tokens[-2]) / statistics.median(steps)
    print(json.dumps([each, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6]))


if __name__ == "__main__":
    main()
