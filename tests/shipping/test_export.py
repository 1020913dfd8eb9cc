"""What is exported is read by others, and says what was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import peft
import pytest
import torch
import transformers

from quinze.engine.engine import Engine
from quinze.errors import ConflictError, FileFormatError, InvalidRequestError
from quinze.models.adapters import fitted, read_adapter
from quinze.models.transformer import Transformer
from quinze.models.weights import load_model
from quinze.quantization.levels import level
from quinze.quantization.quantize import quantize
from quinze.quantization.source import open_source
from quinze.shipping.export import export, forecast, resolve
from quinze.tokenizer.tokenizer import load_tokenizer
from quinze.training.lora import apply_adapter

IDS = list(range(3, 40))


def tuned(made: Any) -> np.ndarray:
    """The logits of base and adapter by PyTorch."""
    opened = load_model(made.base)
    model = Transformer.of(opened)
    apply_adapter(model, fitted(read_adapter(made.adapter), opened, as_folder=True))
    with torch.no_grad():
        return np.asarray(model(torch.tensor([IDS]))[0])


def test_transformers_and_the_engine_read_the_merged_folder(made: Any, tmp_path: Path) -> None:
    done = export(made.adapter, tmp_path / "out", to="merged")
    wanted = tuned(made)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert np.abs(theirs(torch.tensor([IDS])).logits[0].numpy() - wanted).max() < 1e-4
    assert np.abs(Engine(load_model(tmp_path / "out"), kv_type="f32").logits(IDS) - wanted).max() < 1e-3
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert words.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False).startswith(
        "<|im_start|>"
    )
    assert done.bytes > 0


def test_peft_reads_the_adapter_and_gives_the_same_logits(made: Any, tmp_path: Path) -> None:
    export(made.adapter, tmp_path / "out", to="adapter")
    base = transformers.AutoModelForCausalLM.from_pretrained(made.base)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "out")
    with torch.no_grad():
        assert np.abs(theirs(torch.tensor([IDS])).logits[0].numpy() - tuned(made)).max() < 1e-4


def test_the_gguf_of_an_adapter_is_merged_before_it_is_rounded(made: Any, tmp_path: Path) -> None:
    export(made.adapter, tmp_path / "out.gguf", to="gguf", level_name="f32")
    assert (
        np.abs(Engine(load_model(tmp_path / "out.gguf"), kv_type="f32").logits(IDS) - tuned(made)).max()
        < 1e-3
    )
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    assert reader.fields["tokenizer.chat_template"] is not None


def test_a_run_is_its_final_folder(made: Any, tmp_path: Path) -> None:
    shutil.copytree(made.adapter, tmp_path / "run" / "final")
    assert resolve(tmp_path / "run").path == made.base


def test_an_adapter_merges_into_a_quantized_file_and_says_what_that_costs(made: Any, tmp_path: Path) -> None:
    base = tmp_path / "base.gguf"
    quantize(open_source(made.base), level("q8_0"), base)
    done = export(made.adapter, tmp_path / "out.gguf", to="gguf", base=base, level_name="f16")
    assert any("quantized before" in note for note in done.notes)
    found = Engine(load_model(tmp_path / "out.gguf"), kv_type="f32").logits(IDS)
    assert np.abs(found - tuned(made)).mean() < 0.05 * np.abs(tuned(made)).mean()


def test_llamas_interleaved_rows_are_merged_in_their_order(tmp_path: Path, families: Any) -> None:
    """PEFT on the folder, and Quinze on the GGUF that llama.cpp's rules make of it."""
    model = families.make("llama", tmp_path / "base", num_hidden_layers=2, vocab_size=300)
    file = families.write_gguf(tmp_path / "base.gguf", model, "F32")
    theirs = peft.get_peft_model(
        model,
        peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
    ).eval()
    theirs.save_pretrained(tmp_path / "tune")
    export(tmp_path / "tune", tmp_path / "out.gguf", to="gguf", base=file, level_name="f32")
    found = Engine(load_model(tmp_path / "out.gguf"), kv_type="f32").logits(IDS)
    with torch.no_grad():
        assert np.abs(theirs(torch.tensor([IDS])).logits[0].numpy() - found).max() < 1e-3


def test_sixteen_bit_bases_stay_sixteen_bit(made: Any, tmp_path: Path) -> None:
    export(made.base, tmp_path / "half", to="hf", dtype="bfloat16")
    done = export(made.adapter, tmp_path / "out", to="merged", base=tmp_path / "half")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
    assert any("bfloat16" in note for note in done.notes)


def test_what_a_k_level_cannot_give_is_told_beforehand(made: Any) -> None:
    notes = forecast(open_source(made.base), level("q4_k_m"))
    assert notes
    assert notes[0].startswith("100%")
    assert "64, 96" in notes[0]
    assert not forecast(open_source(made.base), level("q8_0"))


def test_wrong_wishes_are_told(made: Any, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="there already"):
        export(made.base, made.base, to="hf")
    with pytest.raises(InvalidRequestError, match="no adapter to merge"):
        export(made.base, tmp_path / "a", to="merged")
    with pytest.raises(InvalidRequestError, match="whole model"):
        export(made.base, tmp_path / "a", to="adapter")
    lost = tmp_path / "lost"
    shutil.copytree(made.adapter, lost)
    config = json.loads((lost / "adapter_config.json").read_text())
    (lost / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "some/hub"}))
    with pytest.raises(FileFormatError, match="some/hub"):
        export(lost, tmp_path / "a", to="merged")


def test_both_ends_of_a_llama2c_file_survive_its_gguf(shared: Any, tmp_path: Path) -> None:
    """Its stories are parted by BOS: found by the certificate, as a served model that went on and on."""
    shared("data/models/tok512.bin")
    stories = shared("data/models/stories260K.bin")
    export(stories, tmp_path / "out.gguf", to="gguf", level_name="f32")
    assert load_tokenizer(tmp_path / "out.gguf").stop_ids == load_tokenizer(stories).stop_ids == {1, 2}
