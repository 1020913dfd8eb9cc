"""The Python face: the three classes, as the README shows them."""

from __future__ import annotations

import doctest
import inspect
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import quinze
import quinze.api
from quinze.errors import DocumentNotFoundError, InvalidRequestError, KnowledgeBaseNotFoundError


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "flat"
    folder.mkdir()
    (folder / "lease.md").write_text(
        "# Lease\n\n## Rent\n\nThe rent is due on the fifteenth of each month.\n"
    )
    (folder / "notes.txt").write_text("房租每月十五日交。\n")
    (folder / "broken.docx").write_bytes(b"PK\x03\x04 this is no archive")
    return folder


@pytest.fixture
def stories(shared: Callable[[str], Path]) -> Path:
    shared("data/models/tok512.bin")
    return shared("data/models/stories260K.bin")


def test_documents_are_added_searched_asked_and_removed(documents: Path) -> None:
    with quinze.KnowledgeBase("home") as notes:
        assert notes.documents() == []
        report = notes.add(documents)
        assert report.added == 2
        assert [failure.document for failure in report.failed] == ["flat/broken.docx"]
        assert notes.search("when is the rent due?", k=1)[0].document == "flat/lease.md"
        answer = notes.ask("When is the rent due?")
        assert answer.kind == "quoted"
        assert "fifteenth" in answer.answer
        assert (answer.citations[0].document, answer.citations[0].number) == ("flat/lease.md", 1)
        assert [event.type for event in notes.stream("房租什么时候交？")][-1] == "answer"
        notes.remove("flat/lease.md")
        assert "flat/lease.md" not in [document.name for document in notes.documents()]
        with pytest.raises(DocumentNotFoundError):
            notes.remove("flat/lease.md")


def test_what_is_added_is_there_the_next_time(documents: Path) -> None:
    with quinze.KnowledgeBase("home") as notes:
        notes.add(documents / "notes.txt")
    with quinze.KnowledgeBase("home") as notes:
        assert notes.add(documents / "notes.txt").skipped == 1
        assert "十五日" in notes.ask("房租什么时候交？").answer
        notes.remove()
        assert notes.documents() == []


def test_progress_is_told_while_it_reads(documents: Path) -> None:
    stages = []
    with quinze.KnowledgeBase("home") as notes:
        notes.add(documents / "notes.txt", progress=lambda event: stages.append(event.stage))
    assert stages[0] == "waiting"
    assert stages[-1] == "ready"


def test_mistakes_are_named(tmp_path: Path) -> None:
    with quinze.KnowledgeBase("home") as notes:
        with pytest.raises(KnowledgeBaseNotFoundError, match="no knowledge base named 'home'"):
            notes.search("rent")
        with pytest.raises(InvalidRequestError, match="no file or folder"):
            notes.add(tmp_path / "nowhere")
        with pytest.raises(InvalidRequestError, match="No path"):
            notes.add()
    with pytest.raises(quinze.QuinzeError):
        quinze.KnowledgeBase("../evil")
    with pytest.raises(quinze.QuinzeError):
        quinze.LLM("no-such-model")
    with pytest.raises(quinze.QuinzeError):
        quinze.Embedder("no-such-embedder")


def test_a_model_is_found_by_path_and_by_name(stories: Path, home: Path) -> None:
    with quinze.LLM(str(stories), threads=1) as llm:
        text = llm.complete("Once upon a time", max_tokens=20, temperature=0).text
    (home / "models").mkdir(parents=True)
    (home / "models.json").write_text(f'{{"tiny": {{"path": "{stories}"}}}}')
    with quinze.LLM("tiny", threads=1) as llm:
        deltas = list(llm.complete("Once upon a time", max_tokens=20, temperature=0, stream=True))
        assert "".join(delta.text for delta in deltas) == text
        assert deltas[-1].finish_reason == "length"


def test_a_loaded_model_can_be_handed_to_a_question(stories: Path, documents: Path) -> None:
    """This one cannot chat, so the answer is quoted all the same."""
    with quinze.KnowledgeBase("home") as notes, quinze.LLM(stories, threads=1) as llm:
        notes.add(documents)
        assert notes.ask("When is the rent due?", model=llm).kind == "quoted"


@pytest.mark.parametrize("module", [quinze, quinze.api], ids=lambda module: module.__name__)
def test_the_first_example_of_the_documentation_runs(
    module: ModuleType,
    stories: Path,
    documents: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Word for word, on a model and documents of those names."""
    documents.rename(documents.parent / "Documents")
    monkeypatch.chdir(documents.parent)
    code = inspect.getdoc(module)
    assert code is not None
    lines = [line for line in code.splitlines() if line.startswith("    ") or not line]
    exec(textwrap.dedent("\n".join(lines)).replace("model.gguf", str(stories)), {})
    assert "fifteenth" in capsys.readouterr().out


def test_the_examples_of_the_classes_say_what_comes_out(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (stories, stories.with_name("tok512.bin")):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(quinze.api)
    assert (results.attempted, results.failed) == (3, 0)


def test_an_embedder_gives_unit_vectors_that_know_likeness() -> None:
    embedder = quinze.Embedder()
    vectors = embedder.embed(["bread dough is proved", "the dough of bread", "房租每月十五日交"])
    assert vectors.shape == (3, embedder.dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert embedder.embed("one text").shape == (1, embedder.dimensions)
