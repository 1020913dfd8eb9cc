"""The one door to the network: what files a repository of a model hub holds, and one of them brought here.

Given the address of a hub and, where there is one, a token; returns lists of files, and files that are whole.
A file comes in beside its place; what came is kept, and the next attempt goes on from there as long as it is
still the same file. In the end size and sha256 must be those that the hub states. Knows nothing of models.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from quinze.errors import HubError, TooLargeError
from quinze.hub.connection import AgainError, Door, Resolve
from quinze.hub.part import Part, RemoteFile, strong, write

Kind = Literal["huggingface", "modelscope"]
ENDPOINTS: Mapping[Kind, str] = {
    "huggingface": "https://huggingface.co",
    "modelscope": "https://modelscope.cn",
}
MOST_JSON = 32 * 2**20
MOST_FILES = 20_000
CHUNK = 1 << 18
LONGEST_PAUSE = 60.0
"""Seconds that we wait at most before another attempt, whatever Retry-After says."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The list of files was cancelled."""


class Hub:
    """One hub, or a mirror of it. The token goes to this very address, and not along with a redirect."""

    def __init__(
        self,
        kind: Kind,
        endpoint: str | None = None,
        *,
        token: str | None = None,
        idle_timeout: float = 30.0,
        attempts: int = 6,
        pause: float = 1.0,
        resolve: Resolve | None = None,
    ) -> None:
        """idle_timeout: seconds without a byte. attempts: in a row, without any progress between them.
        pause: seconds before the second one; doubled each time."""
        self.kind = kind
        self._door = Door(endpoint or ENDPOINTS[kind], token, idle_timeout, resolve)
        self.endpoint = self._door.endpoint
        self._attempts, self._pause = attempts, pause

    def files(self, repository: str, cancel: threading.Event | None = None) -> list[RemoteFile]:
        """All files of ORG/NAME.

        NotFoundError when there is no such repository, or it is not for everyone.
        """
        stop = cancel or threading.Event()
        if self.kind == "modelscope":
            return _listed(self._modelscope(repository, stop))
        return _listed(self._huggingface(repository, stop))

    def _huggingface(self, repository: str, stop: threading.Event) -> list[RemoteFile]:
        address = f"{self.endpoint}/api/models/{repository}/revision/main?blobs=true"
        told = self._json(address, repository, stop)
        commit = told.get("sha") if isinstance(told, dict) else None
        siblings = told.get("siblings") if isinstance(told, dict) else None
        if not isinstance(siblings, list) or not isinstance(commit, str) or not re.fullmatch(r"\w+", commit):
            raise self._strange(repository)
        found = []
        for entry in filter(_is_object, siblings[:MOST_FILES]):
            path, size = entry.get("rfilename"), entry.get("size")
            lfs = entry["lfs"] if _is_object(entry.get("lfs")) else {}
            # A file of this commit: what is pushed meanwhile does not mix with it.
            url = f"{self.endpoint}/{repository}/resolve/{commit}/{quote(str(path))}"
            found.append(RemoteFile(path, lfs.get("size", size), lfs.get("sha256") or lfs.get("oid"), url))
        return found

    def _modelscope(self, repository: str, stop: threading.Event) -> list[RemoteFile]:
        api = f"{self.endpoint}/api/v1/models/{repository}/repo"
        told = self._json(f"{api}/files?Revision=master&Recursive=true", repository, stop)
        data = told.get("Data") if isinstance(told, dict) else None
        entries = data.get("Files") if isinstance(data, dict) else None
        if not isinstance(entries, list):
            raise self._strange(repository)
        found = []
        for entry in filter(_is_object, entries[:MOST_FILES]):
            if entry.get("Type") == "tree":
                continue
            path = entry.get("Path")
            url = f"{api}?Revision=master&FilePath={quote(str(path), safe='')}"
            found.append(RemoteFile(path, entry.get("Size"), entry.get("Sha256") or None, url))
        return found

    def _json(self, url: str, repository: str, stop: threading.Event) -> Any:
        for attempt in range(self._attempts):
            try:
                with self._door.open(url, {"Accept": "application/json"}, stop, repository) as response:
                    body = response.read(MOST_JSON + 1)
                if len(body) > MOST_JSON:
                    raise TooLargeError(
                        f"The list of files of {repository} is larger than {MOST_JSON:,} bytes."
                    )
                return json.loads(body)
            except (ValueError, RecursionError) as error:
                raise self._strange(repository) from error
            except (OSError, http.client.HTTPException, AgainError) as error:
                self._wait(attempt, error, stop)
            if stop.is_set():
                break
        raise Stopped

    def _strange(self, repository: str) -> HubError:
        return HubError(
            f"{self.endpoint} answered something that is no list of the files of {repository}.",
            hint="Is it a model hub, or a mirror of one?",
        )

    # --- one file

    def download(
        self,
        file: RemoteFile,
        to: Path,
        *,
        progress: Callable[[int], None] = lambda _: None,
        cancel: threading.Event | None = None,
    ) -> bool:
        """`file` at `to`, whole and checked; False when it was cancelled, and what came is kept.

        progress  is told how many of its bytes are here
        """
        stop = cancel or threading.Event()
        to.parent.mkdir(parents=True, exist_ok=True)
        part, second = Part(to, file), False
        attempt, most = 0, part.have
        while not stop.is_set():
            try:
                if part.have < file.size or file.size == 0:
                    self._fetch(file, part, progress, stop)
                if part.finish():
                    return True
                # All bytes are here, and they are wrong: once more from the beginning, and then no more.
                if second:
                    raise _mismatch(file)
                second = True
            except (OSError, http.client.HTTPException, AgainError) as error:
                if stop.is_set():
                    break
                # More than ever before: a hub that begins anew each time makes no progress.
                attempt = 0 if part.have > most else attempt + 1
                most = max(most, part.have)
                self._wait(max(attempt - 1, 0), error, stop)
        return False

    def _fetch(
        self, file: RemoteFile, part: Part, progress: Callable[[int], None], stop: threading.Event
    ) -> None:
        headers = {"Accept-Encoding": "identity"}
        if part.have and part.etag:
            headers |= {"Range": f"bytes={part.have}-", "If-Range": part.etag}
        elif part.have and file.sha256:
            headers["Range"] = f"bytes={part.have}-"
        elif part.have:
            part.restart()
        with self._door.open(file.url, headers, stop, file.path, partial=True) as response:
            etag = strong(response.headers.get("ETag"))
            if response.status == 416 or (response.status == 206 and not part.continues(response, etag)):
                part.restart()
                raise AgainError(f"{file.path} has changed at the hub")
            if response.status == 200:
                part.restart()
            part.note(etag)
            stated = response.headers.get("Content-Length", "")
            if stated.isdigit() and int(stated) != file.size - part.have:
                raise _mismatch(file, f"the hub sends {int(stated) + part.have:,} bytes")
            with part.open() as out:
                while piece := response.read1(CHUNK):
                    if part.have + len(piece) > file.size:
                        part.restart()
                        raise _mismatch(file, "the hub sends more bytes than that")
                    write(out, piece)
                    part.took(piece)
                    progress(part.have)
        if part.have < file.size:
            raise AgainError(f"the connection ended after {part.have:,} of {file.size:,} bytes")

    def _wait(self, attempt: int, error: Exception, stop: threading.Event) -> None:
        """Before another attempt; raises HubError when there have been enough."""
        final = attempt + 1 >= self._attempts or isinstance(error, ssl.SSLCertVerificationError)
        if final and not stop.is_set():
            reason = str(error) or type(error).__name__
            raise HubError(
                f"{urlsplit(self.endpoint).netloc} did not answer as it should: {reason}.",
                hint="Try again later: what has come is kept. Or name a mirror: --mirror URL.",
            ) from error
        asked = error.after if isinstance(error, AgainError) else 0.0
        stop.wait(min(LONGEST_PAUSE, max(asked, self._pause * 2**attempt)))


def _mismatch(file: RemoteFile, what: str = "its sha256 is another") -> HubError:
    return HubError(
        f"{file.path} is not what the hub's list states ({file.size:,} bytes): {what}. It was thrown away.",
        hint="Try again, or another mirror: --mirror URL.",
    )


def _listed(files: list[RemoteFile]) -> list[RemoteFile]:
    """Only those that are stated in full; a list is a stranger's text."""
    return [
        file
        for file in files
        if isinstance(file.path, str)
        and type(file.size) is int
        and 0 <= file.size < 2**50
        and (file.sha256 is None or bool(re.fullmatch(r"[0-9a-f]{64}", str(file.sha256))))
    ]


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)
