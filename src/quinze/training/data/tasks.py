"""The kinds of work on blocks, as messages; so they can be done here or in another process alike."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from quinze.tokenizer.tokenizer import load_tokenizer
from quinze.training.data.chat_tasks import Rendered, Talk, render_block
from quinze.training.data.manifest import PrepareSettings
from quinze.training.data.rendering import Renderer
from quinze.training.data.text_tasks import (
    Cleaned,
    Encoded,
    Text,
    block_grams,
    clean_block,
    encode_block,
)


class CleanTexts(msgspec.Struct, tag=True):
    texts: list[Text]
    settings: PrepareSettings
    path: str


class ValGrams(msgspec.Struct, tag=True):
    """The 13-grams of each validation document of a block."""

    path: str
    fates: bytes
    settings: PrepareSettings


class SeenGrams(msgspec.Struct, tag=True):
    """Which of the sorted 13-grams in the file `known` the training documents of a block have."""

    path: str
    fates: bytes
    settings: PrepareSettings
    known: str


class EncodeTexts(msgspec.Struct, tag=True):
    path: str
    fates: bytes
    settings: PrepareSettings
    boilerplate: str
    tokenizer: str
    out: str


class Numbers(msgspec.Struct):
    arrays: list[bytes]
    """uint64 each."""


class RenderTalks(msgspec.Struct, tag=True):
    talks: list[Talk]
    settings: PrepareSettings
    tokenizer: str
    path: str


Task = RenderTalks | CleanTexts | ValGrams | SeenGrams | EncodeTexts
Result = Rendered | Cleaned | Numbers | Encoded


class Tasks:
    """Does them; keeps what they need again."""

    def __init__(self) -> None:
        self._tokenizer = functools.lru_cache(maxsize=1)(lambda folder: load_tokenizer(Path(folder)))
        self._renderer: Renderer | None = None
        self._numbers = functools.lru_cache(maxsize=1)(_numbers)

    def run(self, task: Task) -> Result:
        match task:
            case CleanTexts():
                return clean_block(task.texts, task.settings, Path(task.path))
            case ValGrams():
                found = block_grams(Path(task.path), task.fates, task.settings, "val")
                return Numbers([np.unique(item).tobytes() for item in found])
            case SeenGrams():
                return Numbers([self._seen(task).tobytes()])
            case RenderTalks():
                self._renderer = self._renderer or Renderer(self._tokenizer(task.tokenizer), task.settings)
                return render_block(task.talks, task.settings, self._renderer, Path(task.path))
            case EncodeTexts():
                return encode_block(
                    Path(task.path),
                    task.fates,
                    task.settings,
                    self._numbers(task.boilerplate),
                    self._tokenizer(task.tokenizer),
                    Path(task.out),
                )

    def close(self) -> None:
        """End the template's process, if there is one."""
        if self._renderer is not None:
            self._renderer.close()

    def _seen(self, task: SeenGrams) -> npt.NDArray[np.uint64]:
        known = self._numbers(task.known)
        seen = [np.empty(0, np.uint64)]
        for item in block_grams(Path(task.path), task.fates, task.settings, "train"):
            at = np.searchsorted(known, item)
            at[at == len(known)] = 0
            seen.append(item[known[at] == item] if len(known) else item[:0])
        return np.unique(np.concatenate(seen))


def _numbers(path: str) -> npt.NDArray[np.uint64]:
    return np.asarray(np.load(path, allow_pickle=False))
