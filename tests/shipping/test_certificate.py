"""The certificate calls equal what is equal, and nothing else: each way to ship another model is planted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from quinze.formats.checkpoint import TensorType
from quinze.formats.quants import decode, encode
from quinze.formats.safetensors import read_safetensors, write_safetensors
from quinze.shipping.certificate import Certificate, certify
from quinze.shipping.export import export
from quinze.shipping.probes import PROMPTS, Probes
from quinze.shipping.verdicts import LEVEL_BOUNDS, Bounds
from quinze.shipping.views import EngineView, TrainerView, View

SOME = Probes(prompts=PROMPTS[::8], new_tokens=8)


@pytest.fixture(scope="module")
def trained(made: Any) -> Iterator[View]:
    view = TrainerView("trained", made.base, adapter=made.adapter)
    yield view
    view.close()


@pytest.fixture(scope="module")
def merged(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "merged"
    export(made.adapter, out, to="merged")
    return out


def verdict(trained: View, view: View, **more: Any) -> str:
    try:
        return certify(trained, [view], probes=SOME, **more).comparisons[0].verdict
    finally:
        view.close()


def test_there_are_two_hundred_prompts() -> None:
    assert len(set(PROMPTS)) == 200


def test_trainer_adapter_merged_and_gguf_say_the_same_tokens_on_200_prompts(
    trained: View, made: Any, merged: Path, tmp_path: Path
) -> None:
    export(merged, tmp_path / "out.gguf", to="gguf", level_name="f32")
    views = [
        EngineView("merged", merged, threads=1),
        EngineView("gguf f32", tmp_path / "out.gguf", threads=1),
        EngineView("adapter", made.base, adapter=made.adapter, threads=1),
    ]
    certificate = certify(trained, views, probes=Probes(new_tokens=8))
    assert certificate.prompts == 200
    for comparison in certificate.comparisons:
        assert comparison.verdict == "equal"
        greedy = next(c for c in comparison.checks if c.name == "greedy")
        assert greedy.numbers["same"] + greedy.numbers["ties"] / 200 == 1.0
    assert certificate.equal
    certificate.write(tmp_path)
    again = msgspec.json.decode((tmp_path / "certificate.json").read_bytes(), type=Certificate)
    assert again == certificate
    told = (tmp_path / "certificate.md").read_text(encoding="utf-8")
    assert "| merged | equal |" in told
    for view in views:
        view.close()


def test_an_adapter_that_was_not_merged_is_seen(trained: View, made: Any) -> None:
    assert "probabilities diverge" in verdict(trained, EngineView("merged", made.base, threads=1))


def test_another_template_is_seen(trained: View, merged: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(merged, tmp_path / "out"))
    said = json.loads((out / "tokenizer_config.json").read_text())
    said["chat_template"] = said["chat_template"].replace("assistant\n", "assistant")
    (out / "tokenizer_config.json").write_text(json.dumps(said))
    found = verdict(trained, EngineView("merged", out, threads=1))
    assert found.startswith("different: its chat template renders")
    del said["chat_template"]
    (out / "tokenizer_config.json").write_text(json.dumps(said))
    assert "no chat template" in verdict(trained, EngineView("merged", out, threads=1))


def test_another_end_is_seen(trained: View, merged: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(merged, tmp_path / "out"))
    for file in ("generation_config.json", "config.json"):
        said = json.loads((out / file).read_text())
        (out / file).write_text(json.dumps({**said, "eos_token_id": 77}))
    assert verdict(trained, EngineView("merged", out, threads=1)).startswith("different: it stops at")


def test_a_transposed_matrix_is_seen(trained: View, merged: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(merged, tmp_path / "out"))
    tensors = dict(read_safetensors(out / "model.safetensors"))
    name = "model.layers.1.self_attn.o_proj.weight"
    tensors[name] = encode(name, np.ascontiguousarray(decode(tensors[name]).T), TensorType.F32)
    write_safetensors(out / "new.safetensors", tensors.values())
    (out / "new.safetensors").replace(out / "model.safetensors")
    found = verdict(trained, EngineView("merged", out, threads=1))
    assert "greedy continuations" in found
    assert "probabilities diverge" in found


def test_another_vocabulary_is_seen(trained: View, merged: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(merged, tmp_path / "out"))
    file = json.loads((out / "tokenizer.json").read_text())
    vocab = file["model"]["vocab"]
    vocab["a"], vocab["e"] = vocab["e"], vocab["a"]
    (out / "tokenizer.json").write_text(json.dumps(file))
    assert "splits" in verdict(trained, EngineView("merged", out, threads=1))


def test_rounding_is_within_bounds_and_never_called_equal(
    trained: View, merged: Path, tmp_path: Path
) -> None:
    export(merged, tmp_path / "q8.gguf", to="gguf", level_name="q8_0")
    found = verdict(
        trained, EngineView("q8_0", tmp_path / "q8.gguf", threads=1), bounds={"q8_0": LEVEL_BOUNDS["q8_0"]}
    )
    assert found == "equal within stated bounds"
    assert verdict(trained, EngineView("q8_0", tmp_path / "q8.gguf", threads=1)).startswith("different")


def test_four_bits_that_erase_the_tune_are_seen(made: Any, tuned_by: Any, tmp_path: Path) -> None:
    """A light tune: the rounding is larger than what was learned, though both are small."""
    tune = tuned_by(0.002)
    export(tune, tmp_path / "q4.gguf", to="gguf", level_name="q4_0")
    trained, base = TrainerView("trained", made.base, adapter=tune), EngineView("base", made.base, threads=1)
    bounds = Bounds(divergence=10.0, first_tokens=0.0, bits_per_byte=10.0)
    view = EngineView("q4_0", tmp_path / "q4.gguf", threads=1)
    assert verdict(trained, view, bounds={"q4_0": bounds}, base=base).startswith(
        "different: only 0% of the tune"
    )
    export(tune, tmp_path / "f16.gguf", to="gguf", level_name="f16")
    view = EngineView("f16", tmp_path / "f16.gguf", threads=1)
    kept = verdict(trained, view, bounds={"f16": LEVEL_BOUNDS["f16"]}, base=base)
    assert kept == "equal within stated bounds"
    trained.close()
    base.close()
