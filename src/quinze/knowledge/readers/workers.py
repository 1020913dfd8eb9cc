"""Readers: the parent's side. Keeps a few reading children, and kills the one that misbehaves.

A child serves many files, for its imports are costly. It is started at the first file, watched while it
reads (time, progress, memory, the person's change of mind), and replaced when it had to be killed or died
by itself. The file that did it is named in the error; the next one is read as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import msgspec

from quinze.errors import DocumentError, QuinzeError, ReaderLimitError, ReadingCancelledError, StorageError
from quinze.knowledge.document import Document
from quinze.knowledge.readers import protocol
from quinze.knowledge.readers.detection import require_file
from quinze.knowledge.readers.report import DEFAULT_LIMITS, MIB, Limits

Progress = Callable[[int, int | None], None]

LOOK_SECONDS = 0.1
START_SECONDS = 60.0
PIPE_BYTES = 1 << 20
SPLIT_IT = "Split it into smaller files, or leave it out."


class Readers:
    """`workers` children that read, and one more that draws pages. Safe to use from many threads."""

    def __init__(self, workers: int = 2, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._changed = threading.Condition()
        self._closed = False
        self._reading = [_Slot() for _ in range(workers)]
        self._drawing = [_Slot()]
        # A child dies with the *thread* that started it, so one thread that outlives them all starts them.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="quinze-readers")

    def read(
        self,
        path: Path,
        *,
        name: str = "",
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> Document:
        """The document in the file at `path`; `name` is what the person calls it, and errors do too."""
        name = name or path.name
        require_file(path, name)
        request = protocol.Read(os.fsencode(path.absolute()), _sayable(name), self.limits)
        reply = self._ask(self._reading, request, self.limits, progress, cancel)
        if not isinstance(reply, protocol.Done):
            raise StorageError(f"The reader of {name} answered out of turn.")
        return reply.document

    def render(self, path: Path, format: str, page: int, width: int, timeout: float = 30.0) -> bytes:  # noqa: A002
        """A picture (PNG) of one page of the file, `width` pixels wide."""
        require_file(path, path.name)
        request = protocol.Render(os.fsencode(path.absolute()), _sayable(path.name), format, page, width)
        limits = Limits(seconds=timeout, idle_seconds=timeout, memory=self.limits.memory)
        reply = self._ask(self._drawing, request, limits, None, None)
        if not isinstance(reply, protocol.Image):
            raise StorageError(f"The reader of {path.name} answered out of turn.")
        return reply.png

    def close(self) -> None:
        """Kill the children. What is being read fails."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            for slot in (*self._reading, *self._drawing):
                # The pipes of a child at work are closed by the thread that reads from them, and by no other:
                # their numbers might be another file's a moment later.
                if slot.taken and slot.child is not None:
                    slot.child.process.kill()
                else:
                    slot.kill()
        self._starter.shutdown(wait=True)

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(
        self,
        slots: list[_Slot],
        request: protocol.Request,
        limits: Limits,
        progress: Progress | None,
        cancel: threading.Event | None,
    ) -> protocol.Reply:
        with self._slot(slots, request.name, cancel) as slot:
            for attempt in (1, 2):
                child = slot.child
                fresh = child is None or not child.alive
                if child is None or fresh:
                    child = slot.child = self._start(request.name)
                try:
                    reply = _Watch(child, request, limits, progress, cancel).reply()
                except _GoneError as gone:
                    child.kill()
                    # It may have left, having had nothing to do for long, just as it was asked.
                    if attempt == 1 and not fresh and gone.quietly:
                        continue
                    if self._closed:
                        raise ReadingCancelledError(f"Reading {request.name} was stopped.") from None
                    raise gone.error(request.name) from None
                except BaseException:
                    child.kill()
                    raise
                if child.resident_bytes() > self.limits.memory // 2:
                    child.kill()
                break
        if isinstance(reply, protocol.Failed):
            raise _ERRORS.get(reply.code, DocumentError)(reply.message, hint=reply.hint)
        return reply

    def _start(self, name: str) -> _Child:
        with self._changed:
            if self._closed:
                raise ReadingCancelledError(f"Reading {name} was cancelled.")
            starting = self._starter.submit(_Child, self.limits.memory)
        child = starting.result()
        try:
            child.wait_until_ready()
        except StorageError:
            if not self._closed:
                raise
        if self._closed:
            child.kill()
            raise ReadingCancelledError(f"Reading {name} was cancelled.")
        return child

    @contextlib.contextmanager
    def _slot(self, slots: list[_Slot], name: str, cancel: threading.Event | None) -> Iterator[_Slot]:
        with self._changed:
            while True:
                if self._closed or (cancel is not None and cancel.is_set()):
                    raise ReadingCancelledError(f"Reading {name} was cancelled.")
                # A slot whose child is warm first: the fewer children, the less memory.
                free = sorted((slot for slot in slots if not slot.taken), key=lambda slot: slot.child is None)
                if free:
                    break
                self._changed.wait(LOOK_SECONDS)
            slot = free[0]
            slot.taken = True
        try:
            yield slot
        finally:
            with self._changed:
                slot.taken = False
                closed = self._closed
                self._changed.notify()
            if closed:
                slot.kill()


class _Slot:
    """Room for one child."""

    def __init__(self) -> None:
        self.taken = False
        self.child: _Child | None = None

    def kill(self) -> None:
        child = self.child
        if child is not None:
            child.kill()


