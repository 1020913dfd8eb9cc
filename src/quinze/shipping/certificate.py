"""The ship certificate: is what is served the model that was trained?

    certificate = certify(reference, [candidate, ...])
    certificate.write(folder)                            certificate.json, certificate.md

Each candidate is compared with the reference on fixed probes, check by check: template, end tokens, token
ids, first tokens, greedy continuations, divergence of the probabilities, bits per byte. A verdict is one of

    equal           to the token; what float32 sums in another order leave is below EXACT
    within bounds   not equal, and within bounds that are stated beside it: a quantized file
    different       and in what

and the whole is as good as its worst check. Knows no file formats: it asks views.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from quinze.paths import atomic_write
from quinze.shipping.checks import Asked, Progress, checks
from quinze.shipping.probes import Probes
from quinze.shipping.verdicts import Bounds, Check, Outcome
from quinze.shipping.views import View


class Comparison(msgspec.Struct, frozen=True):
    """One candidate beside the reference."""

    name: str
    files: dict[str, str]
    checks: list[Check]

    @property
    def outcome(self) -> Outcome:
        found = {check.outcome for check in self.checks}
        return (
            "different" if "different" in found else "within bounds" if "within bounds" in found else "equal"
        )

    @property
    def verdict(self) -> str:
        """ "equal", "equal within stated bounds", or "different: " and in what."""
        if self.outcome == "different":
            return "different: " + "; ".join(c.told for c in self.checks if c.outcome == "different")
        return "equal" if self.outcome == "equal" else "equal within stated bounds"


class Certificate(msgspec.Struct, frozen=True):
    reference: str
    files: dict[str, str]
    """name -> sha256 of the reference's weights."""
    comparisons: list[Comparison]
    probes: str
    prompts: int
    tokens: int
    """On which divergence and bits per byte were measured."""
    quinze: str

    @property
    def equal(self) -> bool:
        """Whether everything is equal, not merely within bounds."""
        return all(comparison.outcome == "equal" for comparison in self.comparisons)

    @property
    def shippable(self) -> bool:
        """Whether nothing is different."""
        return all(comparison.outcome != "different" for comparison in self.comparisons)

    def write(self, folder: Path) -> None:
        """certificate.json and certificate.md."""
        from quinze.shipping.report import markdown

        with atomic_write(folder / "certificate.json") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=2))
        with atomic_write(folder / "certificate.md") as file:
            file.write(markdown(self).encode())


def certify(
    reference: View,
    candidates: Sequence[View],
    *,
    bounds: Mapping[str, Bounds] | None = None,
    base: View | None = None,
    probes: Probes | None = None,
    progress: Progress | None = None,
) -> Certificate:
    """Compare each candidate with the reference.

    bounds    name of a candidate -> what it may differ; a candidate without must be equal
    base      the model before it was tuned: measures how much of the tune a quantized file keeps
    progress  called with a name, and how many of how many probes are done; it may raise to stop
    """
    asked = probes or Probes()
    told = Asked(reference, asked, base)
    comparisons = [
        Comparison(
            candidate.name,
            candidate.files(),
            checks(told, candidate, (bounds or {}).get(candidate.name), progress),
        )
        for candidate in candidates
    ]
    return Certificate(
        reference.name, reference.files(), comparisons, asked.id, len(told.prompts), told.tokens,
        _version(),
    )  # fmt: skip


def _version() -> str:
    try:
        return importlib.metadata.version("quinze")
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        return "(from source)"
