"""The service over the real rooms: jobs that survive, uploads that replace, names that are refused."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quinze.errors import (
    BusyError,
    DocumentNotFoundError,
    InvalidRequestError,
    KnowledgeBaseNotFoundError,
    ModelNotFoundError,
    StorageError,
    TooLargeError,
)
from quinze.service import uploads
from quinze.service.rooms import Rooms
from quinze.service.service import Service
from quinze.service.settings import KIB, Settings


@pytest.fixture
def service(home: Path) -> Iterator[Service]:
    service = Service(home, Settings(max_upload_bytes=64 * KIB))
    yield service
    service.close()


def upload(service: Service, base: str, name: str, content: bytes) -> None:
    with service.upload(base, name) as incoming:
        incoming.write(content)
        pending = incoming.finish()
    assert service.add_upload(base, pending).wait(60)


def test_making_a_service_costs_nothing(home: Path) -> None:
    Service(home, Settings())
    assert not home.exists()


def test_reading_in_the_foreground_makes_the_knowledge_base(service: Service, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Dough is proved for fifteen hours.")
    report = service.ingest("notes", [tmp_path / "a.txt"])
    assert report.added == 1
    assert service.search("notes", "dough", 1).hits[0].document == "a.txt"
    with pytest.raises(KnowledgeBaseNotFoundError):
        service.ingest("other", [tmp_path / "a.txt"], create=False)


def test_a_missing_path_is_named_before_anything_is_made(service: Service, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="nowhere"):
        service.ingest("notes", [tmp_path / "nowhere"])
    assert service.knowledge_bases.names() == []


def test_what_was_promised_is_kept_when_the_service_closes(home: Path, tmp_path: Path) -> None:
    for i in range(200):
        (tmp_path / f"{i}.txt").write_text(f"Note number {i}.")
    first = Service(home, Settings())
    first.knowledge_bases.create("notes")
    first.add_paths("notes", [tmp_path])
    with first.upload("notes", "late.txt") as incoming:
        incoming.write(b"This one waits behind the folder.")
        first.add_upload("notes", incoming.finish())
    first.close()
    assert list(uploads.pending_of(home / "knowledge" / "notes"))
    with pytest.raises(BusyError, match="shutting down"):
        first.add_paths("notes", [tmp_path])

    second = Service(home, Settings())
    second.resume()
    assert all(job.wait(60) for job in second.jobs.all())
    names = {document.name for document in second.knowledge_bases.get("notes").documents()}
    assert "late.txt" in names
    assert len(names) >= 201
    assert list(uploads.pending_of(home / "knowledge" / "notes")) == []
    second.close()


def test_a_note_that_cannot_be_read_is_set_aside(service: Service, home: Path) -> None:
    service.knowledge_bases.create("notes")
    pending = home / "knowledge" / "notes" / "pending"
    pending.mkdir(parents=True)
    notes = ("{broken", '{"id": "a"}', '{"id": "a", "file": "../../settings.json", "name": "x"}')
    for i, note in enumerate(notes):
        (pending / f"{i}-a.json").write_text(note)
    service.resume()
    assert service.jobs.all() == []
    assert sorted(path.name for path in pending.iterdir()) == ["0-a.broken", "1-a.broken", "2-a.broken"]


def test_what_another_process_has_removed_or_made_anew_is_noticed(service: Service, home: Path) -> None:
    other = Service(home, Settings())
    other.knowledge_bases.create("notes")
    upload(service, "notes", "a.txt", b"Apples are old.")
    other.remove_knowledge_base("notes")
    with pytest.raises(KnowledgeBaseNotFoundError):
        service.search("notes", "apples")
    other.knowledge_bases.create("notes")
    assert service.knowledge_bases.get("notes").documents() == []
    other.close()


def test_a_job_that_fails_for_a_full_disk_is_tried_again_at_the_next_start(home: Path) -> None:
    class FullDisk(Rooms):
        def open_knowledge_base(self, *arguments: Any, **more: Any) -> Any:
            base = super().open_knowledge_base(*arguments, **more)
            base.add = full_disk  # type: ignore[method-assign]
            return base

    def full_disk(*_: Any, **__: Any) -> Any:
        raise StorageError("No space left on device.")

    service = Service(home, Settings(), FullDisk())
    service.knowledge_bases.create("notes")
    upload(service, "notes", "a.txt", b"Apples.")
    assert service.jobs.all()[0].snapshot().state == "failed"
    service.close()
    service = Service(home, Settings())
    service.resume()
    assert all(job.wait(60) for job in service.jobs.all())
    assert [document.name for document in service.knowledge_bases.get("notes").documents()] == ["a.txt"]
    service.close()


def test_an_upload_that_is_left_leaves_nothing(service: Service, home: Path) -> None:
    service.knowledge_bases.create("notes")
    with service.upload("notes", "a.txt") as incoming:
        incoming.write(b"half")
    assert list((home / "knowledge" / "notes" / "incoming").iterdir()) == []
    assert list(uploads.pending_of(home / "knowledge" / "notes")) == []


def test_too_large_an_upload_is_stopped_as_it_comes(service: Service) -> None:
    service.knowledge_bases.create("notes")
    with service.upload("notes", "a.txt") as incoming:
        incoming.write(b"x" * 64 * KIB)
        with pytest.raises(TooLargeError, match="65,536"):
            incoming.write(b"x")


def test_the_last_of_two_uploads_of_one_name_stays(service: Service, home: Path) -> None:
    service.knowledge_bases.create("notes")
    upload(service, "notes", "a.txt", b"Apples are old.")
    upload(service, "notes", "a.txt", b"Pears are new.")
    assert [document.name for document in service.knowledge_bases.get("notes").documents()] == ["a.txt"]
    assert len(list((home / "knowledge" / "notes" / "files").iterdir())) == 1
    assert "Pears" in service.search("notes", "pears").hits[0].text


def test_an_answer_without_a_model_is_quoted(service: Service, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Dough is proved for fifteen hours.")
    service.ingest("notes", [tmp_path / "a.txt"])
    for model in (None, ""):
        assert service.ask("notes", "How long is dough proved?", model=model).kind == "quoted"
    with pytest.raises(ModelNotFoundError):
        service.ask("notes", "How long?", model="nobody")


@pytest.mark.parametrize(
    ("question", "k", "param"),
    [("", 1, "question"), ("  ", 1, "question"), ("x" * 20_001, 1, "question"), ("\ud800", 1, "question"),
     ("x", 0, "k"), ("x", 101, "k")],
    ids=ascii,
)  # fmt: skip
def test_a_question_that_is_none_is_refused(service: Service, question: str, k: int, param: str) -> None:
    service.knowledge_bases.create("notes")
    with pytest.raises(InvalidRequestError) as caught:
        service.ask("notes", question, k=k)
    assert caught.value.param == param


def test_a_stream_that_is_closed_closes_what_it_stands_on(home: Path) -> None:
    closed = threading.Event()

    class OpenRooms(Rooms):
        def stream_answer(self, *_: Any, **__: Any) -> Any:
            try:
                yield from range(100)
            finally:
                closed.set()

    service = Service(home, Settings(), OpenRooms())
    service.knowledge_bases.create("notes")
    events = service.stream_ask("notes", "?")
    assert next(events) == 0  # type: ignore[comparison-overlap]
    events.close()  # type: ignore[attr-defined]
    assert closed.is_set()
    service.close()


def test_a_document_of_a_folder_that_is_tried_again_stays_in_its_folder(
    service: Service, tmp_path: Path
) -> None:
    """It keeps its shown name, and is still taken out when it goes from the folder."""
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "broken.docx").write_bytes(b"PK\x03\x04 this is no archive")
    (folder / "whole.txt").write_text("Dough is proved for fifteen hours.")
    service.ingest("notes", [folder])
    base = service.knowledge_bases.get("notes")
    failed = base.document("papers/broken.docx")
    assert failed.status == "failed"
    assert service.retry("notes", failed.id).wait(60)
    assert base.document(failed.id).name == "papers/broken.docx"
    (folder / "broken.docx").unlink()
    assert service.ingest("notes", [folder]).removed == 1
    assert [document.name for document in base.documents()] == ["papers/whole.txt"]


def test_forgetting_what_was_promised_to_a_base_that_has_gone_is_nothing(tmp_path: Path) -> None:
    pending = uploads.note_pending(tmp_path / "notes", paths=["/a"])
    shutil.rmtree(tmp_path / "notes")
    uploads.forget_pending(tmp_path / "notes", pending)
    assert not (tmp_path / "notes").exists()


def test_a_document_that_is_not_there_is_not_found(service: Service) -> None:
    service.knowledge_bases.create("notes")
    for call in (service.document_file, service.remove_document, service.retry):
        with pytest.raises(DocumentNotFoundError):
            call("notes", 15)


def test_vectors_come_with_their_tokens_and_the_embedders_id(service: Service) -> None:
    vectors, tokens, name = service.embed(["one two", "三"])
    assert vectors.shape == (2, 256)
    assert tokens > 0
    assert name == "starter-v1-256"
    with pytest.raises(ModelNotFoundError):
        service.embed(["a"], model="nobody")
