"""The connections to one database file: one writes, others read, one watches what other processes write.

Whatever SQLite complains of becomes a StorageError that says what to do. Knows of the tables only whether
they are ours.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw

from quinze.errors import StorageError
from quinze.knowledge.stores import schema

BUSY_MILLISECONDS = 30_000
"""How long to wait for another process that writes."""
MOST_IDLE_READERS = 4


class Connections:
    """May be shared by threads: writers take turns, readers get a connection of their own."""

    def __init__(self, path: Path) -> None:
        schema.check_library()
        self.path = path
        self._write_lock = threading.RLock()
        self._watch_lock = threading.Lock()
        self._readers: queue.SimpleQueue[apsw.Connection] = queue.SimpleQueue()
        self._closed = False
        with explained(path):
            self._writer = self._connect()
            try:
                schema.check(self._writer, path)
                self._watch = self._connect()
            except BaseException:
                self._writer.close()
                raise

    def close(self) -> None:
        """Writers end their transaction first; readers that are still at work end with an error."""
        with self._write_lock, self._watch_lock:
            self._closed = True
            self._watch.close()
            while True:
                try:
                    self._readers.get_nowait().close()
                except queue.Empty:
                    break
            # The last connection to close also folds the write-ahead log into the database.
            self._writer.close()

    def version(self) -> int:
        """Another number whenever anybody, in this process or another, has committed."""
        with self._watch_lock, explained(self.path):
            self._check_open()
            number: int = self._watch.pragma("data_version")
            return number

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        connection.execute("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -32000")
        return connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        with self._write_lock, explained(self.path):
            self._check_open()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """A connection of one's own, in one transaction, so that all that is read belongs together."""
        self._check_open()
        with explained(self.path):
            try:
                connection = self._readers.get_nowait()
            except queue.Empty:
                connection = self._connect()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if self._closed or self._readers.qsize() >= MOST_IDLE_READERS:
                    connection.close()
                else:
                    self._readers.put(connection)

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(
                f"The knowledge base {self.path.parent.name} has been closed.", hint="Open it again."
            )


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's complaints, in words that help."""
    try:
        yield
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StorageError(
            f"{path} has been in use by another process for {BUSY_MILLISECONDS // 1000} s.",
            hint="Let the other Quinze finish, or stop it, and try again.",
        ) from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StorageError(
            f"{path} is damaged: {error}.",
            hint="Restore it from a copy, or remove this knowledge base and add its documents again.",
        ) from error
    except apsw.FullError as error:
        raise StorageError(f"The disk that holds {path} is full.", hint="Make room and try again.") from error
    except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError, apsw.AuthError) as error:
        raise StorageError(
            f"{path} cannot be opened for writing: {error}.",
            hint="Are the file and its folder yours to write?",
        ) from error
    except apsw.Error as error:
        raise StorageError(
            f"{path}: SQLite says {error}.", hint="The disk or the database may be damaged."
        ) from error
    except OSError as error:
        raise StorageError(
            f"{error.filename or path}: {error.strerror or error}.",
            hint="Is the disk full, or the folder read-only?",
        ) from error
