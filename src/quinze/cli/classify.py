"""`quinze classify`: texts under labels, without training or with a small head."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quinze.cli import console
from quinze.cli.main import json_option, opened_service
from quinze.errors import InvalidRequestError

if TYPE_CHECKING:
    from quinze.evaluation.classification import Classification
    from quinze.service.classify import Check, Trained

_NO_BETTER = "not shown to be better than chance and the commonest label"
_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("-l", "--labels", multiple=True, help='"a,b,c", or name=description; may be repeated.')
@click.option("-m", "--model", help="Embedder or language model; the default embedder if not given.")
@click.option("-f", "--file", "file", type=_FILE, help="A text on each line; - is standard input.")
@click.option("--multi", is_flag=True, help="Any number of labels, each that reaches the threshold.")
@click.option("--threshold", type=float, default=0.5, show_default=True, help="With --multi.")
@click.option("--abstain", type=float, default=0.0, help="No answer below this probability.")
@click.option("--margin", type=float, default=0.0, help="No answer if the second label is nearer than this.")
@click.option("--template", help="Words around a {label} (embedder) or a {text} (language model).")
@click.option("--temperature", type=float, help="Of an embedder's probabilities: smaller is surer.")
@click.option("--no-calibrate", is_flag=True, help="Language model: leave contextual calibration out.")
@click.option(
    "--check", "check_file", type=_FILE, help="CSV or JSONL with text and label: how reliable it is."
)
@click.option(
    "--train", "train_file", type=_FILE, help="CSV or JSONL with text and label: make a head of it."
)
@click.option("-o", "--output", type=_FILE, help="Where --train writes the head.")
@click.option("--head", "head_file", type=_FILE, help="Classify by this head; it has its own labels.")
@json_option
def classify(
    texts: tuple[str, ...],
    labels: tuple[str, ...],
    model: str | None,
    file: Path | None,
    multi: bool,
    threshold: float,
    abstain: float,
    margin: float,
    template: str | None,
    temperature: float | None,
    no_calibrate: bool,
    check_file: Path | None,
    train_file: Path | None,
    output: Path | None,
    head_file: Path | None,
    as_json: bool,
) -> None:
    """Sort texts under labels of your own, with no training.

    An embedder takes the label that a text is most like, a language model the one it would rather write.
    Prints one line a text: the label (? where it abstains), its probability, the text.

    \b
    quinze classify --labels "sports,politics" "The match ended two to one."
    quinze classify --labels "sports,politics" --check labelled.csv      how far to trust it
    quinze classify --train labelled.csv -o topics.head                  a small head, in seconds
    quinze classify --head topics.head -f texts.txt
    """
    from quinze.embeddings.head import load_head
    from quinze.evaluation import classification
    from quinze.service import classify as room

    if (train_file is None) != (output is None):
        raise InvalidRequestError("--train FILE and -o HEAD belong together.", param="output")
    if multi and check_file is not None:
        raise InvalidRequestError("--check compares one label a text; leave --multi out.", param="multi")
    with opened_service() as service:
        if train_file is not None and output is not None:
            made = room.train(service, room.read_examples(train_file), output, model=model)
            _tell_trained(made, as_json)
            return
        head = None if head_file is None else load_head(head_file)
        split = [part for text in labels for part in classification.split_labels(text)]
        if head is None and not split and check_file is not None:
            split = sorted(set(room.read_examples(check_file)[1]))
        options = {"template": template, "temperature": temperature, "calibrate": not no_calibrate}
        with room.classifier(service, split, model=model, head=head, **options) as (name, one):  # type: ignore[arg-type]
            if check_file is not None:
                examples = room.read_examples(check_file)
                told = room.check(
                    service, (name, one), examples, abstain=abstain, margin=margin, embedder=model
                )
                _tell_check(told, as_json)
                return
            found = classification.classify(
                one, _given(texts, file), multi=multi, threshold=threshold, abstain=abstain, margin=margin
            )
    if as_json:
        console.print_json({"model": name, "data": found})
        return
    for answer in found:
        _tell(answer, multi)


def _given(texts: tuple[str, ...], file: Path | None) -> list[str]:
    if file is not None and texts:
        raise InvalidRequestError("Texts come from the command or from --file, not from both.")
    found = list(texts)
    if texts == ("-",) or (not texts and (str(file) == "-" or (file is None and not sys.stdin.isatty()))):
        found = sys.stdin.read().split("\n")
    elif file is not None:
        try:
            found = file.read_text("utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"{str(file)[:300]} could not be read: {error}.") from error
    found = [text.rstrip("\r") for text in found if text.strip()]
    if not found:
        raise InvalidRequestError(
            "There is no text to classify.", hint='quinze classify --labels "a,b" "a text"; or --file FILE.'
        )
    return found


def _tell(answer: Classification, multi: bool) -> None:
    best = next(iter(answer.probabilities.values()), 0.0)
    label = ",".join(answer.labels) if multi else answer.label
    console.print_text(f"{label or '?'}\t{best:.3f}\t{' '.join(answer.text.split())[:200]}")
    if answer.reason:
        console.remark(f"? {answer.reason}")


def _tell_trained(made: Trained, as_json: bool) -> None:
    if as_json:
        console.print_json(made)
        return
    for point in made.curve:
        console.print_text(
            f"{point.examples:>7,} examples  {point.accuracy:.3f} right (± {point.spread:.3f})"
        )
    console.print_text(f"{made.path}: {len(made.labels)} labels from {made.examples:,} examples.")


def _tell_check(told: Check, as_json: bool) -> None:
    if as_json:
        console.print_json(told)
        return
    r = told.reliability
    console.print_facts([
        ("model", told.model),
        ("examples", f"{r.examples:,}"),
        ("right", f"{r.accuracy.mean:.3f} (95 %: {r.accuracy.low:.3f} to {r.accuracy.high:.3f})"),
        ("chance", f"{r.chance:.3f}; always the commonest label {r.majority:.3f}"),
        ("", "") if r.better_than_chance else ("verdict", _NO_BETTER),
        ("calibration", f"off by {r.calibration_error:.3f} (expected calibration error)"),
        (
            "answered",
            f"{r.answered:,}, of them right {r.accuracy_answered:.3f}"
            if r.accuracy_answered is not None and r.answered < r.examples
            else "",
        ),
    ])  # fmt: skip
    wrong = [(n, true, said) for true, row in r.confusion.items() for said, n in row.items() if said != true]
    if wrong:
        console.print_text("\nMost often confused")
        console.print_table(
            ["times", "true", "said"], [[str(n), t, s] for n, t, s in sorted(wrong, reverse=True)[:10]]
        )
    console.print_text("\nLeast sure of")
    console.print_table(
        ["p", "true", "said", "text"],
        [[f"{u.probability:.2f}", u.label, u.guess or "?", " ".join(u.text.split())[:60]] for u in r.unsure],
    )
    if told.needed is not None:
        console.print_text("\n" + told.needed.words)
