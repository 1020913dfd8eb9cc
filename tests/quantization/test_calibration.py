"""Calibration: the sums are transformers' own, the file is llama.cpp's, and held-out text is harmed less."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest

from quinze.cli.main import run
from quinze.engine.engine import Engine
from quinze.errors import FileFormatError, InvalidRequestError
from quinze.formats.checkpoint import Tensor, TensorType
from quinze.formats.gguf import read_gguf
from quinze.formats.quants import decode, encode
from quinze.models.weights import load_model
from quinze.quantization.calibration import (
    Calibration,
    calibrate,
    load_calibration,
    save_calibration,
    sources_of,
    text_ids,
)
from quinze.quantization.encoder import encode_rows, recode
from quinze.quantization.levels import level
from quinze.quantization.quantize import quantize
from quinze.quantization.recommend import Budget, recommend, size_of
from quinze.quantization.report import Row, compare
from quinze.quantization.source import Source, gguf_name, open_source
from quinze.service.own_texts import OwnText, held_out


@pytest.fixture(scope="module")
def shakespeare(shared: Callable[[str], Path]) -> str:
    return shared("data/corpora/tinyshakespeare.txt").read_text()


@pytest.fixture(scope="module")
def calibrated(stories: Path, shakespeare: str) -> Calibration:
    return calibrate(stories, open_source(stories), text_ids(stories, [shakespeare[:20_000]], 4096))


@pytest.mark.parametrize("tied", [False, True])
def test_the_sums_are_those_that_transformers_multiplies_with(
    shared: Callable[[str], Path], tmp_path: Path, tied: bool, rng: np.random.Generator
) -> None:
    import torch
    import transformers

    torch.manual_seed(3)
    config = transformers.Qwen3Config(
        vocab_size=6400, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128, tie_word_embeddings=tied,
    )  # fmt: skip
    model = transformers.Qwen3ForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    for item in shared("data/tokenizers/minimind").iterdir():
        (tmp_path / item.name).write_bytes(item.read_bytes())
    expected: dict[str, np.ndarray] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: object, inputs: tuple[torch.Tensor, ...], output: object) -> None:
            squares = inputs[0].double().square().sum(dim=(0, 1)).numpy()
            expected[name] = expected.get(name, 0) + squares

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(watch(f"{name}.weight"))
    # The model's own length ends a window: 128 and 128 and 44 tokens.
    ids = rng.integers(3, 6400, 300).tolist()
    with torch.no_grad():
        for start in range(0, 300, 128):
            model(input_ids=torch.tensor([ids[start : start + 128]]))
    found = calibrate(tmp_path, open_source(tmp_path), ids)
    names = {name: gguf_name(name) for name in expected}
    if tied:
        names["lm_head.weight"] = "token_embd.weight"
    assert set(found.squares) == set(names.values())
    for name, sums in expected.items():
        np.testing.assert_allclose(found.squares[str(names[name])][0], sums / 300, rtol=2e-4)
        assert found.counts[str(names[name])].tolist() == [300]


def test_the_file_is_the_one_that_llama_cpp_keeps(calibrated: Calibration, tmp_path: Path) -> None:
    """Read by the gguf package: names, shapes and what is summed are llama-imatrix's."""
    path = tmp_path / "kept.gguf"
    save_calibration(calibrated, path)
    peer = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in peer.tensors}
    assert bytes(peer.fields["general.type"].parts[-1]) == b"imatrix"
    assert len(tensors) == 2 * len(calibrated.squares)
    for name, squares in calibrated.squares.items():
        sums, counts = tensors[f"{name}.in_sum2"].data, tensors[f"{name}.counts"].data
        assert (sums.shape, counts.shape) == (squares.shape, (1, 1))
        np.testing.assert_allclose(sums, squares * calibrated.tokens, rtol=1e-6)
        assert counts[0, 0] == calibrated.tokens
    again = load_calibration(path)
    for name, squares in calibrated.squares.items():
        np.testing.assert_allclose(again.squares[name], squares, rtol=1e-6)
    assert again.tokens == calibrated.tokens