class _GoneError(Exception):
    """The child ended before it had answered."""

    def __init__(self, status: int | None, quietly: bool) -> None:
        super().__init__(status)
        self.status = status
        self.quietly = quietly

    def error(self, name: str) -> DocumentError:
        if self.status is not None and self.status < 0:
            how = f"was ended by {signal.Signals(-self.status).name}"
        else:
            how = f"ended with status {self.status}"
        return DocumentError(
            f"The process that was reading {name} {how}.",
            hint="It may break its parser, or ask for more memory than there is: save it anew, or split it.",
        )


class _Child:
    """One reading process and the two pipes to it."""

    def __init__(self, memory: int) -> None:
        requests, self.requests = os.pipe()
        self.replies, replies = os.pipe()
        for descriptor in (self.requests, self.replies):
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._lock = threading.Lock()
        self._open = True
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by kill
        self.frames = protocol.Frames()
        # -P: a file called lxml.py in the folder where Quinze was started is not imported.
        source = str(Path(__file__).resolve().parents[3])
        start = (
            "import runpy, sys; sys.path.append(sys.argv.pop(1)); "
            "runpy.run_module(sys.argv.pop(1), run_name='__main__')"
        )
        try:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-P", "-c", start, source, "quinze.knowledge.readers.child",
                    str(requests), str(replies), str(os.getpid()), str(memory),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._complaints,
                pass_fds=(requests, replies),
            )  # fmt: skip
        except OSError as error:
            os.close(self.requests)
            os.close(self.replies)
            raise StorageError(f"No process for reading can be started: {error.strerror}.") from error
        finally:
            os.close(requests)
            os.close(replies)

    @property
    def alive(self) -> bool:
        return self._open and self.process.poll() is None

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        poller = select.poll()
        poller.register(self.replies, select.POLLIN)
        while time.monotonic() < deadline:
            if poller.poll(LOOK_SECONDS * 1000):
                data = os.read(self.replies, PIPE_BYTES)
                if not data:
                    break
                for _ in self.frames.push(data):
                    return
        complaint = self._last_words()
        self.kill()
        raise StorageError(
            f"The process that reads documents does not start. {complaint}".rstrip(),
            hint="Install Quinze again with all its dependencies.",
        )

    def resident_bytes(self) -> int:
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        with self._lock:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            if self._open:
                self._open = False
                os.close(self.requests)
                os.close(self.replies)
                self._complaints.close()

    def _last_words(self) -> str:
        self._complaints.seek(0)
        lines = self._complaints.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""


class _Watch:
    """One request, from its sending to its reply, under all its limits."""

    def __init__(
        self,
        child: _Child,
        request: protocol.Request,
        limits: Limits,
        progress: Progress | None,
        cancel: threading.Event | None,
    ) -> None:
        self._child = child
        self._request = request
        self._limits = limits
        self._progress = progress
        self._cancel = cancel
        self._at: tuple[int, int | None] = (0, None)

    def reply(self) -> protocol.Reply:
        child, name = self._child, self._request.name
        try:
            protocol.write(child.requests, self._request)
        except OSError:
            raise _GoneError(child.process.wait(), quietly=True) from None
        poller = select.poll()
        poller.register(child.replies, select.POLLIN)
        begun = heard = time.monotonic()
        while True:
            if poller.poll(LOOK_SECONDS * 1000):
                try:
                    data = os.read(child.replies, PIPE_BYTES)
                except OSError:
                    data = b""
                if not data:
                    status = child.process.wait()
                    raise _GoneError(status, quietly=status == 0 and heard == begun)
                heard = time.monotonic()
                for message in child.frames.push(data):
                    reply = _DECODER.decode(message)
                    if not isinstance(reply, protocol.Progress):
                        return reply
                    self._at = (reply.page, reply.pages)
                    if self._progress is not None and reply.page:
                        self._progress(reply.page, reply.pages)
            self._check(name, time.monotonic() - begun, time.monotonic() - heard)

    def _check(self, name: str, seconds: float, silent: float) -> None:
        limits = self._limits
        if self._cancel is not None and self._cancel.is_set():
            raise ReadingCancelledError(f"Reading {name} was cancelled.")
        if seconds > limits.seconds:
            raise ReaderLimitError(
                f"Reading {name} took longer than {limits.seconds:,g} s and was stopped{self._where()}.",
                hint=SPLIT_IT,
            )
        if silent > limits.idle_seconds:
            raise ReaderLimitError(
                f"Reading {name} made no progress for {limits.idle_seconds:,g} s "
                f"and was stopped{self._where()}.",
                hint=SPLIT_IT,
            )
        if (used := self._child.resident_bytes()) > limits.memory:
            raise ReaderLimitError(
                f"Reading {name} took {used / MIB:,.0f} MiB of memory, "
                f"more than the {limits.memory / MIB:,.0f} it may, and was stopped{self._where()}.",
                hint=SPLIT_IT,
            )

    def _where(self) -> str:
        page, pages = self._at
        if not page:
            return ""
        return f" at page {page} of {pages}" if pages else f" at page {page}"


def _classes(base: type[QuinzeError]) -> Iterator[type[QuinzeError]]:
    yield base
    for each in base.__subclasses__():
        yield from _classes(each)


def _sayable(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 are shown as U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


_DECODER: msgspec.msgpack.Decoder[protocol.Reply] = msgspec.msgpack.Decoder(protocol.Reply)
_ERRORS = {each.code: each for each in _classes(QuinzeError)}
