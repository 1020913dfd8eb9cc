"""Zero-shot classification by likelihood: the label that a language model would rather write after the text.

The whole label counts, not its first token:

    s_k     mean log-probability of label k's tokens after the prompt
    p       softmax(s)
    p_cf    the same after prompts without content ("N/A", "", "[MASK]"), averaged
    q       p / p_cf, made to sum to 1

The last is contextual calibration (Zhao et al. 2021, "Calibrate Before Use", section 5): W = diag(p_cf)^-1,
b = 0. The label that it chooses is that of softmax(W p); the probabilities are W p made to sum to 1, for a
softmax of numbers that are ratios already would flatten them.

K labels. Knows nothing of files or faces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from quinze.errors import ContextLengthError, InvalidRequestError
from quinze.evaluation.classification import Label, Probabilities, sigmoid, softmax
from quinze.evaluation.likelihood import Floats

if TYPE_CHECKING:
    from quinze.llm.llm import LLM

Continued = Callable[[str, Sequence[str]], list[Floats]]
"""(prompt, continuations) -> log-probability of each token of each (LLM.log_probabilities)."""

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Those of Zhao et al."""
TEMPLATES = {
    "en": "Text: {text}\nThe category is one of: {labels}.\nCategory:",
    "zh": "文本：{text}\n类别是以下之一：{labels}。\n类别：",
}
MOST_LISTED = 30
"""Labels named in the prompt; more would leave no room for the text."""
MARGIN = 8
"""Tokens kept free: two texts joined may have a few more than each by itself."""


class LikelihoodClassifier:
    """By any language model that runs here."""

    def __init__(
        self,
        continued: Continued,
        labels: Sequence[Label],
        *,
        template: str | None = None,
        calibrate: bool = True,
        room: Callable[[str], str] = lambda text: text,
    ) -> None:
        """continued  teacher-forced log-probabilities
        template   holds {text}, may hold {labels}; None: English or Chinese, as the labels are written
        calibrate  contextual calibration
        room       shortens a text so that the prompt fits
        """
        self.labels = labels
        self._continued, self._room = continued, room
        language = language_of("".join(label.text for label in labels))
        self._template = template or TEMPLATES[language]
        if "{text}" not in self._template:
            raise InvalidRequestError("The template holds no {text}.", param="template")
        separator = "、" if language == "zh" else ", "
        named = [label.text for label in labels][:MOST_LISTED]
        self._named = separator.join(named) + ("…" if len(labels) > MOST_LISTED else "")
        before = "" if self._template.endswith((" ", "\n", "：")) else " "
        self._continuations = [before + label.text for label in labels]
        self._empty = self._content_free() if calibrate else None

    def probabilities(self, texts: Sequence[str], *, multi: bool = False) -> Probabilities:
        """(N, K). With `multi` the sigmoid of s_k less what it is without content: more likely for the text
        than for none."""
        rows = np.zeros((len(texts), len(self.labels)))
        for i, text in enumerate(texts):
            scores = self._scores(self._room(text))
            if multi:
                rows[i] = sigmoid(scores - (0.0 if self._empty is None else self._empty[1]))
            else:
                found = softmax(scores)
                rows[i] = found if self._empty is None else calibrated(found, self._empty[0])
        return rows

    def prompt(self, text: str) -> str:
        """What the labels follow."""
        # Not str.format: neither a text nor a label is a template.
        parts = {"{text}": text, "{labels}": self._named}
        return re.sub(r"\{(?:text|labels)\}", lambda match: parts[match[0]], self._template)

    def _content_free(self) -> tuple[Probabilities, Probabilities]:
        """p_cf (K,), and the mean scores (K,)."""
        scores = np.stack([self._scores(text) for text in CONTENT_FREE])
        return softmax(scores).mean(0), scores.mean(0)

    def _scores(self, text: str) -> Probabilities:
        found = self._continued(self.prompt(text), self._continuations)
        return np.array([float(np.mean(log_probabilities)) for log_probabilities in found])


def calibrated(p: Probabilities, p_cf: Probabilities) -> Probabilities:
    """W p with W = diag(p_cf)^-1, made to sum to 1. p (..., K), p_cf (K,)."""
    ratio = p / np.maximum(p_cf, 1e-300)
    return np.asarray(ratio / ratio.sum(-1, keepdims=True))


def language_of(text: str) -> Literal["en", "zh"]:
    """ "zh" where a Chinese character occurs."""
    return "zh" if re.search(r"[\u3400-\u9fff]", text) else "en"


def shortened(text: str, tokens: int, count: Callable[[str], int]) -> str:
    """The beginning of a text that has at most so many tokens.

    ContextLengthError where there is no room at all.
    """
    if tokens < 8:
        raise ContextLengthError(
            "The labels alone fill the model's context.", hint="Give fewer labels or shorter ones."
        )
    while (found := count(text)) > tokens:
        text = text[: min(len(text) - 1, int(len(text) * tokens / found))]
    return text


def of_model(
    llm: LLM, labels: Sequence[Label], *, template: str | None = None, calibrate: bool = True
) -> LikelihoodClassifier:
    """A classifier by this model. Texts that do not fit are read from their beginning on."""
    longest = max(llm.count_tokens(" " + label.text) for label in labels)
    made: list[LikelihoodClassifier] = []

    def room(text: str) -> str:
        rest = llm.count_tokens(made[0].prompt("")) + longest + MARGIN
        return shortened(text, llm.context_length - rest, llm.count_tokens)

    made.append(
        LikelihoodClassifier(llm.log_probabilities, labels, template=template, calibrate=calibrate, room=room)
    )
    return made[0]
