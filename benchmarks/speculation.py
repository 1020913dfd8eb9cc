"""Answers that quote their passages: how much faster do they come when what repeats is guessed?

    python benchmarks/random_model.py llama1b q4_0 /tmp/llama1b-q4_0.gguf
    python benchmarks/speculation.py /tmp/llama1b-q4_0.gguf [--quick]

A model of random weights quotes nothing, so the answers are given: passages of Quinze's own documentation,
and answers that repeat sentences of them between words of their own. Each is written twice, in turns: id by
id, and as the engine does it, with guesses looked up, checked by the decoder in the same pass and kept as far
as they are right. Only what the model itself would choose is passed over. Answers that quote nothing must not
get slower.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import time
import zlib
from pathlib import Path

import numpy as np

import quinze
from decode_prefill import processor
from quinze import native
from quinze.engine.engine import Engine
from quinze.engine.pace import Pace
from quinze.engine.packed import packed_weights
from quinze.engine.speculation import PromptLookup
from quinze.models.weights import load_model

DOCS = Path(__file__).resolve().parent.parent / "docs" / "guides"


def ids_of(text: str, vocabulary: int) -> list[int]:
    """A token for each word and mark: which does not matter, only that the same are the same."""
    return [3 + zlib.crc32(word.encode()) % (vocabulary - 3) for word in re.findall(r"\w{1,6}|\S", text)]


def sentences(text: str) -> list[str]:
    plain = re.sub(r"```.*?```|[#|*`]", " ", text, flags=re.DOTALL)
    return [one for one in re.split(r"(?<=[.:])\s+", " ".join(plain.split())) if 60 < len(one) < 240]


def cases(count: int) -> list[tuple[str, str, str]]:
    """(name, passages, answer): much quoted, half quoted, not at all."""
    passages = [sentences(path.read_text("utf-8")) for path in sorted(DOCS.glob("*.md"))]
    found = []
    for number in range(count):
        here = passages[number % len(passages)][:12]
        there = passages[(number + 1) % len(passages)]
        a, b, c = here[1], here[len(here) // 2], here[-1]
        prompt = " ".join(here)
        found += [
            ("quotes", prompt, f'The notes say: "{a}" [1] They go on: "{b}" [2] In the end: "{c}" [3]'),
            ("half quoted", prompt, f'The notes say: "{a}" [1] {there[0]} {there[1]} And: "{c}" [3]'),
            ("its own words", prompt, " ".join(there[2:6])),
        ]
    return found


class Writer:
    """Writes a given answer behind a prompt."""

    def __init__(self, decoder: native.Decoder, prompt: list[int], pace: Pace | None) -> None:
        self.decoder, self.pace = decoder, pace
        self.cache = decoder.cache("f16")
        decoder.forward(self.cache, np.asarray(prompt, np.int32))
        self.sampler = native.sampler(temperature=0, top_k=0, top_p=1, min_p=0, repetition_penalty=1, seed=0)
        self.lookup = PromptLookup(prompt)

    def write(self, answer: list[int]) -> tuple[float, int, int]:
        """(seconds, guessed, right)"""
        began, at, guessed, right = time.perf_counter(), 0, 0, 0
        self.lookup.extend(answer[:1])
        while at < len(answer) - 1:
            guesses = self.lookup.guess(self.pace) if self.pace else []
            ids = np.asarray([answer[at], *guesses], np.int32)
            before, start = self.cache.length, time.perf_counter()
            self.decoder.step([(self.cache, ids, False, len(guesses), self.sampler, None, -1)])
            took = time.perf_counter() - start
            following = answer[at + 1 : at + 2 + len(guesses)]
            kept = next((i for i, (a, b) in enumerate(zip(guesses, following, strict=False)) if a != b), None)
            kept = min(len(guesses), len(following) - 1) if kept is None else kept
            # The random model chose something else: the cache goes on from what the answer says.
            self.decoder.truncate(self.cache, before + 1)
            self._keep(guesses[:kept])
            began += time.perf_counter() - start - took
            if self.pace:
                self.pace.wrote(len(ids), took)
            self.lookup.extend(following[: kept + 1])
            at, guessed, right = at + kept + 1, guessed + len(guesses), right + kept
        return time.perf_counter() - began, guessed, right

    def _keep(self, ids: list[int]) -> None:
        """What was right stays in the cache; its computing was timed with the step that checked it."""
        if ids:
            self.decoder.forward(self.cache, np.asarray(ids, np.int32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--answers", type=int, default=5, help="of each kind")
    parser.add_argument("--quick", action="store_true", help="two answers of each kind")
    given = parser.parse_args()
    print(f"quinze {quinze.__version__}; {given.threads} x {processor()}; {given.model.name}\n")
    loaded = load_model(given.model)
    engine = Engine(loaded, threads=given.threads, packed=packed_weights(loaded, given.threads))
    decoder, vocabulary, pace = engine._running(), loaded.config.vocab_size, Pace()
    found: dict[str, list[tuple[float, float, int]]] = {}
    for name, passages, answer in cases(2 if given.quick else given.answers):
        prompt, ids = ids_of(passages, vocabulary), ids_of(answer, vocabulary)
        plain, _, _ = Writer(decoder, prompt, None).write(ids)
        guessing, guessed, right = Writer(decoder, prompt, pace).write(ids)
        found.setdefault(name, []).append((plain / guessing, right / max(1, guessed), right))
    print("| answer | speed, guessing / plain | guesses right | tokens guessed right |\n|---|---|---|---|")
    for name, rows in found.items():
        ratio, share, right = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {ratio:.2f} | {100 * share:.0f} % | {right:.0f} |")
    costs = ", ".join(f"{n}: {pace.cost(n):.2f}" for n in (2, 3, 4, 6, 8, 12))
    print(f"\na pass over n ids against one over a single id: {costs}")


if __name__ == "__main__":
    main()
