"""Several processes that work on blocks; what they make does not depend on their number.

Each is started anew as a module, so a script that calls us needs no `if __name__ == "__main__"`, and ends
when its pipe does, so none outlives a parent that was killed. One message in, one out, in msgpack:

    python -P -m quinze.training.data.workers
"""

from __future__ import annotations

import hashlib
import queue
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from quinze import errors
from quinze.errors import QuinzeError, StorageError
from quinze.training.data.tasks import Task, Tasks
from quinze.training.data.text_tasks import write_whole

T = TypeVar("T")


class _Failed(msgspec.Struct):
    error: str
    message: str
    hint: str
    param: str | None


class Workers:
    """`count` processes; of one, the work is done in this one."""

    def __init__(self, count: int) -> None:
        self._here = Tasks() if count <= 1 else None
        self._free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._all = [] if self._here else [_started() for _ in range(count)]
        for process in self._all:
            self._free.put(process)
        self._threads = ThreadPoolExecutor(max(1, count))
        self._ahead = count + 1 if count > 1 else 0

    def map(self, tasks: Iterable[Task], result: type[T], memory: Path) -> Iterator[T]:
        """The results in the order of the tasks, of which only a few are held at a time.

        memory  a folder that keeps them: the same task is not done twice, also by a later run
        """
        waiting: deque[Future[bytes]] = deque()
        for task in tasks:
            message = msgspec.msgpack.encode(task)
            waiting.append(self._threads.submit(self._done, message, memory))
            if len(waiting) > self._ahead:
                yield msgspec.msgpack.decode(waiting.popleft().result(), type=result)
        while waiting:
            yield msgspec.msgpack.decode(waiting.popleft().result(), type=result)

    def _done(self, message: bytes, memory: Path) -> bytes:
        path = memory / f"{hashlib.blake2b(message, digest_size=16).hexdigest()}.done"
        if path.is_file():
            return path.read_bytes()
        answer = self._ask(message) if self._all else self._answered(message)
        write_whole(path, answer)
        return answer

    def _answered(self, message: bytes) -> bytes:
        assert self._here is not None
        return msgspec.msgpack.encode(self._here.run(msgspec.msgpack.decode(message, type=Task)))

    def _ask(self, message: bytes) -> bytes:
        process = self._free.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _write(process.stdin, message)
            answer = _read(process.stdout)
        except BrokenPipeError:
            answer = None
        finally:
            self._free.put(process)
        if answer is None:
            raise StorageError(
                "A process that prepared data ended unexpectedly.",
                hint="Memory may have run out: one worker needs less.",
            )
        if answer[:1] == b"!":
            failed = msgspec.msgpack.decode(answer[1:], type=_Failed)
            kind = getattr(errors, failed.error, QuinzeError)
            raise kind(failed.message, hint=failed.hint, param=failed.param)
        return answer[1:]

    def close(self) -> None:
        for process in self._all:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._all:
            process.communicate()
        if self._here:
            self._here.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _started() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "quinze.training.data.workers"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _write(file: IO[bytes], message: bytes) -> None:
    file.write(struct.pack("<Q", len(message)))
    file.write(message)
    file.flush()


def _read(file: IO[bytes]) -> bytes | None:
    """A message; None where the other side has gone."""
    head = file.read(8)
    if len(head) < 8:
        return None
    (size,) = struct.unpack("<Q", head)
    message = file.read(size)
    return message if len(message) == size else None


def _serve() -> None:
    tasks = Tasks()
    out: Any = sys.stdout.buffer
    while (message := _read(sys.stdin.buffer)) is not None:
        try:
            answer = b"." + msgspec.msgpack.encode(tasks.run(msgspec.msgpack.decode(message, type=Task)))
        except QuinzeError as error:
            failed = _Failed(type(error).__name__, error.message, error.hint, error.param)
            answer = b"!" + msgspec.msgpack.encode(failed)
        _write(out, answer)
    tasks.close()


if __name__ == "__main__":
    _serve()
