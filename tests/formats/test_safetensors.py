"""safetensors: what their own package writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from quinze.errors import FileFormatError, ModelNotFoundError, UnsupportedModelError
from quinze.formats.checkpoint import TensorType, open_checkpoint
from quinze.formats.quants import decode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path


def test_every_float_type_is_read_as_its_package_wrote_it(folder: Path) -> None:
    torch.manual_seed(15)
    whole = {
        "a": torch.randn(3, 5),
        "b": torch.randn(7).to(torch.bfloat16),
        "c": torch.randn(2, 2, 2).to(torch.float16),
        "d": torch.zeros(()),
    }
    safetensors.torch.save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(folder)
    assert checkpoint.metadata == {"model_type": "llama"}
    assert checkpoint.bytes == (folder / "model.safetensors").stat().st_size
    assert [checkpoint.tensors[name].type for name in "abc"] == [
        TensorType.F32,
        TensorType.BF16,
        TensorType.F16,
    ]
    for name, tensor in whole.items():
        np.testing.assert_array_equal(decode(checkpoint.tensors[name]), tensor.float().numpy())
        assert not checkpoint.tensors[name].data.flags.writeable


def test_the_weight_file_itself_may_be_named(folder: Path) -> None:
    safetensors.numpy.save_file({"a": np.ones(3, np.float32)}, folder / "other.safetensors")
    assert set(open_checkpoint(folder / "other.safetensors").tensors) == {"a"}
    assert set(open_checkpoint(folder).tensors) == {"a"}


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "x\0.safetensors", "model.bin", 7],
)
def test_an_index_leads_nowhere_but_to_its_own_folder(folder: Path, name: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(FileFormatError, match=r"not a \.safetensors file in its own folder"):
        open_checkpoint(folder)


def test_a_part_that_is_missing_is_named(folder: Path) -> None:
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    safetensors.numpy.save_file({"a": np.ones(3, np.float32)}, folder / "one.safetensors")
    with pytest.raises(FileFormatError, match=r"lacks two\.safetensors"):
        open_checkpoint(folder)
    safetensors.numpy.save_file({"c": np.ones(3, np.float32)}, folder / "two.safetensors")
    with pytest.raises(FileFormatError, match="no file has, the first 'b'"):
        open_checkpoint(folder)
    safetensors.numpy.save_file({"a": np.ones(3, np.float32)}, folder / "two.safetensors")
    with pytest.raises(FileFormatError, match="'a' is in two files"):
        open_checkpoint(folder)


def test_what_is_no_model_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        open_checkpoint(tmp_path / "nothing.gguf")
    with pytest.raises(FileFormatError, match=r"no .safetensors files"):
        open_checkpoint(folder)
    (folder / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(FileFormatError) as caught:
        open_checkpoint(folder)
    assert "model.gguf" in caught.value.hint
    (folder / "notes.txt").write_text("hello")
    with pytest.raises(UnsupportedModelError, match="not a model file"):
        open_checkpoint(folder / "notes.txt")
    (folder / "config.json").unlink()
    safetensors.numpy.save_file({"a": np.ones(3, np.float32)}, folder / "model.safetensors")
    with pytest.raises(FileFormatError, match=r"no config\.json"):
        open_checkpoint(folder)
