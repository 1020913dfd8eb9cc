"""Children read for us: many files each, within limits, and the parent outlives whatever becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from quinze.errors import DocumentError, EmptyDocumentError, ReaderLimitError, ReadingCancelledError
from quinze.knowledge.readers.report import MIB, Limits
from quinze.knowledge.readers.workers import Readers

PNG = b"\x89PNG\r\n\x1a\n"


def children() -> list[psutil.Process]:
    """The reading processes of this one."""
    return [
        child
        for child in psutil.Process().children()
        # What other tests started may have ended without being waited for yet: it has no command line.
        if child.status() != psutil.STATUS_ZOMBIE
        and any("quinze.knowledge.readers.child" in word for word in child.cmdline())
    ]


@pytest.fixture
def before() -> set[int]:
    return {child.pid for child in children()}


def own(before: set[int]) -> list[psutil.Process]:
    return [child for child in children() if child.pid not in before]


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "note.txt"
    path.write_text("The pump must be serviced every 2,500 operating hours.\n", "utf-8")
    return path


@pytest.fixture
def long_csv(tmp_path: Path) -> Path:
    """Takes a child a few seconds."""
    path = tmp_path / "long.csv"
    path.write_text(
        "name,value\n" + "".join(f"row {number},{number}\n" for number in range(400_000)), "utf-8"
    )
    return path


def test_no_child_is_started_before_the_first_file_and_one_serves_many(note: Path, before: set[int]) -> None:
    with Readers(workers=2) as readers:
        assert own(before) == []
        readers.read(note)
        (child,) = own(before)
        for _ in range(5):
            assert readers.read(note).blocks[0].text.startswith("The pump")
        assert [each.pid for each in own(before)] == [child.pid]
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_child_outlives_the_thread_that_first_used_it(note: Path, before: set[int]) -> None:
    """A child is bound to the life of the thread that started it, so no caller's thread may do that."""
    with Readers(workers=1) as readers:
        thread = threading.Thread(target=readers.read, args=(note,))
        thread.start()
        thread.join()
        (child,) = own(before)
        time.sleep(0.2)
        readers.read(note)
        assert [each.pid for each in own(before)] == [child.pid]


def test_many_threads_share_few_children(note: Path, before: set[int]) -> None:
    with Readers(workers=2) as readers, ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: readers.read(note).blocks[0].text, range(40)))
        assert len(own(before)) <= 2
    assert texts == [note.read_text("utf-8").strip()] * 40


def test_a_child_killed_in_mid_read_is_reported_and_the_next_file_is_read(
    note: Path, long_csv: Path, before: set[int]
) -> None:
    with Readers(workers=1) as readers:
        readers.read(note)
        (child,) = own(before)
        threading.Timer(0.3, lambda: os.kill(child.pid, signal.SIGKILL)).start()
        with pytest.raises(DocumentError, match=r"long\.csv was ended by SIGKILL"):
            readers.read(long_csv)
        assert readers.read(note).blocks
        (successor,) = own(before)
        assert successor.pid != child.pid


def test_a_hang_ends_after_the_time_without_progress(note: Path, long_csv: Path, before: set[int]) -> None:
    with Readers(workers=1, limits=Limits(idle_seconds=4.0)) as readers:
        readers.read(note)
        (child,) = own(before)
        threading.Timer(0.2, lambda: os.kill(child.pid, signal.SIGSTOP)).start()
        with pytest.raises(ReaderLimitError, match=r"long\.csv made no progress for 4 s") as caught:
            readers.read(long_csv)
        assert caught.value.hint
        assert readers.read(note).blocks


def test_a_file_that_takes_too_long_in_all_is_given_up(note: Path, long_csv: Path, before: set[int]) -> None:
    with Readers(workers=1, limits=Limits(seconds=4.0)) as readers:
        readers.read(note)
        (child,) = own(before)
        threading.Timer(0.2, lambda: os.kill(child.pid, signal.SIGSTOP)).start()
        with pytest.raises(ReaderLimitError, match=r"long\.csv took longer than 4 s"):
            readers.read(long_csv)


