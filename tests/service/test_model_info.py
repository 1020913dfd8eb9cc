"""What is told of a model from its header."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quinze.quantization.levels import level
from quinze.quantization.quantize import quantize
from quinze.quantization.source import open_source
from quinze.service.model_info import describe


@pytest.mark.parametrize("name", ["q4_k_m", "q5_k_s", "q8_0", "f16"])
def test_a_mixture_goes_by_the_name_that_its_maker_gave_it(
    shared: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    source = open_source(shared("data/models/stories260K.bin"))
    quantize(source, level(name), tmp_path / "m.gguf", threads=1)
    assert describe(tmp_path / "m.gguf")["quantization"] == name.upper()


def test_where_nobody_gave_a_name_the_type_of_most_weights_is_told(shared: Callable[[str], Path]) -> None:
    assert describe(shared("data/models/stories260K.bin"))["quantization"] == "F32"
