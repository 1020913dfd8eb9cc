"""Classification as every face asks for it: which model answers, examples from a file, heads.

Given a Service. An embedder answers by likeness, a language model by likelihood, a head by what it learned.
"""

from __future__ import annotations

import contextlib
import csv
import io
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from quinze.errors import FileFormatError, InvalidRequestError, ModelNotFoundError
from quinze.evaluation import classification
from quinze.evaluation.classification import Classifier, Label, Reliability, labels_of, numbers_of

if TYPE_CHECKING:
    from quinze.embeddings.embedder import Embedder
    from quinze.embeddings.head import Head
    from quinze.embeddings.learning_curve import CurvePoint, Needed
    from quinze.service.service import Service

EMBEDDERS = ("starter", "hashing")
MOST_EXAMPLES = 100_000
MOST_FILE = 256 * 2**20


class Check(msgspec.Struct, frozen=True):
    """How reliable the answers are on labelled examples, and what a head would make of these."""

    model: str
    reliability: Reliability
    curve: list[CurvePoint]
    """A head's accuracy by examples; empty where they are too few, or a head answered."""
    needed: Needed | None


class Trained(msgspec.Struct, frozen=True):
    """A head that was made, and how well one does on what it has not seen."""

    path: str
    embedder: str
    labels: list[str]
    examples: int
    curve: list[CurvePoint]
    """The last point is that of all examples but a fifth."""
    accuracy: float | None


@contextlib.contextmanager
def classifier(
    service: Service,
    labels: Sequence[str] = (),
    *,
    model: str | None = None,
    head: Head | None = None,
    template: str | None = None,
    temperature: float | None = None,
    calibrate: bool = True,
    cancel: threading.Event | None = None,
) -> Iterator[tuple[str, Classifier]]:
    """(name, classifier) for as long as the block lasts.

    labels    "name" or "name=description"; none with a head, which has its own
    model     an embedder, or a language model; None: the embedder of the settings, with a head its own
    template  for an embedder with {label}; for a language model with {text}, and {labels} if it likes
    """
    if head is not None:
        if labels:
            raise InvalidRequestError("A head has its own labels; name none.", param="labels")
        yield head.card.embedder, head.classifier(service.embedder(model or _own_embedder(head)))
        return
    found = labels_of(labels)
    embedder = _embedder(service, model)
    if embedder is not None:
        yield embedder.id, _by_likeness(embedder, found, template, temperature)
        return
    assert model is not None, "without a name an embedder answers"
    with service.models.use(model, cancel=cancel) as llm:
        yield llm.name, _by_likelihood(llm, found, template, calibrate)


def check(
    service: Service,
    answering: tuple[str, Classifier],
    examples: tuple[list[str], list[str]],
    *,
    abstain: float = 0.0,
    margin: float = 0.0,
    embedder: str | None = None,
) -> Check:
    """Reliability, and how many examples a head on `embedder` would need to beat it.

    embedder  of the head's vectors; None: that of the settings
    """
    from quinze.embeddings.head import HeadClassifier
    from quinze.embeddings.learning_curve import learning_curve, needed_to_beat

    name, one = answering
    texts, truth = examples
    told = classification.check(one, texts, truth, abstain=abstain, margin=margin)
    names = sorted(set(truth))
    # The head was perhaps made from these; and a head beats itself with more examples only.
    if isinstance(one, HeadClassifier) or len(names) < 2 or len(texts) < 2 * len(names):
        return Check(name, told, [], None)
    vectors = (_embedder(service, embedder) or service.embedder()).embed(texts)
    curve = learning_curve(vectors, numbers_of(truth, names), len(names))
    return Check(name, told, curve, needed_to_beat(curve, told.accuracy.mean))


