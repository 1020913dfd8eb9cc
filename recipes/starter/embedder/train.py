"""Make the starter embedder from the corpora: about twenty minutes of one core.

    python recipes/starter/embedder/train.py --corpora ../shared/data/corpora --out /tmp/embedder

Vocabulary, pairs, vectors, then int8. Symmetric InfoNCE (van den Oord et al. 2018) within batches of one
group, at the first D, D/2 and D/4 numbers (Matryoshka, Kusupati et al. 2022). `--vocabulary FILE` takes
one that is already there. Needs quinze[train].
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import NamedTuple

import corpora
import numpy as np
import numpy.typing as npt
import torch
import vocabulary
from tokenizers import Tokenizer
from torch.nn import functional

from quinze.embeddings.folding import fold

DIMENSIONS, STEPS, BATCH = 256, 3000, 1024
TEMPERATURE, RATE, WARM_UP = 0.05, 0.02, 50
MOST_PIECES = 160
SHARE_POWER = 0.75
"""A group is drawn as often as its number of pairs to this power: small ones more than their share."""
COMMON = 1e-4
"""At first a piece is as long as sqrt(COMMON / (COMMON + its share)) (after Arora et al. 2017)."""
Ids = npt.NDArray[np.int64]


class Side(NamedTuple):
    """One half of all pairs: their ids laid end to end."""

    ids: Ids
    offsets: Ids

    def means(self, vectors: torch.Tensor, rows: Ids) -> torch.Tensor:
        """(rows, D): the mean of each text's pieces."""
        parts = [self.ids[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
        ids = torch.from_numpy(np.concatenate(parts))
        return functional.embedding_bag(ids, vectors, torch.from_numpy(starts), mode="mean")


class Pairs(NamedTuple):
    a: Side
    b: Side
    groups: dict[str, Ids]
    """Rows of each."""


def encoded(folder: Path, tokenizer: Tokenizer) -> Pairs:
    tokenizer.enable_truncation(MOST_PIECES)
    found: dict[str, list[int]] = {}
    sides: tuple[list[Ids], list[Ids]] = ([], [])
    batch: list[corpora.Pair] = []

    def flush() -> None:
        halves = [
            [
                np.array([id_ for id_ in encoding.ids if id_], np.int64)
                for encoding in tokenizer.encode_batch([fold(pair[side]) for pair in batch])
            ]
            for side in (1, 2)
        ]
        for pair, a, b in zip(batch, *halves, strict=True):
            if len(a) and len(b):
                found.setdefault(pair.group, []).append(len(sides[0]))
                sides[0].append(a)
                sides[1].append(b)
        batch.clear()

    for pair in corpora.pairs(folder, random.Random(1)):
        batch.append(pair)
        if len(batch) == 20_000:
            flush()
    flush()
    a, b = (Side(np.concatenate(side), np.cumsum([0, *map(len, side)])) for side in sides)
    return Pairs(a, b, {group: np.array(rows) for group, rows in found.items()})


def first_vectors(pairs: Pairs, pieces: int, dimensions: int) -> torch.Tensor:
    counts = np.bincount(pairs.a.ids, minlength=pieces) + np.bincount(pairs.b.ids, minlength=pieces)
    share = torch.from_numpy(counts / counts.sum()).float()
    vectors = torch.randn(pieces, dimensions) * 0.1 * (COMMON / (COMMON + share))[:, None].sqrt()
    return vectors.requires_grad_()


def loss_of(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Each text must find its partner among all of the batch, in both directions and at three sizes."""
    target = torch.arange(len(a))
    total = torch.zeros(())
    for size, weight in ((a.shape[1], 1.0), (a.shape[1] // 2, 0.5), (a.shape[1] // 4, 0.25)):
        likeness = functional.normalize(a[:, :size]) @ functional.normalize(b[:, :size]).T / TEMPERATURE
        both = functional.cross_entropy(likeness, target) + functional.cross_entropy(likeness.T, target)
        total = total + weight * both / 2
    return total / 1.75


class Draw:
    """Batches of one group at a time; every pair of a group is seen before one is seen again."""

    def __init__(self, groups: dict[str, Ids]) -> None:
        self._random = np.random.default_rng(0)
        self._rows = list(groups.values())
        sizes = np.array([len(rows) ** SHARE_POWER for rows in self._rows])
        self._odds = sizes / sizes.sum()
        self._left: list[Ids] = [np.empty(0, np.int64) for _ in self._rows]

    def batch(self) -> Ids:
        group = self._random.choice(len(self._rows), p=self._odds)
        if len(self._left[group]) < BATCH:
            self._left[group] = self._random.permutation(self._rows[group])
        rows, self._left[group] = self._left[group][:BATCH], self._left[group][BATCH:]
        return rows


def train(pairs: Pairs, pieces: int, steps: int, log: Path) -> npt.NDArray[np.float32]:
    torch.manual_seed(0)
    vectors = first_vectors(pairs, pieces, DIMENSIONS)
    optimizer = torch.optim.Adam([vectors], lr=RATE, betas=(0.9, 0.99))
    draw, began, mean = Draw(pairs.groups), time.perf_counter(), 0.0
    with log.open("w") as lines:
        for step in range(1, steps + 1):
            rows = draw.batch()
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1, step / WARM_UP) * max(0.02, 1 - step / steps)
            loss = loss_of(pairs.a.means(vectors, rows), pairs.b.means(vectors, rows))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean = loss.item() if step == 1 else 0.98 * mean + 0.02 * loss.item()
            if step % 100 == 0:
                seconds = round(time.perf_counter() - began, 1)
                line = {"step": step, "loss": round(mean, 4), "seconds": seconds}
                print(json.dumps(line), file=lines, flush=True)
                print(line, flush=True)
    return vectors.detach().numpy()


def save(vectors: npt.NDArray[np.float32], tokenizer: Tokenizer, out: Path) -> None:
    """int8 rows, each with a scale of its own."""
    scales = np.abs(vectors).max(axis=1) / 127
    scales[scales == 0] = 1
    tokenizer.no_truncation()
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    np.save(out / "vectors.npy", np.round(vectors / scales[:, None]).astype(np.int8))
    np.save(out / "scales.npy", scales.astype("<f2"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocabulary", type=Path, help="a tokenizer.json of an earlier run")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.vocabulary:
        tokenizer = Tokenizer.from_file(str(given.vocabulary))
    else:
        tokenizer = vocabulary.learn(given.corpora)
    pairs = encoded(given.corpora, tokenizer)
    print({group: len(rows) for group, rows in pairs.groups.items()}, flush=True)
    vectors = train(pairs, tokenizer.get_vocab_size(), given.steps, given.out / "loss.jsonl")
    save(vectors, tokenizer, given.out)


if __name__ == "__main__":
    main()
