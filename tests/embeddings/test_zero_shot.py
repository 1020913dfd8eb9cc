"""Classification by likeness, and small heads: against arithmetic by hand and the condition of a minimum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quinze.embeddings.hashing import HashingEmbedder
from quinze.embeddings.head import HeadCard, fit, load_head, save_head, train_head
from quinze.embeddings.learning_curve import CurvePoint, balanced, learning_curve, needed_to_beat
from quinze.embeddings.loading import load_embedder
from quinze.embeddings.zero_shot import RELATED, EmbeddingClassifier
from quinze.errors import FileFormatError, InvalidRequestError
from quinze.evaluation.classification import labels_of
from quinze.formats.checkpoint import TensorType
from quinze.formats.quants import encode
from quinze.formats.safetensors import write_safetensors


@pytest.mark.parametrize("name", ["starter", "hashing"])
def test_probabilities_are_the_softmax_of_likeness(name: str) -> None:
    embedder = load_embedder(name)
    labels = labels_of(["sports=football match", "food=bread and cooking"])
    texts = ["a football match", "baking bread", ""]
    likeness = embedder.embed(texts).astype(float) @ embedder.embed([one.text for one in labels]).T
    found = EmbeddingClassifier(embedder, labels, temperature=0.2).probabilities(texts)
    expected = np.exp(likeness / 0.2)
    np.testing.assert_allclose(found[:2], (expected / expected.sum(1, keepdims=True))[:2], rtol=1e-5)
    assert np.isnan(found[2]).all()
    assert found.argmax(1)[:2].tolist() == [0, 1]
    several = EmbeddingClassifier(embedder, labels, temperature=0.2).probabilities(texts, multi=True)
    np.testing.assert_allclose(several[:2], (1 / (1 + np.exp((RELATED - likeness) / 0.2)))[:2], rtol=1e-5)


def test_a_label_without_a_known_word_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match="🙂"):
        EmbeddingClassifier(load_embedder("starter"), labels_of(["🙂", "food"])).probabilities(["bread"])


def blobs(rng: np.random.Generator, each: int, noise: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    middles = np.eye(3, 6)
    numbers = np.repeat(np.arange(3), each)
    return (middles[numbers] + noise * rng.standard_normal((3 * each, 6))).astype(np.float32), numbers


def test_a_head_is_the_minimum_that_scikit_learn_defines(rng: np.random.Generator) -> None:
    """Of a strictly convex function it is the one place without a slope."""
    x, numbers = blobs(rng, 20)
    strength = 3.0
    weight, bias = fit(x.astype(float), numbers, 3, strength)
    scores = x @ weight.T + bias
    error = np.exp(scores) / np.exp(scores).sum(1, keepdims=True) - np.eye(3)[numbers]
    np.testing.assert_allclose(error.T @ x + weight / strength, 0, atol=2e-3)
    np.testing.assert_allclose(error.sum(0), 0, atol=2e-3)


def test_a_head_is_kept_and_read_again(rng: np.random.Generator, tmp_path: Path) -> None:
    embedder = HashingEmbedder()
    texts, numbers = ["goal match", "bread dough", "match ball", "dough oven"], np.array([0, 1, 0, 1])
    head = train_head(embedder.embed(texts), numbers, ["sport", "food"], embedder.id)
    save_head(head, tmp_path / "a.head")
    again = load_head(tmp_path / "a.head")
    assert again.card == head.card
    one = again.classifier(embedder)
    assert one.probabilities(["a match", "an oven"]).argmax(1).tolist() == [0, 1]
    with pytest.raises(InvalidRequestError, match="starter"):
        again.classifier(load_embedder("starter"))
    with pytest.raises(InvalidRequestError, match="no example"):
        train_head(embedder.embed(texts), numbers, ["sport", "food", "war"], embedder.id)


def hostile(path: Path, kind: str) -> None:
    card = '{"labels":["a","b"],"embedder":"hashing"}'
    weight, bias = np.zeros((2, 4)), np.zeros(2)
    if kind == "labels":
        card = '{"labels":["a","a"],"embedder":"hashing"}'
    if kind == "card":
        card = '{"labels":7}'
    if kind == "rows":
        weight = np.zeros((3, 4))
    if kind == "nan":
        weight[0, 0] = np.nan
    tensors = [encode("weight", weight, TensorType.F32), encode("bias", bias, TensorType.F32)]
    if kind == "more":
        tensors.append(encode("code", bias, TensorType.F32))
    write_safetensors(path, tensors, {} if kind == "none" else {"quinze.head": card})
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    if kind == "pickle":
        path.write_bytes(b"\x80\x04cos\nsystem\n")


@pytest.mark.parametrize(
    "kind", ["labels", "card", "rows", "nan", "more", "none", "cut", "pickle", "missing"]
)
def test_hostile_heads_are_refused(tmp_path: Path, kind: str) -> None:
    if kind != "missing":
        hostile(tmp_path / "x.head", kind)
    with pytest.raises(FileFormatError):
        load_head(tmp_path / "x.head")


def test_the_curve_rises_and_every_beginning_is_balanced(rng: np.random.Generator) -> None:
    x, numbers = blobs(rng, 60)
    assert np.bincount(numbers[balanced(numbers)[:12]]).tolist() == [4, 4, 4]
    curve = learning_curve(x, numbers, 3)
    assert [p.examples for p in curve] == [3, 6, 12, 24, 48, 96, 144]
    assert curve[-1].accuracy > 0.8 > curve[0].accuracy
    with pytest.raises(InvalidRequestError, match="too few"):
        learning_curve(x[:5], numbers[:5], 3)


def test_the_examples_needed_are_read_off_the_curve_or_drawn_on() -> None:
    # The error halves with four times the examples: a power of -1/2.
    curve = [CurvePoint(n, 1 - 4 / n**0.5, 0.0) for n in (100, 400, 1600)]
    between = needed_to_beat(curve, 0.7)
    assert between.measured
    assert between.examples == 200
    assert needed_to_beat(curve, 0.5).examples == 100
    on = needed_to_beat(curve, 0.95)
    assert not on.measured
    assert on.examples is not None
    assert abs(on.examples - 6400) <= 1
    assert needed_to_beat(curve, 0.999).examples is None


def test_a_card_holds_no_path_that_is_followed() -> None:
    from quinze.service.classify import _own_embedder

    head = train_head(np.eye(2, dtype=np.float32), np.array([0, 1]), ["a", "b"], "/etc/passwd")
    assert isinstance(head.card, HeadCard)
    with pytest.raises(InvalidRequestError, match="--model"):
        _own_embedder(head)