def train(
    service: Service, examples: tuple[list[str], list[str]], output: Path, *, model: str | None = None
) -> Trained:
    """Make a head from labelled examples and keep it. The labels are those that occur."""
    from quinze.embeddings.head import HeadCard, save_head, train_head
    from quinze.embeddings.learning_curve import learning_curve

    embedder = _embedder(service, model)
    if embedder is None:
        raise InvalidRequestError(
            f"{str(model)[:80]} is a language model; a head stands on an embedder.",
            hint="Leave --model out, or name an embedding model.",
            param="model",
        )
    texts, truth = examples
    names = sorted(set(truth))
    labels_of([name.replace("=", " ") for name in names])
    numbers, vectors = numbers_of(truth, names), embedder.embed(texts)
    curve = learning_curve(vectors, numbers, len(names)) if len(texts) >= 2 * len(names) else []
    head = train_head(vectors, numbers, names, embedder.id)
    accuracy = curve[-1].accuracy if curve else None
    card = HeadCard(names, embedder.id, len(texts), accuracy)
    save_head(type(head)(card, head.weight, head.bias), output)
    return Trained(str(output), embedder.id, names, len(texts), curve, accuracy)


def read_examples(path: Path) -> tuple[list[str], list[str]]:
    """(texts, labels) of a CSV, TSV or JSONL file with the fields text and label.

    FileFormatError names the line at fault.
    """
    text = _text(path)
    kind = path.suffix.lower()
    rows = (
        _csv(text, "\t" if kind == ".tsv" else ",", path.name) if kind in (".csv", ".tsv") else _lines(text)
    )
    texts, labels = [], []
    for line, row in rows:
        said, label = (row.get("text"), row.get("label")) if isinstance(row, dict) else (None, None)
        if isinstance(label, int) and not isinstance(label, bool):
            label = str(label)
        if not isinstance(said, str) or not isinstance(label, str) or not label.strip():
            raise FileFormatError(
                f"{path.name}, line {line:,}: an example needs a text and a label.",
                hint='CSV with a first line "text,label", or JSONL: {"text": "...", "label": "..."}.',
            )
        texts.append(said)
        labels.append(label.strip())
        if len(texts) > MOST_EXAMPLES:
            raise FileFormatError(f"{path.name} has more than {MOST_EXAMPLES:,} examples.")
    if not texts:
        raise FileFormatError(f"{path.name} holds no examples.")
    return texts, labels


def _embedder(service: Service, model: str | None) -> Embedder | None:
    """None where the name is that of a language model, or of nothing."""
    if model is None:
        return service.embedder()
    try:
        return service.embedder(model)
    except ModelNotFoundError:
        return None


def _own_embedder(head: Head) -> str:
    """The id that a head names, if it is one of Quinze's own: a path in a stranger's file is not followed."""
    from quinze.embeddings.hashing import HashingEmbedder
    from quinze.embeddings.loading import STARTER

    if head.card.embedder in {STARTER, HashingEmbedder.id}:
        return head.card.embedder
    raise InvalidRequestError(
        f"The head needs the embedder {head.card.embedder[:80]!r}.",
        hint="Name it: --model NAME.",
        param="model",
    )


def _by_likeness(
    embedder: Embedder, labels: list[Label], template: str | None, temperature: float | None
) -> Classifier:
    from quinze.embeddings.zero_shot import TEMPERATURE, EmbeddingClassifier

    return EmbeddingClassifier(
        embedder, labels, template or "{label}", TEMPERATURE if temperature is None else temperature
    )


def _by_likelihood(llm: Any, labels: list[Label], template: str | None, calibrate: bool) -> Classifier:
    from quinze.llm.zero_shot import of_model

    if llm.remote:
        raise InvalidRequestError(
            f"{llm.name} runs on {llm.remote}, which does not tell how likely a given label is.",
            hint="Use a model of this machine, or an embedder.",
            param="model",
        )
    return of_model(llm, labels, template=template, calibrate=calibrate)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_FILE:
            raise FileFormatError(f"{path.name} is larger than {MOST_FILE:,} bytes.")
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileFormatError(
            f"{path.name} is not UTF-8 (byte {error.start:,}).", hint="Save it as UTF-8."
        ) from None
    except OSError as error:
        raise FileFormatError(f"{str(path)[:300]} could not be read: {error.strerror}.") from error


def _csv(text: str, delimiter: str, name: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise FileFormatError(f"{name}, line {reader.line_num:,}: {error}.") from error


def _lines(text: str) -> Iterator[tuple[int, Any]]:
    # Not splitlines: U+2028 may stand within a JSON text.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, msgspec.json.decode(line)
            except (msgspec.DecodeError, RecursionError):
                yield number, None
