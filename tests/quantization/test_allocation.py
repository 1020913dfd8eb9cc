"""The level "auto": bits where they spare the most damage, and a file that keeps within its size."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quinze.cli.main import run
from quinze.errors import InvalidRequestError
from quinze.formats.checkpoint import TensorType
from quinze.quantization.allocation import AUTO, Choice, allocate, share_out
from quinze.quantization.calibration import text_ids
from quinze.quantization.levels import level
from quinze.quantization.report import compare
from quinze.quantization.source import open_source

TYPES = (TensorType.Q4_0, TensorType.Q5_0, TensorType.Q8_0)


def choices(rng: np.random.Generator, count: int = 6) -> list[Choice]:
    found = []
    for i in range(count):
        damage = np.sort(rng.exponential(size=3))[::-1]
        found.append(Choice(f"{i}", TYPES, (18, 22, 34), tuple(damage.tolist())))
    return found


def cost(choices: list[Choice], types: dict[str, TensorType]) -> tuple[int, float]:
    at = [(choice, choice.types.index(types[choice.name])) for choice in choices]
    return sum(choice.bytes[i] for choice, i in at), sum(choice.damage[i] for choice, i in at)


def test_no_other_mixture_is_better_by_more_than_a_step(rng: np.random.Generator) -> None:
    """Against all 3^6 mixtures: the greedy one is the best of its own size, and at most one step off."""
    for _ in range(5):
        offered = choices(rng)
        every = [
            cost(offered, {str(i): kind for i, kind in enumerate(mixture)})
            for mixture in itertools.product(TYPES, repeat=6)
        ]
        for size in range(108, 205, 7):
            bytes_, damage = cost(offered, share_out(offered, size))
            assert bytes_ <= size
            less = [other for taken, other in every if taken <= size - 16]
            assert damage <= min(less, default=np.inf) + 1e-12
    with pytest.raises(InvalidRequestError, match="8 bytes more"):
        share_out(offered, 100)


def test_a_step_that_spares_little_is_taken_with_the_better_one_behind_it() -> None:
    odd = Choice("a", TYPES, (18, 22, 34), (1.0, 0.99, 0.0))
    even = Choice("b", TYPES, (18, 22, 34), (1.0, 0.9, 0.88))
    assert share_out([odd, even], 52) == {"a": TensorType.Q8_0, "b": TensorType.Q4_0}


def test_it_harms_less_than_a_uniform_level_of_its_size(
    stories: Path, shared: Callable[[str], Path], tmp_path: Path
) -> None:
    """On text that decided nothing: at the size of q4_0, less than three quarters of its divergence."""
    text = shared("data/corpora/tinyshakespeare.txt").read_text()
    seen, judged = text_ids(stories, [text[:3000]], 512), text_ids(stories, [text[50_000:]], 2048)
    uniform = compare(stories, [level("q4_0")], judged)[1]
    types = allocate(open_source(stories), seen, uniform.bytes)
    mixed = compare(stories, [AUTO], judged, types=types)[1]
    assert 0.98 * uniform.bytes < mixed.bytes <= uniform.bytes
    assert mixed.divergence < 0.75 * uniform.divergence
    assert len(set(types.values())) > 1


def test_the_command_writes_the_mixture_within_its_size(
    stories: Path, shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("QUINZE_HOME", str(tmp_path / "home"))
    text, out = tmp_path / "text.txt", tmp_path / "out.gguf"
    text.write_text(shared("data/corpora/tinyshakespeare.txt").read_text()[:4000])
    command = ["quantize", str(stories), "auto", "--text", str(text), "--under", "270KB"]
    assert run([*command, "-o", str(out)]) == 0
    assert "auto does the least damage" in capsys.readouterr().out
    assert 260_000 < out.stat().st_size <= 270_000
    assert run([*command[:-1], "1KB", "--json"]) == 2
    assert json.loads(capsys.readouterr().out or "{}") == {}
    for wrong in (["auto"], ["auto", "--under", "1MB"], ["auto", "--report", "--text", str(text)]):
        assert run(["quantize", str(stories), *wrong]) == 2
        assert "auto" in capsys.readouterr().err
