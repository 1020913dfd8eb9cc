"""How fast does the engine read a prompt and write an answer, beside llama.cpp on the same file?

    python benchmarks/decode_prefill.py model.gguf [more.gguf ...]     (benchmarks/random_model.py makes some)
    python benchmarks/decode_prefill.py --table /tmp/models           (makes what is missing; 10 minutes)

Both are called without any text or sampling around them and take turns sample by sample, so that a busy
machine is busy for both. Medians are printed, and the ratio, which alone means something on a shared machine.
prefill N: N tokens at once; decode N: N tokens one by one; decode N at D: the same behind D tokens, with
the bytes of weights a second, as a share of what a plain read of memory reached between the samples.
load and rss are measured in processes of their own: a model opened, 16 tokens read and 16 written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import llamacpp
import quinze
import random_model
from quinze.engine.engine import Engine
from quinze.engine.packed import packed_weights
from quinze.models.weights import load_model

Clock = Callable[[], float]
TESTS = "prefill 512,prefill 128,decode 64,decode 32 at 512"
TABLE = [(shape, kind) for shape in ("smol135", "llama1b") for kind in ("q4_0_real", "q4_k_m", "q8_0", "f16")]
TABLE_TESTS = {
    "smol135": "prefill 512,decode 64,decode 32 at 512",
    "llama1b": "prefill 128,decode 16,decode 8 at 512",
}
TABLE_SAMPLES = {"smol135": 5, "llama1b": 3}


class Ours:
    def __init__(self, path: Path, threads: int) -> None:
        model = load_model(path)
        packed = packed_weights(model, threads)
        self.weight_bytes = sum(
            packed[name][3].nbytes if name in packed else tensor.data.nbytes
            for name, tensor in model.tensors.items()
        )
        self.engine = Engine(model, threads=threads, packed=packed)
        self.decoder = self.engine._running()
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


class Bandwidth:
    """Bytes a second of a plain read by so many threads, each with a stretch of its own."""

    def __init__(self, threads: int, size: int = 2**29) -> None:
        self._parts = np.array_split(np.ones(size // 8, np.uint64), threads)

    def measure(self) -> float:
        workers = [threading.Thread(target=part.max) for part in self._parts]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(part.nbytes for part in self._parts) / (time.perf_counter() - began)


def processor() -> str:
    with Path("/proc/cpuinfo").open() as lines:
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name", "?")
    return f"{name} (family {fields.get('cpu family')} model {fields.get('model')})"


def measure(
    path: Path, threads: int, samples: int, tests: list[str], clock: Clock, bandwidth: Bandwidth
) -> None:
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
        if test == tests[0]:
            run(ours), run(theirs)  # each has now seen the file
        found = [(run(ours), run(theirs), bandwidth.measure()) for _ in range(samples)]
        mine, other, _ = (statistics.median(column) for column in zip(*found, strict=True))
        ratio = statistics.median(a / b for a, b, _ in found)
        share = statistics.median(a * ours.weight_bytes / c for a, _, c in found)
        told = f"{mine * ours.weight_bytes / 1e9:.1f} ({share:.0%})" if kind == "decode" else ""
        print(
            f"| {path.stem} | {threads} | {test} | {mine:.1f} | {other:.1f} | {ratio:.2f} | {told} |",
            flush=True,
        )
    theirs.close()


# --- load and resident memory, each in a process of its own


def alone(path: Path, threads: int, who: str) -> None:
    """Load, the first tokens, and what is then resident, as JSON."""
    began = time.perf_counter()
    peer: Ours | llamacpp.LlamaCpp
    if who == "quinze":
        peer = Ours(path, threads)
    else:
        peer = llamacpp.LlamaCpp(path, context_length=2048, threads=threads)
    loaded = time.perf_counter()
    peer.forward(list(range(5, 21)))
    for token in range(5, 21):
        peer.forward([token])
    status = Path("/proc/self/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    print(json.dumps({"load": loaded - began, "rss": resident / 1024}))


def load_and_memory(path: Path, threads: int, samples: int = 3) -> None:
    found: dict[str, list[dict[str, float]]] = {"quinze": [], "llama.cpp": []}
    for _ in range(samples):
        for who, results in found.items():
            command = [sys.executable, __file__, str(path), "--threads", str(threads), "--alone", who]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    for what, unit in (("load", "s"), ("rss", "MiB")):
        mine, other = (statistics.median(one[what] for one in results) for results in found.values())
        print(
            f"| {path.stem} | {threads} | {what}, {unit} | {mine:.3g} | {other:.4g} | {mine / other:.2f} | |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="the whole table, of models made there")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--tests", default=TESTS)
    parser.add_argument("--cpu-time", action="store_true", help="processor time: one thread, busy machine")
    parser.add_argument("--alone", choices=("quinze", "llama.cpp"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        alone(given.models[0], given.threads, given.alone)
        return
    clock = time.process_time if given.cpu_time else time.perf_counter
    cores = len(os.sched_getaffinity(0))
    print(f"quinze {quinze.__version__}, {llamacpp.version()}; {cores} x {processor()}")
    print(f"clock: {'processor' if given.cpu_time else 'wall'} time, {given.samples} samples\n")
    print("| model | threads | test | quinze | llama.cpp | ratio | decode, GB/s (of a plain read) |")
    print("|---|---|---|---|---|---|---|")
    bandwidth = Bandwidth(given.threads)
    for path in given.models:
        measure(path, given.threads, given.samples, given.tests.split(","), clock, bandwidth)
    for shape, kind in TABLE if given.table else []:
        path = given.table / f"{shape}-{kind}.gguf"
        if not path.exists():
            given.table.mkdir(parents=True, exist_ok=True)
            random_model.write(path, shape, kind)
        load_and_memory(path, given.threads)
        tests, samples = TABLE_TESTS[shape].split(","), TABLE_SAMPLES[shape]
        measure(path, given.threads, samples, tests, clock, bandwidth)


if __name__ == "__main__":
    main()