def test_a_file_that_takes_too_much_memory_is_given_up(note: Path, long_csv: Path) -> None:
    with Readers(workers=1, limits=Limits(memory=90 * MIB)) as readers:
        readers.read(note)
        with pytest.raises(ReaderLimitError, match=r"long\.csv took .* of memory, more than the 90 it may"):
            readers.read(long_csv)
        assert readers.read(note).blocks


def test_cancelling_ends_a_read_and_a_wait_for_a_child(note: Path, long_csv: Path) -> None:
    cancel = threading.Event()
    with Readers(workers=1) as readers:
        readers.read(note)
        threading.Timer(0.3, cancel.set).start()
        with pytest.raises(ReadingCancelledError):
            readers.read(long_csv, cancel=cancel)
        with pytest.raises(ReadingCancelledError):
            readers.read(note, cancel=cancel)
        assert readers.read(note).blocks


def test_progress_names_every_page(made: Callable[[str], Path]) -> None:
    seen: list[tuple[int, int | None]] = []
    with Readers(workers=1) as readers:
        document = readers.read(made("known.pptx"), progress=lambda page, pages: seen.append((page, pages)))
    assert document.pages == 4
    assert [each for each in seen if each[1] == 4] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_what_a_callback_raises_reaches_the_caller_and_does_no_harm(
    made: Callable[[str], Path], note: Path
) -> None:
    def stop(page: int, pages: int | None) -> None:
        raise RuntimeError("enough")

    with Readers(workers=1) as readers:
        with pytest.raises(RuntimeError, match="enough"):
            readers.read(made("known.pptx"), progress=stop)
        assert readers.read(note).format == "text"


def test_children_die_with_their_parent(note: Path) -> None:
    program = (
        "import sys, time, pathlib, psutil\n"
        "from quinze.knowledge.readers.workers import Readers\n"
        "readers = Readers(workers=1)\n"
        "readers.read(pathlib.Path(sys.argv[1]))\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(note)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_closing_ends_what_is_being_read(note: Path, long_csv: Path, before: set[int]) -> None:
    readers = Readers(workers=1)
    readers.read(note)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(readers.read, long_csv)
        time.sleep(0.3)
        readers.close()
        with pytest.raises(DocumentError):
            reading.result(timeout=30)
    assert own(before) == []


def test_a_module_in_the_folder_where_quinze_is_started_is_not_imported(
    note: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("chardet", "lxml", "msgspec"):
        (tmp_path / f"{name}.py").write_text(
            "raise SystemExit('imported from the documents folder')", "utf-8"
        )
    monkeypatch.chdir(tmp_path)
    with Readers(workers=1) as readers:
        assert readers.read(note).blocks


def test_a_name_for_the_person_stands_in_the_error(tmp_path: Path, readers: Readers) -> None:
    path = tmp_path / "upload-7f3a"
    path.write_bytes(b"  \n")
    with pytest.raises(EmptyDocumentError, match=r"Minutes 会议记录\.txt is empty"):
        readers.read(path, name="Minutes 会议记录.txt")


def test_a_name_of_bytes_that_are_no_text_is_read_all_the_same(tmp_path: Path, readers: Readers) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xb1\xe0\xc2\xeb.txt"))
    path.write_text("Section 4.2 limits liability.", "utf-8")
    assert readers.read(path).blocks[0].text == "Section 4.2 limits liability."


def test_a_page_is_drawn_in_a_child(made: Callable[[str], Path], readers: Readers) -> None:
    picture = readers.render(made("onecol.pdf"), "pdf", 1, 400)
    assert picture.startswith(PNG)
    assert int.from_bytes(picture[16:20], "big") == 400
    with pytest.raises(Exception, match="page"):
        readers.render(made("onecol.pdf"), "pdf", 99, 400)
