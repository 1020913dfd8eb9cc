"""Ask your own documents, and see where each claim comes from. No model is needed.

python examples/ask_documents.py FOLDER QUESTION
"""

from __future__ import annotations

import sys

import quinze


def main(folder: str, question: str) -> None:
    notes = quinze.KnowledgeBase("example")
    report = notes.add(folder)
    for failure in report.failed:
        print(f"not read: {failure.document}: {failure.error}")

    answer = notes.ask(question)
    print(answer.answer)
    for citation in answer.citations:
        print(f"[{citation.number}] {citation.document}, {citation.place}: {citation.text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
