"""Taking documents in: what is new, changed, moved, gone, unreadable or in the way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quinze.errors import (
    ConflictError,
    DocumentError,
    DocumentNotFoundError,
    InvalidRequestError,
    NotFoundError,
)
from quinze.knowledge import ingest
from quinze.knowledge.fingerprint import readers_fingerprint
from quinze.knowledge.knowledge_base import IngestEvent, KnowledgeBase
from quinze.knowledge.results import Failure, Unread

Write = Callable[..., Path]


def names(kb: KnowledgeBase) -> list[str]:
    return [document.name for document in kb.documents()]


def test_a_folder_is_read_once(kb: KnowledgeBase, readers: Any, source: Path, write: Write) -> None:
    write("a.txt", "Bread is proved.")
    write("deep/er/b.txt", "面团要发酵。")
    assert kb.add([source]).added == 2
    again = kb.add([source])
    assert (again.added, again.updated, again.skipped) == (0, 0, 2)
    assert names(kb) == ["source/a.txt", "source/deep/er/b.txt"]
    assert sorted(readers.read_names) == names(kb)


def test_what_tools_and_systems_leave_is_not_read(
    kb: KnowledgeBase, source: Path, write: Write, tmp_path: Path
) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text("not given")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x.txt").write_text("not given either")
    write("kept.txt", "kept")
    for name in (".hidden.txt", ".git/config.txt", "node_modules/m.txt", "__pycache__/c.txt", "~$lock.txt"):
        write(name, "left out")
    (source / "link.txt").symlink_to(outside)
    (source / "loop").symlink_to(source)
    (source / "out").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(source / "pipe.txt")
    kb.add([source])
    assert names(kb) == ["source/kept.txt"]


def test_a_touched_file_is_skipped_by_its_content(
    kb: KnowledgeBase, readers: Any, source: Path, write: Write
) -> None:
    write("a.txt", "same")
    kb.add([source])
    write("a.txt", "same")
    assert kb.add([source]).skipped == 1
    assert readers.read_names == ["source/a.txt"]
    # And its new date is remembered: it is not even hashed again.
    (source / "a.txt").chmod(0o000)
    assert kb.add([source]).skipped == 1


def test_a_changed_file_takes_the_place_of_its_old_self(
    kb: KnowledgeBase, source: Path, write: Write
) -> None:
    write("a.txt", "The price is twelve.")
    kb.add([source])
    before = kb.document("source/a.txt")
    write("a.txt", "The price is thirteen.\nAnd more.")
    report = kb.add([source])
    after = kb.document("source/a.txt")
    assert (report.updated, report.added) == (1, 0)
    assert after.id == before.id
    assert [block.text for block in kb.blocks(after.id)] == ["The price is thirteen.", "And more."]
    assert [hit.text for hit in kb.search("price twelve")] == ["The price is thirteen.\nAnd more."]
    assert kb.stats().chunks == 1


def test_a_moved_file_is_the_same_document(
    kb: KnowledgeBase, readers: Any, source: Path, write: Write
) -> None:
    write("old.txt", "content that moves")
    kb.add([source])
    document = kb.documents()[0]
    (source / "new").mkdir()
    (source / "old.txt").rename(source / "new/name.txt")
    report = kb.add([source])
    assert (report.added, report.updated, report.removed) == (0, 1, 0)
    assert names(kb) == ["source/new/name.txt"]
    assert kb.documents()[0].id == document.id
    assert readers.read_names == ["source/old.txt"]


def test_of_two_copies_of_a_moved_file_one_is_new(kb: KnowledgeBase, source: Path, write: Write) -> None:
    write("old.txt", "content that moves")
    kb.add([source])
    (source / "old.txt").unlink()
    write("one.txt", "content that moves")
    write("two.txt", "content that moves")
    report = kb.add([source])
    assert (report.added, report.updated, report.skipped) == (1, 1, 0)
    assert names(kb) == ["source/one.txt", "source/two.txt"]


def test_a_file_gone_from_its_folder_is_removed(kb: KnowledgeBase, source: Path, write: Write) -> None:
    write("a.txt", "stays")
    write("b.txt", "goes")
    kb.add([source])
    (source / "b.txt").unlink()
    assert kb.add([source]).removed == 1
    assert names(kb) == ["source/a.txt"]
    assert kb.search("goes") == []


def test_adding_one_file_says_nothing_about_its_folder(kb: KnowledgeBase, source: Path, write: Write) -> None:
    write("a.txt", "stays")
    write("b.txt", "vanishes")
    kb.add([source])
    (source / "b.txt").unlink()
    write("a.txt", "stays, changed")
    report = kb.add([source / "a.txt"])
    assert (report.updated, report.removed) == (1, 0)
    assert names(kb) == ["source/a.txt", "source/b.txt"]


def test_an_empty_folder_removes_nothing(kb: KnowledgeBase, source: Path, write: Write) -> None:
    """It looks like a disk that is not mounted."""
    write("a.txt", "stays").unlink()
    write("a.txt", "stays")
    kb.add([source])
    (source / "a.txt").unlink()
    assert kb.add([source]).removed == 0
    assert names(kb) == ["source/a.txt"]


def test_two_names_for_one_content_are_both_kept_and_said(
    kb: KnowledgeBase, source: Path, write: Write
) -> None:
    write("a.txt", "The contract ends in May.")
    kb.add([source])
    write("copy of a.txt", "The contract ends in May.")
    assert kb.add([source]).added == 1
    assert kb.document("source/copy of a.txt").warnings == ["The same content as source/a.txt."]
    search = kb.search_account("When does the contract end?")
    assert len(search.hits) == 1
    assert "the same text as in source/a.txt" in search.dropped[0].reason


def test_what_cannot_be_read_is_recorded_with_its_reason(
    kb: KnowledgeBase, readers: Any, source: Path, write: Write
) -> None:
    write("bad.txt", "UNREADABLE")
    write("good.txt", "readable")
    report = kb.add([source])
    assert report.failed == [
        Failure("source/bad.txt", "source/bad.txt is unreadable.", "Write it anew.", "unreadable_document")
    ]
    assert report.added == 1
    bad = kb.document("source/bad.txt")
    assert (bad.status, bad.error) == ("failed", "source/bad.txt is unreadable.")
    assert bad.code == "unreadable_document"
    assert kb.search_account("readable").unread == [Unread("source/bad.txt", bad.error, bad.code)]
    stats = kb.stats()
    assert (stats.documents, stats.ready, stats.failed) == (2, 1, 1)
    # It is not tried again in vain ...
    assert kb.add([source]).skipped == 2
    # ... but when asked, when named itself, and when it has changed.
    assert len(kb.add([source], retry=True).failed) == 1
    assert len(kb.add([source / "bad.txt"]).failed) == 1
    assert names(kb) == ["source/bad.txt", "source/good.txt"]
    write("bad.txt", "now it is fine")
    assert kb.add([source]).updated == 1
    assert kb.document("source/bad.txt").status == "ready"
    assert kb.document("source/bad.txt").code == ""
    assert kb.search_account("fine").unread == []


def test_what_failed_is_tried_again_once_the_readers_have_changed(
    kb: KnowledgeBase, source: Path, write: Write, readers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that reads a new kind of file picks it up at the next add; what is ready is left alone."""
    write("bad.txt", "UNREADABLE")
    write("good.txt", "readable")
    kb.add([source])
    monkeypatch.setattr(ingest, "readers_fingerprint", lambda: "newer")
    readers.read_names.clear()
    assert len(kb.add([source]).failed) == 1
    assert readers.read_names == ["source/bad.txt"]
    assert kb.add([source]).skipped == 2


