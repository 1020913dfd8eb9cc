"""Models in several GGUF files: the gguf package splits them, llama.cpp reads them, and so do we."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from quinze.errors import FileFormatError
from quinze.formats.checkpoint import open_checkpoint
from quinze.formats.part_names import model_stem, part_files


def write_parts(
    path: Path, *, each: int = 3, tensors: int = 8, seed: int = 15, name: str = "m"
) -> list[Path]:
    """A model of `tensors` tensors, at most `each` in a file."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=each)
    writer.add_name(name)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    for i in range(tensors):
        writer.add_tensor(f"t.{i}", rng.standard_normal((3, 32 + i)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(path.parent.glob(f"{path.stem}-*.gguf"))


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    made = write_parts(tmp_path / "m.gguf")
    assert [file.name for file in made] == [f"m-{i:05}-of-00003.gguf" for i in (1, 2, 3)]
    return made


@pytest.mark.parametrize("named", [0, 1, 2])
def test_any_part_opens_the_whole(parts: list[Path], named: int) -> None:
    found = open_checkpoint(parts[named])
    assert found.path == parts[0]
    assert found.bytes == sum(part.stat().st_size for part in parts)
    assert not any(key.startswith("split.") for key in found.metadata)
    assert found.metadata["general.name"] == "m"
    theirs = {t.name: t.data for part in parts for t in gguf.GGUFReader(part).tensors}
    assert set(found.tensors) == set(theirs)
    for name, tensor in found.tensors.items():
        np.testing.assert_array_equal(tensor.data.view("<f4"), theirs[name].reshape(-1))


def test_a_folder_of_parts_is_the_model(parts: list[Path]) -> None:
    (parts[0].parent / "mmproj-m.gguf").write_bytes(b"GGUF")
    assert open_checkpoint(parts[0].parent).path == parts[0]


def test_missing_parts_are_named(parts: list[Path]) -> None:
    parts[1].unlink()
    with pytest.raises(
        FileFormatError, match=r"lacks 1 of the 3 parts of m, the first m-00002-of-00003\.gguf"
    ):
        open_checkpoint(parts[2])


def test_a_part_of_another_model_is_named(parts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write_parts(tmp_path / "other" / "m.gguf", tensors=9)
    shutil.copy(other[1], parts[1])
    with pytest.raises(FileFormatError, match=r"m-00002-of-00003\.gguf is a part of another model"):
        open_checkpoint(parts[0])


def test_a_part_that_is_there_twice_is_named(parts: list[Path]) -> None:
    shutil.copy(parts[1], parts[2])
    with pytest.raises(FileFormatError, match=r"m-00003-of-00003\.gguf holds part 2, which is there twice"):
        open_checkpoint(parts[0])


def test_a_renamed_part_says_how_it_should_be_called(parts: list[Path]) -> None:
    alone = parts[1].rename(parts[1].with_name("middle.gguf"))
    with pytest.raises(
        FileFormatError, match="part 2 of 3 of a model, and its name does not say so"
    ) as caught:
        open_checkpoint(alone)
    assert "NAME-00002-of-00003.gguf" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [("split.no", 3), ("split.no", 65535), ("split.count", 65535), ("split.count", 2),
     ("split.tensors.count", 7), ("split.tensors.count", -1)],
)  # fmt: skip
def test_numbers_of_parts_are_not_believed(parts: list[Path], key: str, value: int) -> None:
    data = bytearray(parts[0].read_bytes())
    size = 2 if key != "split.tensors.count" else 4
    at = data.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key) + 4
    data[at : at + size] = value.to_bytes(size, "little", signed=value < 0)
    parts[0].write_bytes(data)
    with pytest.raises(FileFormatError):
        open_checkpoint(parts[0])


def test_a_tensor_in_two_parts_is_refused(parts: list[Path]) -> None:
    data = parts[1].read_bytes()
    assert data.count(b"t.3") == 1
    parts[1].write_bytes(data.replace(b"t.3", b"t.0"))
    with pytest.raises(FileFormatError, match=r"'t\.0' is in two parts"):
        open_checkpoint(parts[0])


def test_names_that_only_look_like_parts_are_files_by_themselves() -> None:
    for name in ("m-00000-of-00003.gguf", "m-00004-of-00003.gguf", "m-00001-of-99999.gguf", "m-1-of-3.gguf"):
        assert part_files(Path(name)) == [Path(name)]
    assert model_stem(Path("a-b-00002-of-00010.gguf")) == "a-b"
