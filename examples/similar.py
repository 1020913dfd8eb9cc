"""Turn texts into vectors and rank them by their likeness to a question.

python examples/similar.py QUESTION TEXT [TEXT ...]
"""

from __future__ import annotations

import sys

import quinze


def main(question: str, *texts: str) -> None:
    embedder = quinze.Embedder()
    likeness = embedder.embed(list(texts)) @ embedder.embed([question])[0]
    for score, text in sorted(zip(likeness.tolist(), texts, strict=True), reverse=True):
        print(f"{score:.3f}  {text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
