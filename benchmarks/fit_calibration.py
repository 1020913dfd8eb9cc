"""How far is the speed that `quinze fit` forecasts from the speed that is measured, over models and contexts?

    python benchmarks/fit_calibration.py model.gguf [more.gguf ...]     (random_model.py makes some)

Forecast and measurement take turns, because a shared machine is now fast and now slow: the profile is
measured anew before each sample. With --cpu-time it is one thread and the processor's time, which other
programs disturb least. Medians over the samples are printed, and the error of the forecast.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import quinze
from quinze.engine import fit
from quinze.engine.engine import Engine
from quinze.engine.profile import measure, processor
from quinze.models.weights import Model, load_model

Clock = Callable[[], float]
DECODED = 16


def measured(engine: Engine, prompt: int, depth: int, clock: Clock) -> tuple[float, float, float]:
    """Tokens a second: reading `prompt`, writing at the beginning, writing behind `depth`."""
    decoder = engine._running()
    ids = np.random.default_rng(0).integers(0, engine.config.vocab_size, max(prompt, depth)).astype(np.int32)

    def write(behind: int) -> float:
        cache = decoder.cache("f16")
        decoder.forward(cache, ids[:behind])
        found = []
        for token in ids[:DECODED]:
            began = clock()
            decoder.forward(cache, ids[:1] * 0 + token)
            found.append(clock() - began)
        return 1 / statistics.median(found)

    began = clock()
    decoder.forward(decoder.cache("f16"), ids[:prompt])
    return prompt / (clock() - began), write(1), write(depth - DECODED)


def compare(model: Model, threads: int, samples: int, prompt: int, depth: int, clock: Clock) -> list[str]:
    engine = Engine(model, threads=threads)
    measured(engine, prompt, depth, clock)  # the file has now been read
    told, found = [], []
    for _ in range(samples):
        profile = measure(fit.types(model), threads, clock=clock)
        speed = fit.speed(model, profile, depth, prompt=prompt)
        told.append((speed.prefill, speed.decode, speed.decode_full))
        found.append(measured(engine, prompt, depth, clock))
    rows = []
    names = (f"prefill {prompt}", "decode", f"decode at {depth}")
    for name, forecast, real in zip(names, zip(*told, strict=True), zip(*found, strict=True), strict=True):
        one, other = statistics.median(forecast), statistics.median(real)
        rows.append(f"| {name} | {one:.1f} | {other:.1f} | {one / other - 1:+.0%} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--depth", type=int, default=1024)
    parser.add_argument("--cpu-time", action="store_true", help="one thread, processor time: busy machine")
    given = parser.parse_args()
    clock = time.process_time if given.cpu_time else time.perf_counter
    threads = 1 if given.cpu_time else given.threads
    print(f"quinze {quinze.__version__}, {processor()}, {threads} threads, {given.samples} samples")
    print("\n| model | test | forecast tok/s | measured tok/s | error |\n|---|---|---|---|---|")
    for path in given.models:
        for row in compare(load_model(path), threads, given.samples, given.prompt, given.depth, clock):
            print(f"| {path.stem} {row}", flush=True)


if __name__ == "__main__":
    main()
