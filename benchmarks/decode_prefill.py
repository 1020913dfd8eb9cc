"""How fast does the engine read a prompt and write an answer, beside llama.cpp on the same file?

    python benchmarks/decode_prefill.py model.gguf [more.gguf ...]     (benchmarks/random_model.py makes some)

Both are called without any text or sampling around them and take turns sample by sample, so that a busy
machine is busy for both. Medians are printed, and the ratio, which alone means something on a shared machine.
prefill N: N tokens at once; decode N: N tokens one by one; decode N at D: the same behind D tokens.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import llamacpp
import quinze
from quinze.engine.engine import Engine
from quinze.models.weights import load_model

Clock = Callable[[], float]


class Ours:
    def __init__(self, path: Path, threads: int) -> None:
        self.engine = Engine(load_model(path), threads=threads)
        assert self.engine._decoder is not None
        self.decoder = self.engine._decoder
        self.cache = self.decoder.cache("f16")

    def clear(self) -> None:
        self.cache = self.decoder.cache("f16")

    def forward(self, ids: list[int]) -> None:
        assert self.decoder.forward(self.cache, np.asarray(ids, np.int32), None)


def tokens_per_second(
    peer: Ours | llamacpp.LlamaCpp, ids: list[int], depth: list[int], at_once: bool, clock: Clock
) -> float:
    peer.clear()
    if depth:
        peer.forward(depth)
    began = clock()
    if at_once:
        peer.forward(ids)
    else:
        for token in ids:
            peer.forward([token])
    return len(ids) / (clock() - began)


def processor() -> str:
    with Path("/proc/cpuinfo").open() as lines:
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name", "?")
    return f"{name} (family {fields.get('cpu family')} model {fields.get('model')})"


def measure(path: Path, threads: int, samples: int, tests: list[str], clock: Clock) -> None:
    ours, theirs = Ours(path, threads), llamacpp.LlamaCpp(path, context_length=2048, threads=threads)
    rng = np.random.default_rng(0)

    def some(n: int) -> list[int]:
        return [int(i) for i in rng.integers(3, ours.engine.config.vocab_size, n)]

    for test in tests:
        kind, _, rest = test.partition(" ")
        count, _, depth = rest.partition(" at ")
        ids, before = some(int(count)), some(int(depth or 0))
        run: Callable[[Ours | llamacpp.LlamaCpp], float]
        run = lambda peer: tokens_per_second(peer, ids, before, kind == "prefill", clock)  # noqa: B023, E731
        run(ours), run(theirs)  # each has now seen the file
        pairs = [(run(ours), run(theirs)) for _ in range(samples)]
        mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"| {path.stem} | {threads} | {test} | {mine:.1f} | {other:.1f} | {ratio:.2f} |", flush=True)
    theirs.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--tests", default="prefill 512,prefill 128,decode 64,decode 32 at 512")
    parser.add_argument("--cpu-time", action="store_true", help="processor time: one thread, busy machine")
    given = parser.parse_args()
    clock = time.process_time if given.cpu_time else time.perf_counter
    cores = len(os.sched_getaffinity(0))
    print(f"quinze {quinze.__version__}, {llamacpp.version()}; {cores} x {processor()}")
    print(f"clock: {'processor' if given.cpu_time else 'wall'} time, {given.samples} samples\n")
    print("| model | threads | test | quinze tok/s | llama.cpp tok/s | ratio |\n|---|---|---|---|---|---|")
    for path in given.models:
        measure(path, given.threads, given.samples, given.tests.split(","), clock)


if __name__ == "__main__":
    main()
