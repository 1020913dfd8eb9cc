"""Embeddings as the official openai client sees them; the oracle is the embedder asked directly."""

from __future__ import annotations

from typing import Any

import numpy as np
import openai
import pytest

TEXTS = ["How long is bread dough proved?", "面团要醒多久？"]


def test_base64_and_numbers_are_the_same_vectors(running: Any) -> None:
    """The client asks for base64 by itself when no encoding is named, and decodes it."""
    by_base64 = running.openai.embeddings.create(model="hashing", input=TEXTS)
    by_numbers = running.openai.embeddings.create(model="hashing", input=TEXTS, encoding_format="float")
    expected = running.service.embedder("hashing").embed(TEXTS)
    assert [item.index for item in by_base64.data] == [0, 1]
    assert by_base64.object == "list"
    np.testing.assert_array_equal(np.float32([item.embedding for item in by_base64.data]), expected)
    np.testing.assert_array_equal(np.float32([item.embedding for item in by_numbers.data]), expected)
    assert by_base64.usage.prompt_tokens == by_base64.usage.total_tokens > 0


def test_one_text_and_a_list_of_one_are_alike(running: Any) -> None:
    one = running.openai.embeddings.create(model="hashing-v1-512", input=TEXTS[0])
    several = running.openai.embeddings.create(model="hashing-v1-512", input=TEXTS[:1])
    assert one.data[0].embedding == several.data[0].embedding
    assert one.model == "hashing-v1-512"


def test_the_dimensions_may_be_named_when_they_are_what_comes(running: Any) -> None:
    found = running.openai.embeddings.create(model="hashing", input="a", dimensions=512)
    assert len(found.data[0].embedding) == 512


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dimensions", 256),
        ("input", [[1, 2, 3]]),
        ("input", [1, 2]),
        ("input", []),
        ("encoding_format", "int8"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(running: Any, field: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        running.openai.embeddings.create(**{"model": "hashing", "input": "a", field: value})
    assert caught.value.param == field


def test_an_empty_text_is_refused_with_its_place(running: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        running.openai.embeddings.create(model="hashing", input=["a", ""])
    assert caught.value.param == "input[1]"


def test_an_unknown_embedder_is_not_found(running: Any) -> None:
    with pytest.raises(openai.NotFoundError):
        running.openai.embeddings.create(model="text-embedding-3-small", input="a")


def test_fewer_dimensions_are_the_first_numbers_made_a_unit_vector_again(running: Any) -> None:
    whole, short = (
        np.float32(
            running.openai.embeddings.create(model="starter", input=TEXTS[0], **more).data[0].embedding
        )
        for more in ({}, {"dimensions": 64})
    )
    np.testing.assert_allclose(short, whole[:64] / np.linalg.norm(whole[:64]), atol=1e-6)
