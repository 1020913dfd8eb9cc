"""`adapter` in a request: the same as model+adapter."""

from __future__ import annotations

import msgspec
import pytest

from quinze.server.openai.protocol import ChatRequest, CompletionRequest


@pytest.mark.parametrize(
    ("kind", "rest"), [(ChatRequest, {"messages": []}), (CompletionRequest, {"prompt": "x"})]
)
def test_the_adapter_of_a_request_names_the_model_beside_its_base(
    kind: type, rest: dict[str, object]
) -> None:
    def read(**more: object) -> str:
        return str(msgspec.convert({"model": "llama", **rest, **more}, kind).model)

    assert read() == "llama"
    assert read(adapter=None) == "llama"
    assert read(adapter="bread") == "llama+bread"
