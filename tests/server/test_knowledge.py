"""Knowledge over HTTP: made, filled, watched, asked, opened. The real readers, store and pipeline."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from quinze.knowledge.document import Place

BREAD = """# Bread

Bread dough is proved for fifteen hours in a cool room.

## 面团

面团要在阴凉处醒十五个小时。
"""
PRICES = "item,price\nflour,3\nyeast,15\n"


def events_of(text: str) -> list[tuple[str, Any, str]]:
    """(event, data, id) of a stream that has ended."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = [line.partition(": ") for line in block.split("\n") if not line.startswith(":")]
        fields = {key: value for key, _, value in lines}
        if "data" in fields:
            found.append((fields.get("event", ""), json.loads(fields["data"]), fields.get("id", "")))
    return found


def upload(running: Any, base: str, name: str, content: bytes) -> dict[str, Any]:
    """Upload and wait until it is read; the job as it ended."""
    reply = running.http.post(f"/api/knowledge/{base}/documents", params={"name": name}, content=content)
    assert reply.status_code == 202, reply.text
    stream = running.http.get(f"/api/jobs/{reply.json()['id']}/events").text
    kind, job, _ = events_of(stream)[-1]
    assert kind == "end"
    return dict(job)


def document(running: Any, base: str, name: str) -> dict[str, Any]:
    documents = running.http.get(f"/api/knowledge/{base}/documents").json()["documents"]
    return next(dict(found) for found in documents if found["name"] == name)


@pytest.fixture(scope="module")
def notes(running: Any) -> Any:
    """A server with a knowledge base "notes" that holds bread.md and tables/prices.csv."""
    assert running.http.post("/api/knowledge", json={"name": "notes"}).status_code == 201
    assert upload(running, "notes", "bread.md", BREAD.encode())["state"] == "done"
    assert upload(running, "notes", "tables/prices.csv", PRICES.encode())["state"] == "done"
    return running


def test_a_knowledge_base_is_made_listed_and_removed(running: Any) -> None:
    made = running.http.post("/api/knowledge", json={"name": "笔记 2026"})
    assert made.status_code == 201
    expected = {"name": "笔记 2026", "documents": 0, "ready": 0, "failed": 0, "chunks": 0,
                "embedder": "starter-v1-256", "error": None}  # fmt: skip
    assert made.json().items() >= expected.items()
    assert running.http.post("/api/knowledge", json={"name": "笔记 2026"}).status_code == 409
    listed = running.http.get("/api/knowledge").json()["knowledge_bases"]
    assert "笔记 2026" in [base["name"] for base in listed]
    assert running.http.get("/api/knowledge/笔记 2026").json()["documents"] == 0
    assert running.http.delete("/api/knowledge/笔记 2026").status_code == 204
    gone = running.http.get("/api/knowledge/笔记 2026")
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "knowledge_base_not_found"


def test_an_upload_is_watched_until_it_is_ready(running: Any) -> None:
    running.http.post("/api/knowledge", json={"name": "watched"})
    reply = running.http.post(
        "/api/knowledge/watched/documents", params={"name": "bread.md"}, content=BREAD.encode()
    )
    job = reply.json()
    stream = running.http.get(f"/api/jobs/{job['id']}/events")
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = events_of(stream.text)
    assert [kind for kind, _, _ in events] == ["progress"] * (len(events) - 1) + ["end"]
    stages = [data["stage"] for kind, data, _ in events if kind == "progress"]
    assert stages[-1] == "ready"
    assert {data["document"] for kind, data, _ in events if kind == "progress"} == {"bread.md"}
    ended = events[-1][1]
    assert (ended["state"], ended["done"], ended["total"], ended["failed"]) == ("done", 1, 1, [])
    assert running.http.get(f"/api/jobs/{job['id']}").json() == ended
    assert job["id"] in [found["id"] for found in running.http.get("/api/jobs").json()["jobs"]]


def test_a_listener_that_comes_back_is_told_only_what_is_new(notes: Any) -> None:
    job = notes.http.get("/api/jobs").json()["jobs"][0]["id"]
    path = f"/api/jobs/{job}/events"
    events = events_of(notes.http.get(path).text)
    numbers = [int(number) for kind, _, number in events if kind == "progress"]
    assert numbers == sorted(set(numbers))
    again = events_of(notes.http.get(path, headers={"last-event-id": str(numbers[0])}).text)
    assert again == events[1:]
    nothing = events_of(notes.http.get(path, headers={"last-event-id": str(numbers[-1])}).text)
    assert [kind for kind, _, _ in nothing] == ["end"]


