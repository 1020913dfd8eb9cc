"""Killed at any moment: what was reported ready is there, the database is whole, the next add completes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import apsw
import pytest

from quinze.knowledge.knowledge_base import KnowledgeBase

KILLS = 50
SECONDS = 200.0

CHILD = """
import sys, msgspec
from pathlib import Path
from quinze.embeddings.hashing import HashingEmbedder
from quinze.knowledge.knowledge_base import KnowledgeBase

folder, source = map(Path, sys.argv[1:])
with KnowledgeBase.open(folder, embedder=HashingEmbedder(), create=True) as kb:
    print("open", flush=True)
    report = kb.add([source], progress=lambda e: print(e.stage, e.document, flush=True))
    print("end", len(report.failed), flush=True)
"""

DOCX = {
    "[Content_Types].xml": """<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Override PartName="/word/document.xml"
 ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>""",
    "_rels/.rels": """<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
 Target="word/document.xml"/></Relationships>""",
}


def docx(path: Path, *paragraphs: str) -> None:
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    document = f'<w:document xmlns:w="{namespace}"><w:body>{body}</w:body></w:document>'
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (DOCX | {"word/document.xml": document}).items():
            archive.writestr(name, content)


def write_round(source: Path, number: int) -> None:
    """Two new files, a changed one, and now and then a Word file: an add always has something to do."""
    (source / f"new {number}.txt").write_text(f"Round {number} brought the word novum{number}.\n", "utf-8")
    (source / f"新 {number}.txt").write_text(f"第{number}轮写下了这句话。\n" * 40, "utf-8")
    (source / "changing.txt").write_text(f"This is version{number} of one file.\n" * (number + 1), "utf-8")
    if number % 5 == 0:
        docx(source / f"word {number}.docx", f"Word file {number}", "与其他文件一起读入。")


@pytest.mark.slow
@pytest.mark.timeout(290)
def test_fifty_kills_lose_nothing_that_was_reported_ready(tmp_path: Path) -> None:
    folder, source = tmp_path / "base", tmp_path / "source"
    source.mkdir()
    chance = random.Random(15)
    kills = completed = 0
    begun = time.monotonic()
    number = 0
    duration = 0.6
    while kills < KILLS and time.monotonic() - begun < SECONDS:
        number += 1
        write_round(source, number)
        ready, ended, took = add_and_kill(folder, source, after=chance.uniform(0.0, 1.0) * duration)
        completed += ended
        kills += not ended
        # The kills follow the speed of this machine, so that they fall on all of an add.
        duration = took if ended else min(duration * 1.05, 5.0)
        if (folder / "knowledge.sqlite").exists():
            connection = apsw.Connection(str(folder / "knowledge.sqlite"))
            assert [row[0] for row in connection.execute("PRAGMA integrity_check")] == ["ok"]
            names = {
                row[0] for row in connection.execute("SELECT name FROM documents WHERE status = 'ready'")
            }
            connection.close()
            assert ready <= names
        else:
            assert not ready
    assert kills >= KILLS, f"only {kills} kills in {SECONDS:.0f} s, {completed} adds completed"

    with KnowledgeBase.open(folder, embedder=None, create=False) as kb:
        report = kb.add([source])
        assert report.failed == []
        files = [path.name for path in source.iterdir()]
        assert sorted(document.name for document in kb.documents()) == sorted(
            f"source/{name}" for name in files
        )
        assert kb.check() == []
        assert kb.search(f"novum{number}", 1)[0].document == f"source/new {number}.txt"
        assert f"version{number}" in kb.search(f"version{number}", 1)[0].text
        assert kb.add([source]).skipped == len(files)


def add_and_kill(folder: Path, source: Path, after: float) -> tuple[set[str], bool, float]:
    """(documents that were reported ready, whether the add had ended before the kill, seconds)"""
    command = [sys.executable, "-c", CHILD, str(folder), str(source)]
    begun = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    assert child.stdout is not None
    try:
        first = child.stdout.readline() if chance_of_early(after) else ""
        begun = time.monotonic()
        out, _ = child.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        out, _ = child.communicate()
    lines = (first + out).splitlines()
    # The last line may be torn by the kill.
    whole = lines if out.endswith("\n") or not out else lines[:-1]
    ready = {line.removeprefix("ready ") for line in whole if line.startswith("ready ")}
    ended = any(line.startswith("end ") for line in whole)
    assert ended or child.returncode == -signal.SIGKILL, out
    return ready, ended, time.monotonic() - begun


def chance_of_early(after: float) -> bool:
    """Most kills are counted from the opened base; the earliest fall on the start, where the base is made."""
    return after > 0.05
