"""Pictures of runs that fail, each a real one, with the moment at which the doctor speaks.

    python benchmarks/failing_runs.py docs/guides/doctor

The runs are those of tests/training/doctor: a two-layer model and a grammar's sentences, a minute in all.
Writes an SVG for each.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 460, 230, 44, 14, 14, 34


@dataclass
class Picture:
    """Losses by step, evaluations, floors, and where the doctor spoke."""

    losses: list[float]
    evaluations: list[tuple[int, float]]
    floors: dict[str, float]
    marks: list[tuple[int, str]]


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, run in runs():
        floors = run.doctor.floors
        spoke = [(f.step or 0, f.id) for f in run.findings if f.severity != "info"]
        picture = Picture(
            run.losses, [(e.step, e.loss) for e in run.evaluations], floors.lines() if floors else {}, spoke
        )
        (folder / f"{name}.svg").write_text(svg(picture), "utf-8")
        print(name, len(run.losses), spoke)


def runs() -> Any:
    """(name, Run) one after the other."""
    beds = _load(ROOT / "tests" / "training" / "doctor" / "conftest.py")
    text = beds.sentences.__wrapped__()
    names = ["", "?", *sorted(set(text))]
    facts = beds.TokenizerFacts(len(names), decode=lambda ids: "".join(names[i] for i in ids))
    table = {c: i + 2 for i, c in enumerate(sorted(set(text)))}

    def bed(train: str, held: str, **knobs: Any) -> Any:
        rows = [
            beds.Rows.of(beds.np.array([table[c] for c in part]), 32, seed=knobs.get("seed", 0))
            for part in (train, held)
        ]
        plain = {"train": rows[0], "validation": rows[1], "config": beds.tiny(len(names)), "tokenizer": facts}
        return beds.Bed(**{**plain, "evaluate_every": 10, **knobs})

    train, held = text[:400_000], text[400_000:440_000]
    yield "healthy", bed(train, held, steps=120).run()
    yield "rate-too-high", bed(train, held, steps=120, rate=0.6, prepare=None).run()
    yield "rate-too-low", bed(train, held, steps=120, rate=2e-5).run()

    def break_a_weight(step: int, model: Any) -> None:
        if step == 60:
            with torch.no_grad():
                model.model.layers[1].mlp.up_proj.weight[3, 5] = float("nan")

    yield "not-a-number", bed(train, held, steps=120, at_step=break_a_weight).run()
    letters = list(train[:200_000])
    random.Random(0).shuffle(letters)
    mixed = "".join(letters)
    yield "shuffled", bed(mixed[:180_000], mixed[180_000:], steps=120).run()
    yield "overfitting", bed(text[:1500], held, steps=160, rate=1e-2).run()


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("doctor_beds", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["doctor_beds"] = module
    spec.loader.exec_module(module)
    return module


def svg(picture: Picture) -> str:
    """A small plot, readable on light and dark pages alike."""
    finite = [(i, x) for i, x in enumerate(picture.losses, 1) if x == x and abs(x) < 1e9]
    floors = picture.floors
    top = max([*floors.values(), *(min(x, 6.0) for _, x in finite)]) * 1.05
    last = max(len(picture.losses), 1)

    def at(step: float, loss: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / last
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(loss, 0.0), top) / top)

    def line(points: list[tuple[int, float]], color: str, width: float, more: str = "") -> str:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*p) for p in points))
        return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"{more}/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for name, height in floors.items():
        y = at(0, height)[1]
        parts.append(line([(0, height), (last, height)], "#9aa5b1", 1, ' stroke-dasharray="4 3"'))
        place = f'x="{WIDTH - RIGHT}" y="{y - 3:.1f}"'
        parts.append(f'<text {place} fill="#616e7c" text-anchor="end">{name}</text>')
    for id_, step in _grouped(picture.marks).items():
        x = at(step, 0)[0]
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#c2410c"/>')
        height = TOP + 10 + 13 * list(_grouped(picture.marks)).index(id_)
        anchor, shift = ("end", -4) if x > WIDTH * 0.6 else ("start", 4)
        parts.append(
            f'<text x="{x + shift:.1f}" y="{height}" fill="#c2410c" text-anchor="{anchor}">{id_}</text>'
        )
    parts.append(line(finite, "#1d4ed8", 1.3))
    if picture.evaluations:
        parts.append(line(picture.evaluations, "#15803d", 2))
    parts += [
        f'<text x="{LEFT}" y="{HEIGHT - 8}" fill="#323f4b">step 0</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" fill="#323f4b" text-anchor="end">{last}</text>',
        f'<text x="{LEFT - 6}" y="{TOP + 8}" fill="#323f4b" text-anchor="end">{top:.1f}</text>',
        f'<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" fill="#323f4b" text-anchor="end">0</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle"><tspan fill="#1d4ed8">training</tspan>'
        ' <tspan fill="#15803d">validation</tspan></text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _grouped(marks: list[tuple[int, str]]) -> dict[str, int]:
    """The first time that each rule spoke."""
    found: dict[str, int] = {}
    for step, id_ in marks:
        found.setdefault(id_, step)
    return found


if __name__ == "__main__":
    main()