def test_a_file_that_cannot_be_read_fails_with_its_reason_and_can_be_tried_again(running: Any) -> None:
    running.http.post("/api/knowledge", json={"name": "broken"})
    job = upload(running, "broken", "broken.docx", b"PK\x03\x04 this is no archive")
    assert job["state"] == "done"
    (failure,) = job["failed"]
    assert failure["document"] == "broken.docx"
    assert failure["error"]
    assert failure["code"] == "unreadable_document"
    found = document(running, "broken", "broken.docx")
    assert (found["status"], found["error"], found["code"]) == ("failed", failure["error"], failure["code"])
    asked = {"knowledge_base": "broken", "question": "What is broken?", "model": ""}
    searched = running.http.post("/api/ask", json=asked).json()["searched"]
    assert searched["unread"] == [{name: failure[name] for name in ("document", "error", "code")}]
    retried = running.http.post(f"/api/knowledge/broken/documents/{found['id']}/retry")
    assert retried.status_code == 202
    ended = events_of(running.http.get(f"/api/jobs/{retried.json()['id']}/events").text)[-1][1]
    assert [failed["document"] for failed in ended["failed"]] == ["broken.docx"]


def test_an_empty_upload_is_refused_in_words_for_people(running: Any) -> None:
    running.http.post("/api/knowledge", json={"name": "empty"})
    reply = running.http.post("/api/knowledge/empty/documents", params={"name": "a.docx"}, content=b"")
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["message"]) == (422, "empty_document", "a.docx is empty.")
    assert "copied whole" in error["hint"]
    assert running.http.get("/api/knowledge/empty/documents").json()["documents"] == []


def test_a_new_upload_of_the_same_name_replaces_the_old_one(running: Any) -> None:
    running.http.post("/api/knowledge", json={"name": "replaced"})
    upload(running, "replaced", "a.txt", b"The old text speaks of apples.")
    upload(running, "replaced", "a.txt", b"The new text speaks of pears.")
    found = running.http.get("/api/knowledge/replaced/documents").json()["documents"]
    assert [item["name"] for item in found] == ["a.txt"]
    blocks = running.http.get(f"/api/knowledge/replaced/documents/{found[0]['id']}/blocks").json()
    assert "pears" in blocks["blocks"][0]["text"]
    folder = running.service.knowledge_bases.folder_of("replaced") / "files"
    assert len(list(folder.iterdir())) == 1


