"""Classification by likelihood: the paper's formula, and log-probabilities beside those of whole passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from quinze.errors import ContextLengthError, InvalidRequestError
from quinze.evaluation.classification import labels_of
from quinze.llm.llm import LLM
from quinze.llm.zero_shot import CONTENT_FREE, LikelihoodClassifier, calibrated, of_model, shortened


def test_calibration_is_that_of_zhao_et_al(rng: np.random.Generator) -> None:
    """q = softmax(W p + b), W = diag(p_cf)^-1, b = 0: the same choice, and W p but for its sum."""
    p, p_cf = rng.dirichlet(np.ones(5), 40), rng.dirichlet(np.ones(5))
    scaled = p @ np.diag(1 / p_cf)
    paper = np.exp(scaled) / np.exp(scaled).sum(1, keepdims=True)
    found = calibrated(p, p_cf)
    np.testing.assert_allclose(found, scaled / scaled.sum(1, keepdims=True), rtol=1e-9)
    assert (found.argmax(1) == paper.argmax(1)).all()
    np.testing.assert_allclose(calibrated(p_cf, p_cf), 0.2)


def test_whole_labels_count_each_by_its_mean_and_less_what_comes_of_nothing() -> None:
    def continued(prompt: str, labels: Sequence[str]) -> list[np.ndarray]:
        said = {f"<{text}>": [[-1.0], [-3.0, -3.0]] for text in CONTENT_FREE}
        said["<it>"] = [[-1.5], [-1.0, -3.0]]
        return [np.array(row) for row in said[prompt]]

    one = LikelihoodClassifier(continued, labels_of(["x", "y"]), template="<{text}>")
    p, p_cf = np.exp([-1.5, -2.0]), np.exp([-1.0, -3.0])
    p, p_cf = p / p.sum(), p_cf / p_cf.sum()
    np.testing.assert_allclose(one.probabilities(["it"])[0], (p / p_cf) / (p / p_cf).sum())
    several = one.probabilities(["it"], multi=True)[0]
    np.testing.assert_allclose(several, 1 / (1 + np.exp([0.5, -1.0])))
    bare = LikelihoodClassifier(continued, labels_of(["x", "y"]), template="<{text}>", calibrate=False)
    np.testing.assert_allclose(bare.probabilities(["it"])[0], p)


def test_log_probabilities_are_those_of_one_pass_over_everything(stories: LLM) -> None:
    prompt, ends = "Once upon a", [" time there", " little girl", " table"]
    for end, found in zip(ends, stories.log_probabilities(prompt, ends), strict=True):
        before, whole = stories.tokenizer.encode(prompt), stories.tokenizer.encode(prompt + end)
        logits = stories._engine.logits(whole).astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        expected = [logs[i - 1, whole[i]] for i in range(len(before), len(whole))]
        np.testing.assert_allclose(found, expected, atol=2e-3)
    assert stories.log_probabilities(prompt, ends)[0].sum() > stories.log_probabilities(prompt, ends)[2].sum()


def test_a_model_classifies_in_both_languages_however_long_the_text(stories: LLM) -> None:
    for labels in (["happy", "sad"], ["高兴", "难过"]):
        rows = of_model(stories, labels_of(labels)).probabilities(["She smiled.", "She cried. " * 2000, ""])
        np.testing.assert_allclose(rows.sum(1), 1)
        assert np.isfinite(rows).all()


def test_braces_in_texts_and_labels_are_only_text() -> None:
    one = LikelihoodClassifier(
        lambda prompt, labels: [np.zeros(1)] * len(labels), labels_of(["{text}", "b"]), calibrate=False
    )
    assert one.prompt("{labels}{0}").count("{text}") == 1
    assert "{labels}{0}" in one.prompt("{labels}{0}")
    with pytest.raises(InvalidRequestError, match="template"):
        LikelihoodClassifier(lambda p, c: [], labels_of(["a", "b"]), template="nothing")


def test_a_text_is_shortened_to_its_beginning() -> None:
    assert shortened("x" * 100, 10, len) == "x" * 10
    with pytest.raises(ContextLengthError):
        shortened("x", 2, len)