def test_the_readers_are_others_when_their_code_is(tmp_path: Path) -> None:
    assert readers_fingerprint() == readers_fingerprint()
    (tmp_path / "pdf.py").write_text("one")
    before = readers_fingerprint.__wrapped__(tmp_path)
    (tmp_path / "pdf.py").write_text("two")
    assert before != readers_fingerprint.__wrapped__(tmp_path)


def test_a_document_that_became_unreadable_is_not_searched_in_its_old_form(
    kb: KnowledgeBase, source: Path, write: Write
) -> None:
    write("a.txt", "old words")
    kb.add([source])
    write("a.txt", "UNREADABLE")
    assert len(kb.add([source]).failed) == 1
    assert kb.search("old words") == []


def test_uploads_are_known_by_their_shown_name(kb: KnowledgeBase, tmp_path: Path) -> None:
    uploads = kb.folder / "files"
    uploads.mkdir()
    first, second = uploads / "111-report.txt", uploads / "222-report.txt"
    first.write_text("first version")
    second.write_text("second version")
    kb.add([first], names=["报告/report.txt"])
    assert names(kb) == ["报告/report.txt"]
    assert kb.add([second], names=["报告/report.txt"]).updated == 1
    assert names(kb) == ["报告/report.txt"]
    # The file of the version that nobody can ask for any more is deleted, and the last with the document.
    assert not first.exists()
    assert second.exists()
    kb.remove("报告/report.txt")
    assert not second.exists()


def test_removing_a_document_leaves_a_file_that_is_not_ours(kb: KnowledgeBase, write: Write) -> None:
    path = write("a.txt", "mine")
    kb.add([path])
    kb.remove(kb.documents()[0].id)
    assert path.exists()
    assert names(kb) == []
    assert kb.search("mine") == []
    with pytest.raises(DocumentNotFoundError):
        kb.remove("a.txt")


