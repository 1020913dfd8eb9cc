"""How do time and memory grow with the length of a context? Drawn, beside llama.cpp on the same file.

    python benchmarks/random_model.py smol135 q4_0 /tmp/smol135-q4_0.gguf
    python benchmarks/long_context.py /tmp/smol135-q4_0.gguf --svg docs/explanation/long_context.svg

For each length: the seconds in which a prompt of it is read, the milliseconds of one more token behind it,
and the memory of its keys and values, in float16 and Q8_0. Reading goes on from one length to the next, so
the longest costs as much as all. "Cost explodes with length" is true and not the whole truth: the work of
attention grows with the square, but up to some thousand tokens the weights cost more.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import llamacpp
import quinze
from decode_prefill import processor
from quinze.engine.engine import Engine
from quinze.engine.packed import packed_weights
from quinze.models.weights import load_model

Row = tuple[int, float, float, float]
"""(length, seconds of reading, milliseconds of a token behind it, MiB of keys and values; 0: not known)"""
DECODED, PIECE = 8, 2048
CLOCK: list[Callable[[], float]] = [time.perf_counter]
COLORS = {"quinze f16": "#1b6ac9", "quinze q8_0": "#12a37f", "llama.cpp f16": "#c2571a"}


def measured(
    lengths: list[int], forward: Callable[[np.ndarray], object], memory: Callable[[], float], seconds: float
) -> list[Row]:
    """Rows up to the first length that would take longer than `seconds`, by how the last ones grew."""
    rng = np.random.default_rng(15)
    rows: list[Row] = []
    done, took = 0, 0.0
    for length in lengths:
        if rows and took * (length / done) ** 2 > seconds:
            break
        while done < length:
            ids = rng.integers(3, 1000, min(PIECE, length - done)).astype(np.int32)
            began = CLOCK[0]()
            forward(ids)
            took, done = took + CLOCK[0]() - began, done + len(ids)
        began = CLOCK[0]()
        for _ in range(DECODED):
            forward(np.full(1, 7, np.int32))
        each = (CLOCK[0]() - began) / DECODED
        done += DECODED
        rows.append((length, took, 1e3 * each, memory()))
    return rows


def ours(path: Path, kind: str, lengths: list[int], threads: int, seconds: float) -> list[Row]:
    model = load_model(path)
    engine = Engine(model, threads=threads, kv_type=kind, packed=packed_weights(model, threads))
    decoder = engine._running()
    cache = decoder.cache(kind)
    return measured(lengths, lambda ids: decoder.forward(cache, ids), lambda: cache.bytes / 2**20, seconds)


def theirs(path: Path, lengths: list[int], threads: int, seconds: float) -> list[Row]:
    room = lengths[-1] + DECODED * len(lengths) + 256
    peer = llamacpp.LlamaCpp(path, context_length=room, threads=threads)
    rows = measured(lengths, lambda ids: peer.forward(ids.tolist()), lambda: 0.0, seconds)
    peer.close()
    return rows


def svg(series: dict[str, list[Row]], title: str) -> str:
    """Three charts side by side, both axes logarithmic."""
    width, height, edge = 320, 260, 44
    names = ("seconds to read it", "ms for one more token", "MiB of keys and values")
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * width} {height + 60}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="100%" height="100%" fill="white"/><text x="12" y="18" font-size="13">{title}</text>',
    ]
    for chart, name in enumerate(names):
        points = {s: [(r[0], r[chart + 1]) for r in rows if r[chart + 1] > 0] for s, rows in series.items()}
        every = [point for line in points.values() for point in line]
        low = [math.log10(min(p[i] for p in every)) for i in (0, 1)]
        high = [math.log10(max(p[i] for p in every)) for i in (0, 1)]

        def place(point: tuple[float, float], at: int = chart, low=low, high=high) -> tuple[float, float]:
            x, y = (
                (math.log10(v) - lo) / max(hi - lo, 1e-9) for v, lo, hi in zip(point, low, high, strict=True)
            )
            return at * width + edge + x * (width - edge - 16), 30 + height - edge - y * (height - edge - 20)

        out.append(f'<text x="{chart * width + edge}" y="38">{name}</text>')
        for length in sorted({p[0] for p in every}):
            x, _ = place((length, 10 ** low[1]))
            told = f"{length // 1024}k" if length >= 1024 else str(length)
            out.append(f'<text x="{x:.0f}" y="{height + 4}" text-anchor="middle" fill="#555">{told}</text>')
        for value in (10 ** low[1], 10 ** ((low[1] + high[1]) / 2), 10 ** high[1]):
            _, y = place((10 ** low[0], value))
            at = f'x="{chart * width + edge - 6}" y="{y + 4:.0f}"'
            out.append(f'<text {at} text-anchor="end" fill="#555">{value:.3g}</text>')
        for line, found in points.items():
            path = " ".join("{:.1f},{:.1f}".format(*place(point)) for point in found)
            out.append(f'<polyline points="{path}" fill="none" stroke="{COLORS[line]}" stroke-width="2"/>')
            out += [
                '<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>'.format(*place(p), COLORS[line])
                for p in found
            ]
    for i, name in enumerate(series):
        out.append(
            f'<rect x="{44 + 140 * i}" y="{height + 30}" width="12" height="12" fill="{COLORS[name]}"/>'
        )
        out.append(f'<text x="{60 + 140 * i}" y="{height + 40}">{name}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--lengths", default="1024,4096,8192,32768,131072")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--seconds", type=float, default=900, help="a length that would take longer is left out"
    )
    parser.add_argument("--svg", type=Path, help="where the chart is drawn")
    parser.add_argument("--cpu-time", action="store_true", help="processor time: one thread, busy machine")
    parser.add_argument("--quick", action="store_true", help="512 to 4,096 tokens")
    given = parser.parse_args()
    if given.cpu_time:
        CLOCK[0] = time.process_time
    lengths = [512, 1024, 2048, 4096] if given.quick else sorted(int(n) for n in given.lengths.split(","))
    seconds = 60.0 if given.quick else given.seconds
    print(f"quinze {quinze.__version__}, {llamacpp.version()}; {given.threads} x {processor()}")
    print(f"{given.model.name}\n")
    print("| | tokens | read, s | one more, ms | keys and values, MiB |\n|---|---|---|---|---|")
    series: dict[str, list[Row]] = {}
    for name in COLORS:
        kind = name.split()[1]
        if name.startswith("quinze"):
            series[name] = ours(given.model, kind, lengths, given.threads, seconds)
        else:
            series[name] = theirs(given.model, lengths, given.threads, seconds)
        for length, took, each, size in series[name]:
            print(
                f"| {name} | {length:,} | {took:.2f} | {each:.1f} | {f'{size:.0f}' if size else ''} |",
                flush=True,
            )
    if given.svg:
        given.svg.write_text(svg(series, f"{given.model.stem}, threads: {given.threads}"), "utf-8")


if __name__ == "__main__":
    main()
