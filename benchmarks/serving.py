"""Many clients at once: how many tokens a second do they get together, how soon the first, and how evenly?

    python benchmarks/random_model.py smol135 q4_0 /tmp/smol135-q4_0.gguf
    python benchmarks/serving.py /tmp/smol135-q4_0.gguf [--quick]

`quinze serve` and llama.cpp's own server (through xllamacpp), each in a process of its own, on the same file,
with the same threads and as many slots as there are clients, answer the same requests of the same client:
streamed completions, greedy, of random prompts that share nothing. They take turns, round by round.
Then one client alone, beside what the engine writes without a service around it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

import llamacpp
import quinze
from decode_prefill import processor

LLAMA_CPP = """
import sys, time, xllamacpp as x
p = x.CommonParams()
p.model.path, p.n_parallel, p.n_ctx, p.port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 0
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(sys.argv[4])
server = x.Server(p)
print(server.listening_address, flush=True)
time.sleep(10**6)
"""


@dataclass(frozen=True, slots=True)
class Answer:
    client: int
    first: float
    """Seconds until its first piece of text."""
    seconds: float
    tokens: int


@contextmanager
def serving(name: str, model: Path, clients: int, length: int, threads: int) -> Iterator[str]:
    """The address of a server that has answered one request already."""
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ, "QUINZE_HOME": home, "QUINZE_PORT": "0", "QUINZE_THREADS": str(threads),
            "QUINZE_MAX_GENERATIONS": str(clients), "QUINZE_DEFAULT_MODEL": str(model),
        }  # fmt: skip
        code = [sys.executable, "-m", "quinze.cli", "serve"]
        if name == "llama.cpp":
            code = [
                sys.executable,
                "-c",
                LLAMA_CPP,
                str(model),
                str(clients),
                str(clients * length),
                str(threads),
            ]
        with (Path(home) / "log").open("w+b") as log:
            server = subprocess.Popen(code, env=environment, stdout=log, stderr=subprocess.STDOUT)
            try:
                address = _address(Path(home) / "log", server)
                ask(address, model.stem, "t5 t6 t7", 4, 0)
                yield address
            finally:
                server.terminate()
                server.wait(20)


def _address(log: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        for word in log.read_text(errors="replace").split():
            found = word.strip("'\"().,")
            if found.startswith("http://127.0.0.1:"):
                return found.rstrip("/")
        time.sleep(0.1)
    raise RuntimeError(f"no server: {log.read_text(errors='replace')[-2000:]}")


def ask(address: str, model: str, prompt: str, tokens: int, client: int) -> Answer:
    body = {
        "model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    began, first, written = time.perf_counter(), 0.0, 0
    with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=600) as reply:
        if reply.status_code != 200:
            raise RuntimeError(reply.read().decode())
        for line in reply.iter_lines():
            if not line.startswith("data: {"):
                continue
            piece = json.loads(line[6:])
            if not first and any(choice.get("text") for choice in piece.get("choices", [])):
                first = time.perf_counter() - began
            if piece.get("usage"):
                written = piece["usage"]["completion_tokens"]
    return Answer(client, first, time.perf_counter() - began, written)


def at_once(address: str, model: str, prompts: list[list[str]], tokens: int) -> tuple[float, list[Answer]]:
    """Seconds of all, and each answer: as many clients as there are lists, each asks its prompts in turn."""
    answers: list[Answer] = []

    def client(number: int) -> None:
        answers.extend(ask(address, model, prompt, tokens, number) for prompt in prompts[number])

    threads = [threading.Thread(target=client, args=(i,)) for i in range(len(prompts))]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, answers


def words(rng: np.random.Generator, count: int) -> str:
    return " ".join(f"t{number}" for number in rng.integers(0, 40_000, count))


def row(name: str, took: float, answers: list[Answer]) -> tuple[float, str]:
    rate = sum(answer.tokens for answer in answers) / took
    first = sorted(answer.first for answer in answers)
    each = [answer.tokens / answer.seconds for answer in answers]
    p95 = first[min(len(first) - 1, int(0.95 * len(first)))]
    return rate, (
        f"| {name} | {rate:.1f} | {statistics.median(first):.2f} | {p95:.2f} | {min(each) / max(each):.2f} |"
    )


def bare(model: Path, threads: int, tokens: int) -> float:
    """Tokens a second that the engine writes, behind eight others, with nothing around it."""
    from quinze.engine.engine import Engine
    from quinze.engine.packed import packed_weights
    from quinze.models.weights import load_model

    loaded = load_model(model)
    engine = Engine(loaded, threads=threads, packed=packed_weights(loaded, threads))
    decoder = engine._running()
    cache = decoder.cache("f16")
    decoder.forward(cache, np.arange(5, 13, dtype=np.int32))
    one = np.full(1, 7, np.int32)
    decoder.forward(cache, one)
    began = time.perf_counter()
    for _ in range(tokens):
        decoder.forward(cache, one)
    return tokens / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2, help="of each client in a round")
    parser.add_argument("--prompt", type=int, default=24, help="words of a prompt, of several tokens each")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="two rounds of one request of 32 tokens")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.requests, given.tokens = 2, 1, 32
    print(f"quinze {quinze.__version__}, {llamacpp.version()}; {given.threads} x {processor()}")
    print(f"{given.clients} clients, {given.requests} requests each of {given.prompt} words and "
          f"{given.tokens} tokens, {given.rounds} rounds, {given.model.name}\n")  # fmt: skip
    rng = np.random.default_rng(15)
    length = 8 * given.prompt + given.tokens + 64
    names = ("quinze", "llama.cpp")
    rates: dict[str, list[float]] = {name: [] for name in names}
    print("| server | tokens/s | first token p50, s | p95, s | slowest / fastest |\n|---|---|---|---|---|")
    for _ in range(given.rounds):
        prompts = [[words(rng, given.prompt) for _ in range(given.requests)] for _ in range(given.clients)]
        for name in names:
            with serving(name, given.model, given.clients, length, given.threads) as address:
                rate, text = row(name, *at_once(address, given.model.stem, prompts, given.tokens))
            rates[name].append(rate)
            print(text, flush=True)
    ratios = [a / b for a, b in zip(*(rates[name] for name in names), strict=True)]
    print(f"\nratio of the tokens a second, median: {statistics.median(ratios):.2f}")
    pairs: list[tuple[float, float]] = []
    with serving("quinze", given.model, given.clients, length, given.threads) as address:
        for _ in range(3):
            answer = ask(address, given.model.stem, "t5 t6", 2 * given.tokens, 0)
            alone = (answer.tokens - 1) / (answer.seconds - answer.first)
            pairs.append((alone, bare(given.model, given.threads, 2 * given.tokens)))
    mine, engine = (statistics.median(column) for column in zip(*pairs, strict=True))
    share = statistics.median(a / b for a, b in pairs)
    print(f"one client: {mine:.1f} tokens/s through HTTP, {engine:.1f} bare: {100 * share:.0f} %")


if __name__ == "__main__":
    main()