def test_documents_of_the_same_name_are_told_apart(kb: KnowledgeBase, write: Write) -> None:
    paths = [write("one/report.txt", "first"), write("two/report.txt", "second")]
    for path in paths:
        kb.add([path])
    assert sorted(names(kb)) == ["report.txt", "two/report.txt"]
    assert kb.document("two/report.txt").path == str(paths[1])


def test_every_document_is_followed_from_waiting_to_ready(
    kb: KnowledgeBase, source: Path, write: Write
) -> None:
    for i in range(5):
        write(f"{i}.txt", "UNREADABLE" if i == 3 else f"text {i}")
    events: list[IngestEvent] = []
    thread = threading.get_ident()

    def note(event: IngestEvent) -> None:
        assert threading.get_ident() == thread
        events.append(event)

    kb.add([source], progress=note)
    for i in range(5):
        stages = [event.stage for event in events if event.document == f"source/{i}.txt"]
        unique = list(dict.fromkeys(stages))
        assert unique == (
            ["waiting", "reading", "failed"] if i == 3 else ["waiting", "reading", "indexing", "ready"]
        )
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert {event.total for event in events} == {5}
    assert events[-1].done == 5
    failed = next(event for event in events if event.stage == "failed")
    assert (failed.error, failed.hint) == ("source/3.txt is unreadable.", "Write it anew.")
    events.clear()
    kb.add([source], progress=note)
    assert {event.stage for event in events} == {"skipped"}


def test_two_documents_are_read_at_the_same_time(
    kb: KnowledgeBase, readers: Any, source: Path, write: Write
) -> None:
    both = threading.Barrier(2, timeout=20)
    readers.before = lambda *_: both.wait()
    write("a.txt", "a text")
    write("b.txt", "b text")
    assert kb.add([source]).added == 2


def test_cancelled_within_a_read_what_is_ready_stays(
    kb: KnowledgeBase, readers: Any, source: Path, write: Write
) -> None:
    for i in range(6):
        write(f"{i}.txt", f"text {i}")
    cancel = threading.Event()

    def block(name: str, given: threading.Event | None) -> None:
        assert given is not None
        if int(Path(name).stem) >= 2:
            assert wait_until(given.is_set)
            raise DocumentError("cancelled")

    readers.before = block
    ready = []

    def note(event: IngestEvent) -> None:
        if event.stage == "ready":
            ready.append(event.document)
            if len(ready) == 2:
                cancel.set()

    report = kb.add([source], progress=note, cancel=cancel)
    assert report.cancelled
    assert report.failed == []
    assert names(kb) == sorted(ready) == ["source/0.txt", "source/1.txt"]
    readers.before = lambda *_: None
    assert kb.add([source]).added == 4


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    import time

    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


def test_a_fault_in_the_listener_stops_the_reading_threads(
    kb: KnowledgeBase, source: Path, write: Write
) -> None:
    for i in range(20):
        write(f"{i}.txt", f"text {i}")

    def fail(event: IngestEvent) -> None:
        if event.stage == "ready":
            raise ConflictError("enough")

    before = threading.active_count()
    with pytest.raises(ConflictError, match="enough"):
        kb.add([source], progress=fail)
    assert wait_until(lambda: threading.active_count() <= before)


def test_lone_surrogates_and_odd_bytes_do_not_stop_a_document(kb: KnowledgeBase, source: Path) -> None:
    (source / "odd.txt").write_bytes(b"caf\xe9 and \xff bread\n")
    (source / os.fsdecode(b"caf\xe9.txt")).write_text("name of bytes")
    report = kb.add([source])
    assert (report.added, report.failed) == (2, [])
    assert kb.search("bread")[0].document == "source/odd.txt"
    assert kb.add([source]).skipped == 2


def test_paths_that_are_not_there_are_named(kb: KnowledgeBase, source: Path, write: Write) -> None:
    write("a.txt", "x")
    with pytest.raises(NotFoundError, match="nowhere"):
        kb.add([source / "a.txt", source / "nowhere"])
    assert names(kb) == []
    with pytest.raises(InvalidRequestError, match="2 names"):
        kb.add([source / "a.txt"], names=["a", "b"])
    with pytest.raises(InvalidRequestError, match="folder"):
        kb.add([source], names=["a"])


def test_a_file_that_may_not_be_opened_says_so_and_is_tried_again(
    kb: KnowledgeBase, source: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quinze.knowledge import ingest

    def refuse(path: Path, cancel: threading.Event) -> str:
        raise PermissionError(13, "Permission denied")

    write("locked.txt", "text")
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "hash_file", refuse)
        (failure,) = kb.add([source]).failed
    assert "Permission denied" in failure.error
    assert kb.add([source]).updated == 1