def test_what_is_no_calibration_is_refused(tiny_f16: Path, stories: Path) -> None:
    with pytest.raises(FileFormatError, match="no calibration"):
        load_calibration(tiny_f16)
    with pytest.raises(InvalidRequestError, match="10 tokens"):
        calibrate(stories, open_source(stories), list(range(3, 13)))


@pytest.mark.parametrize("name", ["q5_0", "q4_1"])
def test_held_out_text_is_harmed_less(
    stories: Path, shakespeare: str, calibrated: Calibration, name: str
) -> None:
    """By some fifth (Q5_0) and tenth (Q4_1): only columns are told apart, no row is."""
    ids = text_ids(stories, [shakespeare[30_000:]], 2048)
    _, plain, weighed = compare(stories, [level(name)], ids, pure=True, calibration=calibrated)
    assert (plain.calibrated, weighed.calibrated) == (False, True)
    assert weighed.divergence < 0.95 * plain.divergence
    # The weights themselves come out less exact: the error is where it does no harm.
    assert weighed.error > plain.error


@pytest.mark.parametrize("kind", [kind for kind in TensorType if kind >= TensorType.Q4_0])
def test_the_weighed_error_is_no_larger_than_ggmls(
    ggml_quantize: Callable[..., np.ndarray], kind: TensorType, rng: np.random.Generator
) -> None:
    weights = rng.standard_normal((64, 512), dtype=np.float32)
    importance = np.exp(1.5 * rng.standard_normal(512)).astype(np.float32)

    def error(data: np.ndarray) -> float:
        off = decode(Tensor("w", kind, weights.shape, data)) - weights
        return float(np.sqrt((importance * off**2).sum()))

    ours, theirs = encode_rows(weights, kind, importance), ggml_quantize(weights, kind, importance)
    assert error(ours) <= 1.02 * error(theirs)


