"""A certificate as Markdown, to be read by a person and kept beside the model."""

from __future__ import annotations

from quinze.shipping.certificate import Certificate, Comparison

_SIGN = {"equal": "equal", "within bounds": "within bounds", "different": "**different**"}


def markdown(certificate: Certificate) -> str:
    """The whole of it: verdicts first, then each check with its numbers, then the files."""
    lines = [
        "# Ship certificate",
        "",
        f"Reference: {certificate.reference}. Probes {certificate.probes}: {certificate.prompts} prompts, "
        f"{certificate.tokens:,} tokens of text. Quinze {certificate.quinze}.",
        "",
        "| compared | verdict |",
        "|---|---|",
        *(f"| {_cell(c.name)} | {_cell(c.verdict)} |" for c in certificate.comparisons),
        "",
    ]
    for comparison in certificate.comparisons:
        lines += _details(comparison)
    lines += ["## Files", "", "| file | sha256 |", "|---|---|"]
    files = dict(certificate.files)
    for comparison in certificate.comparisons:
        files |= comparison.files
    lines += [f"| {_cell(name)} | `{digest}` |" for name, digest in files.items()]
    return "\n".join(lines) + "\n"


def _details(comparison: Comparison) -> list[str]:
    rows = [f"| {c.name} | {_SIGN[c.outcome]} | {_cell(c.told)} |" for c in comparison.checks]
    return [f"## {comparison.name}", "", "| check | outcome | found |", "|---|---|---|", *rows, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
