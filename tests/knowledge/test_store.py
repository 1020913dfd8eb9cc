"""The file: whole or absent, seen by other processes, and clear about what is wrong with it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import pytest

from quinze.embeddings.hashing import HashingEmbedder
from quinze.errors import ConflictError, KnowledgeBaseNotFoundError, StorageError
from quinze.knowledge.knowledge_base import KnowledgeBase
from quinze.knowledge.stores import connections, schema

Write = Callable[..., Path]


def reopen(folder: Path) -> KnowledgeBase:
    return KnowledgeBase.open(folder, embedder=None, create=False)


def test_what_was_added_is_there_after_reopening(kb: KnowledgeBase, write: Write) -> None:
    kb.add([write("a.txt", "# Bread\nIt is proved for ninety minutes.")])
    first = kb.search_account("how long is bread proved?")
    kb.close()
    with reopen(kb.folder) as again:
        second = again.search_account("how long is bread proved?")
        assert second.hits == first.hits
        assert again.embedder.id == "hashing-v1-512"
        assert again.check() == []


def test_a_write_survives_a_loss_of_power(kb: KnowledgeBase) -> None:
    """WAL with synchronous=FULL: a commit is on the disk when it returns."""
    with kb._store.writing() as db:
        assert db.pragma("journal_mode") == "wal"
        assert db.pragma("synchronous") == 2


def test_another_process_is_seen_at_the_next_search(kb: KnowledgeBase, write: Write) -> None:
    kb.add([write("a.txt", "The first document is about bread.")])
    assert kb.search("trains") == [] or "train" not in kb.search("trains")[0].text
    path = write("b.txt", "The second document is about trains.")
    program = (
        "import sys; from pathlib import Path; from quinze.knowledge.knowledge_base import KnowledgeBase;"
        " kb = KnowledgeBase.open(Path(sys.argv[1]), embedder=None, create=False);"
        " print(kb.add([Path(sys.argv[2])]).added, kb.search('bread')[0].document);"
        " kb.remove('a.txt'); kb.close()"
    )
    command = [sys.executable, "-c", program, str(kb.folder), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "a.txt"]
    assert kb.search("trains")[0].document == "b.txt"
    assert all(hit.document == "b.txt" for hit in kb.search("bread"))
    assert [document.name for document in kb.documents()] == ["b.txt"]


def test_searches_run_while_documents_come_in(kb: KnowledgeBase, source: Path, write: Write) -> None:
    for i in range(60):
        write(f"{i}.txt", f"Document number{i} speaks of bread and of item{i}.")
    stop = threading.Event()

    def keep_searching() -> int:
        searches = 0
        while not stop.is_set():
            for hit in kb.search("bread"):
                assert "bread" in hit.text
            searches += 1
        return searches

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(keep_searching) for _ in range(3)]
        try:
            report = kb.add([source])
        finally:
            stop.set()
        assert all(future.result() > 0 for future in running)
    assert report.added == 60
    assert kb.search("item42", 1)[0].document == "source/42.txt"


def test_two_processes_may_create_the_same_base(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        bases = list(
            pool.map(
                lambda _: KnowledgeBase.open(tmp_path / "base", embedder=HashingEmbedder(), create=True),
                range(8),
            )
        )
    assert [path.name for path in sorted((tmp_path / "base").iterdir()) if path.suffix == ".sqlite"] == [
        "knowledge.sqlite"
    ]
    for base in bases:
        base.close()
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["knowledge.sqlite"]


def test_a_base_that_is_not_there_is_not_made_by_opening(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeBaseNotFoundError):
        reopen(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_vectors_of_two_embedders_are_not_mixed(kb: KnowledgeBase) -> None:
    class Other(HashingEmbedder):
        id = "other-v1"

    with pytest.raises(ConflictError, match="hashing-v1-512"):
        KnowledgeBase.open(kb.folder, embedder=Other(), create=False)


@pytest.mark.parametrize(
    "content", [b"this is no database at all" * 100, b"", b"SQLite format 3\x00" + b"\x00" * 4000]
)
def test_a_file_that_is_no_knowledge_base_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "knowledge.sqlite").write_bytes(content)
    with pytest.raises(StorageError) as refused:
        reopen(tmp_path)
    assert str(tmp_path) in refused.value.message
    assert refused.value.hint
    assert (tmp_path / "knowledge.sqlite").read_bytes() == content


def test_a_damaged_database_is_named_and_not_changed(kb: KnowledgeBase, source: Path, write: Write) -> None:
    for i in range(30):
        write(f"{i}.txt", f"Text number {i}. " * 200)
    kb.add([source])
    kb.close()
    path = kb.folder / "knowledge.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) // 2) + whole[8192 + len(whole) // 2 :])
    with pytest.raises(StorageError, match="damaged") as refused:
        read_everything(kb.folder)
    assert "copy" in refused.value.hint


def read_everything(folder: Path) -> None:
    with reopen(folder) as base:
        base.search("text")
        for document in base.documents():
            base.blocks(document.id)


def test_a_newer_version_is_left_alone(kb: KnowledgeBase) -> None:
    kb.close()
    connection = apsw.Connection(str(kb.folder / "knowledge.sqlite"))
    connection.pragma("user_version", schema.VERSION + 1)
    connection.close()
    with pytest.raises(StorageError, match="newer Quinze") as refused:
        reopen(kb.folder)
    assert "Update Quinze" in refused.value.hint


def test_an_older_version_is_brought_up_to_date(
    kb: KnowledgeBase, write: Write, source: Path, readers: Any
) -> None:
    """By whoever opens it first, with all that is in it; what failed then is tried anew and gets its code."""
    write("good.txt", "The bread is proved.")
    write("bad.txt", "UNREADABLE")
    kb.add([source])
    kb.close()
    older = apsw.Connection(str(kb.folder / "knowledge.sqlite"))
    older.execute("ALTER TABLE documents DROP COLUMN code; ALTER TABLE documents DROP COLUMN readers")
    older.pragma("user_version", 1)
    older.close()
    with ThreadPoolExecutor(4) as pool:
        for base in pool.map(lambda _: reopen(kb.folder), range(4)):
            base.close()
    with KnowledgeBase.open(kb.folder, embedder=None, create=False, readers=readers) as again:
        assert again.search("bread", 1)[0].document == "source/good.txt"
        assert again.document("source/bad.txt").code == ""
        assert (again.add([source]).skipped, again.document("source/bad.txt").code) == (
            1,
            "unreadable_document",
        )
        assert again.check() == []


def test_a_locked_database_says_who_holds_it(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch, readers: Any
) -> None:
    monkeypatch.setattr(connections, "BUSY_MILLISECONDS", 50)
    with KnowledgeBase.open(tmp_path / "b", embedder=HashingEmbedder(), create=True, readers=readers) as kb:
        path = write("a.txt", "text")
        kb.add([path])
        other = apsw.Connection(str(kb.folder / "knowledge.sqlite"))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another process"):
            kb.add([write("b.txt", "text")])
        # Searching does not wait for a writer.
        assert kb.search("text")[0].document == "a.txt"
        other.execute("ROLLBACK")
        other.close()
        assert kb.add([source_of(path) / "b.txt"]).added == 1


def source_of(path: Path) -> Path:
    return path.parent


def test_a_full_disk_leaves_the_documents_before_it(kb: KnowledgeBase, write: Write) -> None:
    kb.add([write("a.txt", "The first is safe.")])
    with kb._store.writing() as db:
        pages = db.pragma("page_count")
    kb._store._writer.pragma("max_page_count", pages + 2)
    with pytest.raises(StorageError, match="full"):
        kb.add([write("b.txt", "A second one. " * 20_000)])
    kb._store._writer.pragma("max_page_count", 1 << 30)
    assert [document.name for document in kb.documents()] == ["a.txt"]
    assert kb.check() == []
    assert kb.add([write("c.txt", "A third.")]).added == 1


def test_a_closed_base_says_so(kb: KnowledgeBase) -> None:
    kb.close()
    with pytest.raises(StorageError, match="closed"):
        kb.documents()
    kb.close()


def test_an_sqlite_that_can_corrupt_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(StorageError, match=r"3\.51\.2"):
        KnowledgeBase.open(tmp_path / "b", embedder=HashingEmbedder(), create=True)
