"""Zero-shot classification beside chance, the commonest label, and a small head with a few examples.

    python benchmarks/zero_shot.py                    the table, on FewCLUE's dev sets and ChnSentiCorp
    python benchmarks/zero_shot.py --json card.json   the same as JSON
    python benchmarks/zero_shot.py temperature        what the defaults were chosen by, on the training halves

`--embedder NAME` takes another than the starter. Data from QUINZE_SHARED (default ../shared). Heads are
trained on the training half (of ChnSentiCorp: 64 reviews a label, drawn with a fixed seed and left out of the
test), the mean of five draws.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quinze.embeddings.embedder import Embedder
from quinze.embeddings.head import fit
from quinze.embeddings.learning_curve import balanced
from quinze.embeddings.loading import load_embedder
from quinze.embeddings.zero_shot import EmbeddingClassifier
from quinze.evaluation.classification import Label, check, numbers_of

DATA = Path(os.environ.get("QUINZE_SHARED", "../shared")) / "data" / "classification"
SHOTS = (8, 16, 32)
DRAWS = 5
PAIRS = {
    "bustm": {"0": "两句话的意思不同", "1": "两句话的意思相同"},
    "ocnli": {
        "entailment": "第二句可以从第一句推出",
        "neutral": "两句话没有必然的关系",
        "contradiction": "两句话互相矛盾",
    },
}
OPINIONS = {
    "Positive": "满意，很好，喜欢，推荐",
    "Negative": "不满意，很差，失望，糟糕",
}

Examples = tuple[list[str], list[str]]


@dataclass(frozen=True)
class Task:
    labels: list[Label]
    train: Examples
    dev: Examples


def rows(name: str, half: str) -> list[dict[str, Any]]:
    path = DATA / "fewclue" / name / f"{half}_few_all.json"
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]


def fewclue(name: str) -> Task:
    def read(half: str) -> Examples:
        found = rows(name, half)
        if name in PAIRS:
            return [f"{r['sentence1']} {r['sentence2']}" for r in found], [str(r["label"]) for r in found]
        key = {"iflytek": "label_des", "tnews": "label_desc"}.get(name, "label")
        return [r.get("sentence") or r["content"] for r in found], [str(r[key]) for r in found]

    train, dev = read("train"), read("dev")
    names = sorted({*train[1], *dev[1]})
    described = {**PAIRS.get(name, {}), **(OPINIONS if name == "eprstmt" else {})}
    if name == "tnews":
        lines = (DATA / "fewclue" / name / "label_index2en2zh.json").read_text("utf-8").split("\n")
        described = {r["label_desc"]: r["label_zh"] for r in map(json.loads, filter(str.strip, lines))}
    return Task([Label(one, described.get(one, "")) for one in names], train, dev)


def hotels() -> Task:
    with (DATA / "ChnSentiCorp_htl_all.csv").open(encoding="utf-8", newline="") as file:
        found = [(r["review"], "Positive" if r["label"] == "1" else "Negative") for r in csv.DictReader(file)]
    names = ["Negative", "Positive"]
    order = balanced(numbers_of([label for _, label in found], names))
    train, dev = [found[i] for i in order[:128]], [found[i] for i in order[128:]]
    labels = [Label(one, OPINIONS[one]) for one in names]
    return Task(
        labels, ([t for t, _ in train], [s for _, s in train]), ([t for t, _ in dev], [s for _, s in dev])
    )


def tasks() -> dict[str, Task]:
    names = ("tnews", "iflytek", "csldcp", "eprstmt", "bustm", "ocnli")
    return {**{name: fewclue(name) for name in names}, "ChnSentiCorp": hotels()}


def shots(task: Task, embedder: Embedder, count: int) -> tuple[float, int] | None:
    """(accuracy, examples), the mean of several draws; None where there are not enough."""
    names = [label.name for label in task.labels]
    train, dev = numbers_of(task.train[1], names), numbers_of(task.dev[1], names)
    if np.median(np.bincount(train, minlength=len(names))) < count:
        return None
    x, y = embedder.embed(task.train[0]).astype(np.float64), embedder.embed(task.dev[0]).astype(np.float64)
    found, used = [], 0
    for seed in range(DRAWS):
        order = balanced(train, seed)
        chosen = np.concatenate([order[train[order] == k][:count] for k in range(len(names))])
        known, own = np.unique(train[chosen], return_inverse=True)
        weight, bias = fit(x[chosen], own, len(known))
        found.append(float((known[(y @ weight.T + bias).argmax(1)] == dev).mean()))
        used = len(chosen)
    return float(np.mean(found)), used


def measure(embedder: Embedder) -> list[dict[str, Any]]:
    found = []
    for name, task in tasks().items():
        told = check(EmbeddingClassifier(embedder, task.labels), *task.dev)
        heads = {count: shots(task, embedder, count) for count in SHOTS}
        found.append({
            "task": name, "labels": len(task.labels), "examples": told.examples, "chance": told.chance,
            "majority": told.majority, "accuracy": told.accuracy.mean,
            "interval": [told.accuracy.low, told.accuracy.high], "better": told.better_than_chance,
            "calibration_error": told.calibration_error,
            "heads": {str(count): one and one[0] for count, one in heads.items()},
        })  # fmt: skip
        print(row(found[-1]), flush=True)
    return found


def row(one: dict[str, Any]) -> str:
    heads = " | ".join("–" if a is None else f"{a:.3f}" for a in one["heads"].values())
    low, high = one["interval"]
    mark = "**" if one["better"] else ""
    return (
        f"| {one['task']} | {one['labels']} | {one['examples']:,} | {one['chance']:.3f} "
        f"| {one['majority']:.3f} | {mark}{one['accuracy']:.3f}{mark} ({low:.3f}–{high:.3f}) "
        f"| {one['calibration_error']:.3f} | {heads} |"
    )


def temperatures(embedder: Embedder) -> None:
    """On the training halves alone: what the defaults were chosen by."""
    for name, task in tasks().items():
        names = [label.name for label in task.labels]
        true = numbers_of(task.train[1], names)
        for temperature in (0.05, 0.07, 0.1, 0.15, 0.2):
            rows = EmbeddingClassifier(embedder, task.labels, temperature=temperature).probabilities(
                task.train[0]
            )
            p = rows[np.arange(len(true)), true]
            print(flush=True, end=f"{name} temperature {temperature}: nats {-np.nanmean(np.log(p)):.3f}\n")
        x = embedder.embed(task.train[0]).astype(np.float64)
        half = np.arange(len(true)) % 2 == 0
        for strength in (0.3, 1.0, 3.0, 10.0):
            known, own = np.unique(true[half], return_inverse=True)
            weight, bias = fit(x[half], own, len(known), strength)
            right = known[(x[~half] @ weight.T + bias).argmax(1)] == true[~half]
            print(f"{name} strength {strength}: {right.mean():.3f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["table", "temperature"], default="table")
    parser.add_argument("--embedder", default="starter")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    embedder = load_embedder(chosen.embedder)
    if chosen.what == "temperature":
        temperatures(embedder)
        return
    print(
        "| task | labels | texts | chance | commonest | zero-shot | ECE | "
        + " | ".join(map(str, SHOTS))
        + " |"
    )
    found = measure(embedder)
    if chosen.json:
        told = {"embedder": embedder.id, "command": "python benchmarks/zero_shot.py", "tasks": found}
        chosen.json.write_text(json.dumps(told, ensure_ascii=False, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