def test_each_expert_is_weighed_by_what_it_reads(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((3, 8, 64), dtype=np.float32)
    importance = np.exp(rng.standard_normal((3, 64))).astype(np.float32)
    with ThreadPoolExecutor(2) as pool:
        tensor = encode("blk.0.ffn_up_exps.weight", weights, TensorType.F32)
        data = np.concatenate(list(recode(tensor, TensorType.Q4_1, pool, importance)))
    each = [encode_rows(w, TensorType.Q4_1, i) for w, i in zip(weights, importance, strict=True)]
    np.testing.assert_array_equal(data, np.concatenate(each))
    found = Calibration(
        {"a": np.array([[1, 0, 3], [0, 0, 0]], np.float32)}, {"a": np.array([5, 0], np.float32)}, 5
    )
    weighs = found.importance("a", (2, 7, 3))
    assert weighs is not None
    assert 0 < weighs[0, 1] < 1e-3 * weighs[0, 0]
    assert weighs[1].tolist() == [1, 1, 1]
    assert found.importance("a", (2, 7, 4)) is None
    assert found.importance("b", (2, 7, 3)) is None


def test_a_file_tells_no_one_what_it_was_calibrated_on(
    stories: Path, calibrated: Calibration, tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    quantize(open_source(stories), level("q4_0"), out, calibration=calibrated)
    kept = {k: v for k, v in read_gguf(out).metadata.items() if k.startswith("quantize.")}
    assert kept == {"quantize.imatrix.entries_count": 36, "quantize.imatrix.chunks_count": 16}


def rows() -> list[Row]:
    def row(name: str, size: int, kl: float, calibrated: bool = False) -> Row:
        return Row(name, size, 8.0, calibrated, 0.01, perplexity=9.0, divergence=kl)

    return [
        row("original", 1000, 0), row("q8_0", 500, 0.001), row("q4_k_m", 300, 0.04),
        row("q4_k_m", 301, 0.03, True), row("q4_0", 280, 0.09),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("budget", "expected", "reason"),
    [
        (Budget(bytes=400), ("q4_k_m", True), "least damage"),
        (Budget(bytes=300), ("q4_k_m", False), "within 300 bytes"),
        (Budget(divergence=0.05), ("q4_k_m", False), "smallest"),
        (Budget(400, 0.01), None, "keeps the divergence within 0.01"),
        (Budget(bytes=100), None, "the smallest, q4_0, has 280 bytes"),
        (Budget(2000, 0.01), ("q8_0", False), "within 2.0 KB"),
    ],
)
def test_a_budget_chooses_and_says_why(budget: Budget, expected: object, reason: str) -> None:
    found = recommend(rows(), budget)
    assert (found.row and (found.row.level, found.row.calibrated)) == expected
    assert reason in found.reason


def test_sizes_are_read_as_people_write_them() -> None:
    assert [size_of(text) for text in ("500MB", "1.5 GiB", "2g", "12345")] == [
        500_000_000, 1_610_612_736, 2_000_000_000, 12_345,
    ]  # fmt: skip
    for wrong in ("", "much", "-5MB", "0", "5 TB", "1e9"):
        with pytest.raises(InvalidRequestError, match="is no size"):
            size_of(wrong)


def test_the_end_of_each_text_is_kept_apart() -> None:
    seen, unseen = held_out([OwnText("a", "abcd " * 100), OwnText("b", "汉字" * 50)])
    assert [a + b for a, b in zip(seen, unseen, strict=True)] == ["abcd " * 100, "汉字" * 50]
    assert [len(text) for text in unseen] == [100, 20]


def test_the_command_calibrates_on_a_folder_and_recommends(
    stories: Path, shakespeare: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("QUINZE_HOME", str(tmp_path / "home"))
    folder, kept, out = tmp_path / "texts", tmp_path / "kept.gguf", tmp_path / "out.gguf"
    folder.mkdir()
    for i in range(2):
        (folder / f"{i}.txt").write_text(shakespeare[4_000 * i : 4_000 * (i + 1)])
    command = ["quantize", str(stories), "--calibrate", str(folder), "--keep-calibration", str(kept)]
    assert run([*command, "--under", "270KB", "-o", str(out)]) == 0
    told = capsys.readouterr().out
    assert "does the least damage" in told
    assert out.stat().st_size < 270_000
    assert len(load_calibration(kept).squares) == 36
    assert run(["quantize", str(stories), "q4_0", "--calibrate", str(kept), "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["calibrated"] is True
    text = folder / "0.txt"
    for wrong in (
        ["--calibrate", str(folder), "--text", str(text), "--report"],
        ["--calibrate", "no such base", "--report"],
        ["--kl", "0.01"],
        ["q4_0", "--under", "1GB"],
        ["q4_0", "--keep-calibration", str(kept)],
    ):
        assert run(["quantize", str(stories), *wrong]) == 2, wrong
        assert capsys.readouterr().err.startswith("quinze: ")


def test_every_expert_is_seen_with_the_tokens_that_it_reads(tmp_path: Path, rng: np.random.Generator) -> None:
    """Together they saw each token as often as it has experts; transformers says what its input was."""
    import torch
    import transformers

    torch.manual_seed(5)
    config = transformers.Qwen3MoeConfig(
        vocab_size=512, hidden_size=64, intermediate_size=96, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_experts=6, num_experts_per_tok=2,
        max_position_embeddings=128, tie_word_embeddings=True, norm_topk_prob=True,
    )  # fmt: skip
    model = transformers.Qwen3MoeForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    inputs: list[np.ndarray] = []
    layer = model.model.layers[1].mlp
    layer.register_forward_hook(lambda _m, given, _o: inputs.append(given[0].double().numpy()[0]))
    ids = rng.integers(3, 512, 100).tolist()
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    engine = Engine(load_model(tmp_path), threads=2, kv_type="f32")
    engine.observe()
    engine.logits(ids)
    seen = engine.observed()
    names = [f"model.layers.1.mlp.experts.{e}.gate_proj.weight" for e in range(6)]
    assert sum(seen[name][1] for name in names) == 200
    total = sum(seen[name][0] for name in names)
    np.testing.assert_allclose(total, 2 * np.square(inputs[0]).sum(axis=0), rtol=2e-3)
    # The stack of GGUF gets them one an expert, in their order.
    stack = encode("blk.1.ffn_gate_exps.weight", np.zeros((6, 32, 64), np.float32), TensorType.F32)
    source = Source(tmp_path, [stack], {"general.architecture": "qwen3moe"}, 2, 0, [])
    assert sources_of(source, seen)["blk.1.ffn_gate_exps.weight"] == names