def test_paths_of_this_machine_are_taken_in(running: Any, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# Rent\n\nThe rent is due on the fifteenth.")
    running.http.post("/api/knowledge", json={"name": "paths"})
    reply = running.http.post("/api/knowledge/paths/paths", json={"paths": [str(folder)]})
    assert reply.status_code == 202
    running.http.get(f"/api/jobs/{reply.json()['id']}/events")
    assert document(running, "paths", "docs/a.md")["path"] == str(folder.resolve() / "a.md")


def test_blocks_are_what_was_read_with_their_places(notes: Any) -> None:
    found = document(notes, "notes", "bread.md")
    path = f"/api/knowledge/notes/documents/{found['id']}/blocks"
    whole = notes.http.get(path).json()
    assert (whole["total"], whole["start"]) == (found["blocks"], 0)
    assert [block["index"] for block in whole["blocks"]] == list(range(whole["total"]))
    assert set(whole["blocks"][0]) == {
        "index", "kind", "text", "level", "cells", "header", "place", "label",
    }  # fmt: skip
    assert any("fifteen hours" in block["text"] for block in whole["blocks"])
    part = notes.http.get(path, params={"start": 1, "limit": 2}).json()
    assert part["blocks"] == whole["blocks"][1:3]
    assert notes.http.get(path, params={"start": -1}).status_code == 400
    assert notes.http.get(path, params={"limit": 10**6}).status_code == 400


def test_a_table_row_knows_its_cells(notes: Any) -> None:
    found = document(notes, "notes", "tables/prices.csv")
    blocks = notes.http.get(f"/api/knowledge/notes/documents/{found['id']}/blocks").json()["blocks"]
    assert any(block["cells"] == ["yeast", "15"] and block["header"] == ["item", "price"] for block in blocks)


def test_a_search_finds_passages_with_labels(notes: Any) -> None:
    found = notes.http.post("/api/knowledge/notes/search", json={"query": "面团要醒多久", "k": 3}).json()
    assert found["hits"][0]["document"] == "bread.md"
    assert found["hits"][0]["label"]
    assert len(found["hits"]) <= 3
    assert found["documents"] == 2
    assert found["terms"]


def test_a_question_is_answered_with_quotes(notes: Any) -> None:
    asked = {"knowledge_base": "notes", "question": "How long is bread dough proved?", "model": ""}
    answer = notes.http.post("/api/ask", json=asked).json()
    assert answer["kind"] == "quoted"
    assert "fifteen hours" in answer["citations"][0]["text"]
    assert answer["citations"][0]["document"] == "bread.md"
    assert answer["searched"]["documents"] == 2
    for passage in answer["searched"]["passages"]:
        assert msgspec.convert(passage["anchor"], Place).label() == passage["place"]
    assert answer["searched"]["passages"][0]["anchor"]["lines"]


def test_an_answer_streams_what_was_searched_and_then_the_answer(notes: Any) -> None:
    asked = {"knowledge_base": "notes", "question": "面团要醒多久？", "model": "", "stream": True}
    reply = notes.http.post("/api/ask", json=asked)
    events = events_of(reply.text)
    assert [kind for kind, _, _ in events if kind != "delta"] == ["searched", "answer"]
    assert "十五个小时" in events[-1][1]["citations"][0]["text"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_to_nowhere_is_not_found(running: Any, stream: bool) -> None:
    reply = running.http.post(
        "/api/ask", json={"knowledge_base": "nowhere", "question": "?", "stream": stream}
    )
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "knowledge_base_not_found"


def test_a_file_comes_back_as_an_attachment_that_cannot_run(running: Any) -> None:
    running.http.post("/api/knowledge", json={"name": "files"})
    page = b"<html><body><h1>Title</h1><p>Some text here.</p><script>alert(1)</script></body></html>"
    upload(running, "files", "网页 1.html", page)
    found = document(running, "files", "网页 1.html")
    reply = running.http.get(f"/api/knowledge/files/documents/{found['id']}/file")
    assert reply.content == page
    assert reply.headers["content-disposition"].startswith("attachment;")
    assert "filename*=UTF-8''%E7%BD%91%E9%A1%B5%201.html" in reply.headers["content-disposition"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in reply.headers["content-security-policy"]


def test_a_document_whose_file_has_gone_says_so(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "gone.md"
    path.write_text("# Here today\n\nGone tomorrow.")
    running.http.post("/api/knowledge", json={"name": "gone"})
    job = running.http.post("/api/knowledge/gone/paths", json={"paths": [str(path)]}).json()
    running.http.get(f"/api/jobs/{job['id']}/events")
    path.unlink()
    found = document(running, "gone", "gone.md")
    reply = running.http.get(f"/api/knowledge/gone/documents/{found['id']}/file")
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "document_not_found"
    assert running.http.get(f"/api/knowledge/gone/documents/{found['id']}/blocks").status_code == 200


def test_removing_a_document_removes_its_upload(running: Any) -> None:
    running.http.post("/api/knowledge", json={"name": "removed"})
    upload(running, "removed", "a.txt", b"Some text to be removed.")
    found = document(running, "removed", "a.txt")
    assert running.http.delete(f"/api/knowledge/removed/documents/{found['id']}").status_code == 204
    assert running.http.get("/api/knowledge/removed/documents").json() == {"documents": []}
    assert list((running.service.knowledge_bases.folder_of("removed") / "files").iterdir()) == []
    assert running.http.delete(f"/api/knowledge/removed/documents/{found['id']}").status_code == 404


@pytest.mark.slow
def test_a_page_is_drawn_and_kept(running: Any, shared: Any) -> None:
    pdf = shared("data/documents/py-pdf/001-trivial/minimal-document.pdf")
    running.http.post("/api/knowledge", json={"name": "pages"})
    upload(running, "pages", "a.pdf", pdf.read_bytes())
    found = document(running, "pages", "a.pdf")
    url = f"/api/knowledge/pages/documents/{found['id']}/pages"
    reply = running.http.get(f"{url}/1.png", params={"width": 300})
    assert reply.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(reply.content)).size[0] == 300
    assert len(list((running.service.home / "cache/pages").glob("*-1-300.png"))) == 1
    assert running.http.get(f"{url}/1.png", params={"width": 300}).content == reply.content
    assert running.http.get(f"{url}/{found['pages'] + 1}.png").status_code == 404
    assert running.http.get(f"{url}/0.png").status_code == 404
    assert running.http.get(f"{url}/1.png", params={"width": 9999}).status_code == 400


def test_a_document_without_pages_says_so_under_its_own_name(notes: Any) -> None:
    found = document(notes, "notes", "bread.md")
    reply = notes.http.get(f"/api/knowledge/notes/documents/{found['id']}/pages/1.png")
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert error["code"] == "unsupported_document"
    assert error["message"].startswith("bread.md ")


def test_a_job_can_be_cancelled(running: Any, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(400):
        (folder / f"{i}.md").write_text(f"# Note {i}\n\nThis is note number {i}.")
    running.http.post("/api/knowledge", json={"name": "many"})
    job = running.http.post("/api/knowledge/many/paths", json={"paths": [str(folder)]}).json()["id"]
    waits = running.http.post("/api/knowledge/many/paths", json={"paths": [str(folder)]}).json()["id"]
    assert running.http.delete(f"/api/jobs/{waits}").json()["state"] == "cancelled"
    assert running.http.delete(f"/api/jobs/{job}").status_code == 202
    running.until(lambda: running.http.get(f"/api/jobs/{job}").json()["ended_at"] is not None)
    assert running.http.get(f"/api/jobs/{job}").json()["state"] == "cancelled"
    assert list((running.service.knowledge_bases.folder_of("many") / "pending").iterdir()) == []
    assert running.http.get("/api/jobs/job_nothing").status_code == 404


def test_a_knowledge_base_can_be_removed_while_it_is_read_into(running: Any, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    for i in range(200):
        (folder / f"{i}.md").write_text(f"# Note {i}\n\nThis is note number {i}.")
    running.http.post("/api/knowledge", json={"name": "more"})
    running.http.post("/api/knowledge/more/paths", json={"paths": [str(folder)]})
    time.sleep(0.05)
    assert running.http.delete("/api/knowledge/more").status_code == 204
    assert running.http.get("/api/knowledge/more").status_code == 404
    assert len(list(folder.iterdir())) == 200
